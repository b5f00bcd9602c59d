"""mmselfsup and OpenSelfSup: a backbone, a neck (the projector), and a predictor in the head."""

from __future__ import annotations

import re
from collections.abc import Sequence

from layerscope.models.contents import Contents, Weights
from layerscope.models.declared import Activation, Declared
from layerscope.models.families import Family, Parts, branch_of, register, require_weights
from layerscope.models.heads import Operation, act, l2, linear, norm, numbered_logits, sequential
from layerscope.models.trunks import TrunkFacts, build_trunk

_MOMENTUM = ("target_net.", "encoder_k.", "momentum_encoder.")
_NECKS = r"neck\.(fc0?|mlp\.0|projection_neck\.0)\.weight$"
_TRANSFORMER = (
    (r"^patch_embed\.projection\.", "patch_embed.proj."),
    (r"^ln1\.", "norm."),
    (r"^layers\.(\d+)\.ln([12])\.", r"blocks.\1.norm\2."),
    (r"^layers\.(\d+)\.ffn\.layers\.0\.0\.", r"blocks.\1.mlp.fc1."),
    (r"^layers\.(\d+)\.ffn\.layers\.1\.", r"blocks.\1.mlp.fc2."),
    (r"^layers\.(\d+)\.", r"blocks.\1."),
)
_ATTENTION_HEADS = {384: 12, 768: 12, 1024: 16}
"""What is known of MoCo v3's transformers, the only ones with a projector."""


@register
class MMSelfSup(Family):
    """The checkpoints of open-mmlab/mmselfsup, 0.x and 1.x, with a projector in their neck."""

    name = "mmselfsup"
    title = "mmselfsup and OpenSelfSup"
    layout = "meta, state_dict: backbone., neck. (or online_net.1.), head.predictor."
    source = "open-mmlab/mmselfsup mmselfsup/models/necks, algorithms, heads"
    branches = ("online", "momentum")

    def recognise(self, contents: Contents) -> str:
        weights = _weights(contents)
        # With a classifier in the head it is a pretext task, whose neck is another one.
        if weights.has(r"backbone\.", _NECKS) and not weights.has(r"head\.fc"):
            return "backbone beside a neck of Linears"
        return ""

    def parts(self, contents: Contents, declared: Declared) -> Parts:
        branch = branch_of(self, declared)
        weights = _weights(contents)
        network = weights if branch == "online" else require_weights(_momentum(weights), branch)
        neck = network.under("neck.").without("mlp2.").within("neck.")
        swav = neck.has(r"neck\.projection_neck\.")
        if swav:
            neck = neck.without("neck.bn.")
        behind = weights.only("head.predictor.", "head.prototypes.", "head.loss.prototypes.")
        tensors = neck.joined(behind) if branch == "online" else neck
        activation = declared.head_act or "relu"
        prototypes = tensors.only("head.prototypes.", "head.loss.prototypes.")
        queue = weights.has(r"queue$")
        return Parts(
            trunk=build_trunk(
                network.under("backbone.").renamed(_TRANSFORMER),
                TrunkFacts(stem="imagenet", attention_heads=_ATTENTION_HEADS),
                declared,
            ),
            tensors=tensors,
            head=(*_layers(neck, "neck.", activation), *([l2()] if queue or swav else [])),
            predictor=_layers(tensors, "head.predictor.", activation),
            logits=numbered_logits([linear(name.removesuffix(".weight")) for name in prototypes]),
            ignored={
                r".*\b(online_net|encoder|encoder_q|base_encoder)\.[01]\.": (
                    "the same tensors a second time"
                ),
                r".*\bneck\.(bn|projection_neck\.1)\.": "the same tensors a second time",
                r".*\bmlp2\.": "projects places of the map",
                r".*\bhead\.bn\.": "normalises within the loss",
                r".*\b(queue2?(_ptr)?|memory_bank\b.*|steps|data_preprocessor\..*)$": (
                    "state of the training"
                ),
                r".*\b(target_net|encoder_k|momentum_encoder|backbone|neck|head)\.": (
                    "the other branch's weights"
                ),
            },
        )


def _weights(contents: Contents) -> Weights:
    """Return the state dict; OpenSelfSup has a momentum method's neck in its Sequential only."""
    weights = contents.state_dict
    if weights.has(r"neck\."):
        return weights
    return weights.renamed([(r"^(online_net|encoder_q)\.1\.", "neck.")])


def _momentum(weights: Weights) -> Weights:
    """Return the momentum network with its parts named as in the online one."""
    for prefix in _MOMENTUM:
        found = weights.under(prefix)
        inner = found.under("module.") or found
        if inner:
            return inner.renamed([(r"^0\.", "backbone."), (r"^1\.", "neck.")]).only(
                "backbone.", "neck."
            )
    return Weights()


def _layers(tensors: Weights, prefix: str, activation: Activation) -> Sequence[Operation]:
    """Return the operations of one of the necks, which its tensors' names tell."""
    neck = tensors.under(prefix)
    if not neck:
        return ()
    for inner in ("mlp.", "projection_neck."):
        if neck.has(re.escape(inner) + r"\d"):
            return sequential(tensors, f"{prefix}{inner}", activation)
        if f"{inner}weight" in neck:
            return (linear(f"{prefix}{inner}".rstrip(".")),)
    if "fc.weight" in neck:
        return (linear(f"{prefix}fc"),)
    steps: list[Operation] = []
    for number in range(sum(bool(re.match(r"fc\d+\.weight$", name)) for name in neck)):
        if number:
            steps.append(act(activation))
        steps.append(linear(f"{prefix}fc{number}"))
        if neck.has(rf"bn{number}\."):
            steps.append(norm(f"{prefix}bn{number}"))
    return steps
