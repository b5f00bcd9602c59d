"""LayerScope's own checkpoints: a ResNet trunk, an MLP head and perhaps a read-out."""

from __future__ import annotations

from layerscope.models.contents import Contents
from layerscope.models.declared import Declared
from layerscope.models.families import Family, Parts, register
from layerscope.models.heads import Operation, act, linear, norm
from layerscope.models.trunks import TrunkFacts, build_trunk


@register
class LayerScope(Family):
    """What ``layerscope pretrain`` writes."""

    name = "layerscope"
    title = "LayerScope's own (SimCLR, supervised latents)"
    layout = "trunk., head.1.0, output."
    source = "layerscope pretrain"

    def recognise(self, contents: Contents) -> str:
        if {"trunk.conv1.weight", "head.1.0.weight"} <= contents.names():
            return "trunk.conv1 and head.1.0"
        return ""

    def parts(self, contents: Contents, declared: Declared) -> Parts:
        tensors = contents.table()
        layers = tensors.numbers("head.")
        widths = [tensors[f"head.{number}.0.weight"].shape[0] for number in layers]
        output = tensors.get("output.weight")
        return Parts(
            trunk=build_trunk(tensors.under("trunk."), TrunkFacts(stem="imagenet"), declared),
            tensors=tensors.only("head.", "output."),
            head=_operations(len(widths)),
            output=None if output is None else linear("output"),
            architecture={"head": widths, "output": 0 if output is None else output.shape[0]},
        )


def _operations(layers: int) -> tuple[Operation, ...]:
    hidden = [
        step
        for number in range(1, layers)
        for step in (linear(f"head.{number}.0"), norm(f"head.{number}.1"), act("relu"))
    ]
    return (*hidden, linear(f"head.{layers}.0"))
