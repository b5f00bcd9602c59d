"""Networks with random weights, in the layout of LayerScope's own checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from layerscope.errors import CheckpointError
from layerscope.models.assembly import Assembly, head_stops, trunk_stops
from layerscope.models.heads import TrunkAndHead, describe_head, mlp_head
from layerscope.models.preprocessing import IMAGENET
from layerscope.models.trunks import resnet


def untrained(architecture: Mapping[str, Any], seed: int) -> TrunkAndHead:
    """Build a network of this family with random weights, without touching the global generator.

    Args:
        architecture: ``trunk`` (such as ``resnet18``), ``width`` of the stem, ``head`` (widths of
            the head's layers) and ``output`` (numbers read out behind the head; 0 for none).
        seed: Seeds the initialisation.

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
        head=describe_head(network.head),
        keys={},
        preprocessing=IMAGENET,
    )


def _representation_width(trunk: nn.Module) -> int:
    return [parameter.shape[0] for parameter in trunk.parameters()][-1]
