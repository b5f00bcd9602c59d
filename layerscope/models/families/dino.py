"""DINO: a student and a teacher, each a trunk with an MLP head and weight-normed logits."""

from __future__ import annotations

import re

from layerscope.models.contents import Contents, Weights, unwrapped
from layerscope.models.declared import Activation, Branch, Declared
from layerscope.models.families import Family, Parts, branch_of, register, require_weights
from layerscope.models.heads import Operation, l2, linear, sequential, weight_normed
from layerscope.models.preprocessing import IMAGENET_BICUBIC
from layerscope.models.trunks import TrunkFacts, build_trunk
from layerscope.models.trunks.positions import bicubic

KNOWN = TrunkFacts(resample=bicubic(offset=0.1))
"""DINO's transformers have one attention head every 64 features; so have iBOT's and DINOv2's."""

_TABLES: dict[Branch, str] = {"momentum": "teacher", "online": "student"}

_CLASS_ATTENTION = re.compile(r"(cls_attn_blocks\.\d+\.attn\.)qkv\.(weight|bias)$")


@register
class DINO(Family):
    """The full checkpoints of facebookresearch/dino."""

    name = "dino"
    title = "DINO"
    layout = "student, teacher: backbone., head.mlp., head.last_layer."
    source = "facebookresearch/dino main_dino.py, vision_transformer.py"
    branches = ("momentum", "online")

    def recognise(self, contents: Contents) -> str:
        if not {"student", "teacher"} <= contents.names():
            return ""
        teacher = unwrapped(contents.table("teacher"))
        patches = teacher.has(r"backbone\.masked_embed$") or teacher.has(r"head\.last_layer2\.")
        if teacher.has(r"backbone\.", r"head\.mlp\.", r"head\.last_layer\.") and not patches:
            return "student and teacher, each with head.mlp and head.last_layer, no patch head"
        return ""

    def parts(self, contents: Contents, declared: Declared) -> Parts:
        branch = branch_of(self, declared)
        weights = branch_weights(contents, branch)
        head = weights.under("head.")
        return Parts(
            trunk=build_trunk(_trunk_by_timm(weights.under("backbone.")), KNOWN, declared),
            tensors=head,
            head=projector(head, declared.head_act or "gelu"),
            logits={"Q": (weight_normed("last_layer"),)},
            ignored=ignored_beside(branch),
            preprocessing=IMAGENET_BICUBIC,
        )


def _trunk_by_timm(backbone: Weights) -> Weights:
    """Return the trunk's tensors by timm's names, which differ for XCiT alone.

    XCiT computes queries, keys and values of its class attention by one Linear, timm by three.
    """
    weights = backbone.renamed([(r"^pos_embeder\.", "pos_embed.")])
    for name in list(weights):
        match = _CLASS_ATTENTION.match(name)
        if match:
            for letter, part in zip("qkv", weights[name].chunk(3), strict=False):
                weights = weights.with_tensor(f"{match[1]}{letter}.{match[2]}", part, [name])
            weights = weights.without(name)
    return weights


def branch_weights(contents: Contents, branch: Branch) -> Weights:
    """Return the student's or the teacher's weights, without wrappers' prefixes.

    Raises:
        CheckpointError: The file does not hold them.
    """
    return require_weights(unwrapped(contents.table(_TABLES[branch])), branch)


def projector(head: Weights, activation: Activation) -> tuple[Operation, ...]:
    """Return the operations of a DINO head up to its logits: an MLP and an L2 norm.

    Args:
        head: With names such as ``mlp.0.weight``, or ``mlp.weight`` where it is one layer.
        activation: Between its layers.
    """
    if "mlp.weight" in head:
        return (linear("mlp"), l2())
    return sequential(head, "mlp.", activation, last=[l2()])


def ignored_beside(branch: Branch) -> dict[str, str]:
    """Return the reasons for which what lies beside a branch's weights is not needed."""
    other = "teacher" if branch == "online" else "student"
    return {f"{other}/": f"the {other}'s weights", r"\w+_loss/": "state of the training"}
