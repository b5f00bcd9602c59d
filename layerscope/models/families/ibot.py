"""iBOT: DINO's student and teacher with a second head for masked patches."""

from __future__ import annotations

from layerscope.errors import CheckpointError
from layerscope.models.contents import Contents, Weights, unwrapped
from layerscope.models.declared import Declared
from layerscope.models.families import Family, Parts, branch_of, register
from layerscope.models.families.dino import KNOWN, branch_weights, ignored_beside, projector
from layerscope.models.heads import weight_normed
from layerscope.models.preprocessing import IMAGENET_BICUBIC
from layerscope.models.trunks import build_trunk

_MASK = "masked_embed"
_IGNORED = {
    rf".*\b{_MASK}$": "stands for the masked patches",
    r".*\bhead\.last_layer2\.": "logits of the masked patches",
}


@register
class IBOT(Family):
    """The checkpoints of bytedance/ibot, whole or extracted by its script."""

    name = "ibot"
    title = "iBOT"
    layout = "student, teacher: backbone., head.mlp., head.last_layer., head.last_layer2."
    source = "bytedance/ibot main_ibot.py, models/head.py, extract_backbone_weights.py"
    branches = ("momentum", "online")

    def recognise(self, contents: Contents) -> str:
        if {"student", "teacher"} <= contents.names():
            teacher = unwrapped(contents.table("teacher"))
            if teacher.has(r"backbone\.", r"head\.mlp\.", r"head\.last_layer2\."):
                return "student and teacher with a second last layer, for patches"
            return ""
        extracted = _extracted(contents)
        if not extracted.has(r"blocks\.0\.attn\.qkv\.weight$"):
            return ""
        if _MASK in extracted:
            return "a transformer with masked_embed, the student's"
        if extracted.has(r"head\.mlp\.", r"head\.last_layer2\."):
            return "a transformer beside a head with a second last layer, for patches"
        return ""

    def parts(self, contents: Contents, declared: Declared) -> Parts:
        if "teacher" in contents.names():
            branch = branch_of(self, declared)
            weights, ignored = branch_weights(contents, branch), ignored_beside(branch)
            trunk = weights.under("backbone.")
        else:
            weights, ignored = _extracted(contents), {}
            branch = "online" if _MASK in weights else "momentum"
            if declared.branch not in (None, branch):
                raise CheckpointError(
                    f"{contents.title} holds {branch} weights alone, extracted from their "
                    "checkpoint.",
                    hint="Declare no branch, or give the whole checkpoint.",
                )
            trunk = weights.without("head.")
        head = weights.under("head.").without("last_layer2.")
        return Parts(
            trunk=build_trunk(trunk.without(_MASK), KNOWN, declared),
            tensors=head,
            head=projector(head, declared.head_act or "gelu") if head else (),
            logits={"Q": (weight_normed("last_layer"),)} if head else {},
            ignored=ignored | _IGNORED,
            preprocessing=IMAGENET_BICUBIC,
        )


def _extracted(contents: Contents) -> Weights:
    # The script shortens the trunk's keys alone; those of the student's head keep their wrapper.
    return contents.state_dict.renamed([(r"^module\.", "")])
