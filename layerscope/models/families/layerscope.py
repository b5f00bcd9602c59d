"""LayerScope's own checkpoints: a ResNet trunk, an MLP head and perhaps a read-out."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from layerscope.errors import CheckpointError
from layerscope.models.cuts import Stop
from layerscope.models.families import Assembly, families
from layerscope.models.families.torchvision import trunk_stops
from layerscope.models.heads import TrunkAndHead, mlp_head
from layerscope.models.loading import fill
from layerscope.models.resnet import outline, trunk_from_recipe, trunk_from_shapes

_HEAD_LINEAR = re.compile(r"head\.(\d+)\.0\.weight$")


class LayerScope:
    """What ``layerscope pretrain`` writes."""

    name = "layerscope"
    title = "LayerScope's own (SimCLR, supervised latents)"

    def recognise(self, tensors: Mapping[str, Tensor]) -> str:
        """Return why these tensors are of this family, or an empty string."""
        if "trunk.conv1.weight" in tensors and "head.1.0.weight" in tensors:
            return "trunk.conv1 and head.1.0"
        return ""

    def assemble(self, tensors: Mapping[str, Tensor]) -> Assembly:
        """Return the network that the tensors' shapes describe."""
        shapes = {
            key.removeprefix("trunk."): tuple(tensor.shape)
            for key, tensor in tensors.items()
            if key.startswith("trunk.")
        }
        widths = _head_widths(tensors)
        network = TrunkAndHead(trunk_from_shapes(shapes), mlp_head(widths), _output(tensors))
        fill(network, tensors)
        return _assembly(
            network, outline(shapes).name, shapes["conv1.weight"][0], {key: key for key in tensors}
        )


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
        trunk = trunk_from_recipe(depth, width)
        layers = mlp_head([_representation_width(trunk), *head])
        return TrunkAndHead(trunk, layers, nn.Linear(head[-1], output) if output else None)


def assemble_untrained(architecture: Mapping[str, Any], seed: int) -> Assembly:
    """Return a network of this family with random weights, as an assembly."""
    network = untrained(architecture, seed)
    return _assembly(network, str(architecture["trunk"]), int(architecture["width"]), {})


def _assembly(network: TrunkAndHead, depth: str, width: int, keys: Mapping[str, str]) -> Assembly:
    shapes = {key: tuple(tensor.shape) for key, tensor in network.trunk.state_dict().items()}
    widths = [layer[0].out_features for layer in network.head]  # type: ignore[index]
    output = network.output.out_features if isinstance(network.output, nn.Linear) else 0
    numbers = range(1, len(widths) + 1)
    return Assembly(
        module=network,
        stops=(
            *trunk_stops(shapes),
            *(Stop(f"head.{number}", f"head.{number}", "head") for number in numbers),
        ),
        architecture={"trunk": depth, "width": width, "head": widths, "output": output},
        head=f"{len(widths)}-layer MLP, {'-'.join(map(str, widths))}",
        keys=keys,
    )


def _head_widths(tensors: Mapping[str, Tensor]) -> list[int]:
    layers = sorted(
        (int(match[1]), tensor.shape)
        for key, tensor in tensors.items()
        if (match := _HEAD_LINEAR.match(key))
    )
    return [layers[0][1][1], *(shape[0] for _, shape in layers)]


def _output(tensors: Mapping[str, Tensor]) -> nn.Linear | None:
    weight = tensors.get("output.weight")
    return None if weight is None else nn.Linear(weight.shape[1], weight.shape[0])


def _representation_width(trunk: nn.Module) -> int:
    shapes: Sequence[int] = [p.shape[0] for p in trunk.parameters()]
    return shapes[-1]


families.add(LayerScope.name, LayerScope())
