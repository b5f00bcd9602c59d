"""LayerScope's own checkpoints: a ResNet trunk, an MLP head and perhaps a read-out."""

from __future__ import annotations

import re

from layerscope.models.contents import Contents, Weights
from layerscope.models.declared import Declared
from layerscope.models.families import Family, Parts, register
from layerscope.models.heads import Operation, act, linear, norm
from layerscope.models.trunks import TrunkFacts, build_trunk

_HEAD_LINEAR = re.compile(r"head\.(\d+)\.0\.weight$")


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
        widths = _head_widths(tensors)
        output = tensors.get("output.weight")
        return Parts(
            trunk=build_trunk(tensors.under("trunk."), TrunkFacts(stem="imagenet"), declared),
            tensors=tensors.only("head.", "output."),
            head=_operations(len(widths)),
            output=None if output is None else linear("output"),
            architecture={
                "head": widths,
                "output": 0 if output is None else output.shape[0],
            },
        )


def _head_widths(tensors: Weights) -> list[int]:
    layers = [
        (int(match[1]), tensors[name].shape[0])
        for name in tensors
        if (match := _HEAD_LINEAR.match(name))
    ]
    return [width for _, width in sorted(layers)]


def _operations(layers: int) -> tuple[Operation, ...]:
    hidden = [
        step
        for number in range(1, layers)
        for step in (linear(f"head.{number}.0"), norm(f"head.{number}.1"), act("relu"))
    ]
    return (*hidden, linear(f"head.{layers}.0"))
