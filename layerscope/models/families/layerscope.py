"""LayerScope's own checkpoints: a ResNet trunk, an MLP head and perhaps a read-out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from layerscope.errors import CheckpointError
from layerscope.models.assembly import Assembly, head_stops, trunk_stops
from layerscope.models.contents import Contents, Keyed
from layerscope.models.declared import Branch, Declared
from layerscope.models.families import Parts, families
from layerscope.models.heads import Operation, TrunkAndHead, act, described, linear, mlp_head, norm
from layerscope.models.preprocessing import IMAGENET
from layerscope.models.trunks import Known, build_trunk, resnet

_HEAD_LINEAR = re.compile(r"head\.(\d+)\.0\.weight$")


class LayerScope:
    """What ``layerscope pretrain`` writes."""

    name = "layerscope"
    title = "LayerScope's own (SimCLR, supervised latents)"
    layout = "trunk., head.1.0, output."
    source = "layerscope pretrain"
    branches: tuple[Branch, ...] = ()
    general = False

    def recognise(self, contents: Contents) -> str:
        """Return why these contents are of this family, or an empty string."""
        if {"trunk.conv1.weight", "head.1.0.weight"} <= contents.names():
            return "trunk.conv1 and head.1.0"
        return ""

    def parts(self, contents: Contents, declared: Declared) -> Parts:
        """Return the trunk, the MLP head and the read-out, if there is one."""
        tensors = contents.table()
        widths = _head_widths(tensors)
        output = tensors.get("output.weight")
        return Parts(
            trunk=build_trunk(tensors.under("trunk."), Known(stem="imagenet"), declared),
            tensors=tensors.only("head.", "output."),
            head=_operations(len(widths)),
            output=None if output is None else linear("output"),
            architecture={
                "head": widths,
                "output": 0 if output is None else output.shape[0],
            },
        )


def _head_widths(tensors: Keyed) -> list[int]:
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


def untrained(architecture: Mapping[str, Any], seed: int) -> TrunkAndHead:
    """Build a network of this family with random weights, without touching the global generator.

    Args:
        architecture: ``trunk`` (such as ``resnet18``), ``width`` of the stem, ``head`` (widths of
            the head's layers) and ``output`` (numbers read out behind the head; 0 for none).
        seed: Of the initialisation.

    Raises:
        CheckpointError: A setting is missing or names no known trunk.
    """
    try:
        depth, width = str(architecture["trunk"]), int(architecture["width"])
        head, output = list(architecture["head"]), int(architecture["output"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"The architecture {dict(architecture)!r} is incomplete: {error}.",
            hint="It needs trunk, width, head and output.",
        ) from error
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        trunk = resnet.trunk_from_recipe(depth, width)
        layers = mlp_head([_representation_width(trunk), *head])
        return TrunkAndHead(trunk, layers, nn.Linear(head[-1], output) if output else None)


def assemble_untrained(architecture: Mapping[str, Any], seed: int) -> Assembly:
    """Return a network of this family with random weights, as an assembly."""
    network = untrained(architecture, seed)
    shapes = {key: tuple(tensor.shape) for key, tensor in network.trunk.state_dict().items()}
    names = ("trunk", "width", "head", "output")
    return Assembly(
        module=network,
        stops=(*trunk_stops(resnet.stops(shapes)), *head_stops(network.head)),
        architecture={name: architecture[name] for name in names},
        head=described(network.head),
        keys={},
        preprocessing=IMAGENET,
    )


def _representation_width(trunk: nn.Module) -> int:
    return [parameter.shape[0] for parameter in trunk.parameters()][-1]


families.add(LayerScope.name, LayerScope())
