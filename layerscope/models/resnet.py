"""torchvision's ResNet at any width, told from the shapes of a state dict or from a recipe.

torchvision fixes the widths of its basic-block networks, and a stem's kernel. Instead of writing
the architecture again, its own network is built and each convolution and normalisation is
replaced by one of the wanted shape, with the strides that torchvision gave it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from layerscope.errors import CheckpointError

Shapes = Mapping[str, tuple[int, ...]]

_BLOCK = re.compile(r"layer([1-4])\.(\d+)\.")
_STANDARD_WIDTH = 64
_DEPTHS: dict[str, tuple[type[BasicBlock | Bottleneck], list[int]]] = {
    "resnet18": (BasicBlock, [2, 2, 2, 2]),
    "resnet34": (BasicBlock, [3, 4, 6, 3]),
    "resnet50": (Bottleneck, [3, 4, 6, 3]),
    "resnet101": (Bottleneck, [3, 4, 23, 3]),
    "resnet152": (Bottleneck, [3, 8, 36, 3]),
}


@dataclass(frozen=True, slots=True)
class Outline:
    """What of a ResNet's structure the shapes of its weights tell."""

    bottleneck: bool
    blocks: tuple[int, ...]
    groups: int
    width_per_group: int

    @property
    def name(self) -> str:
        """The usual name, such as ``resnet18``, or the block counts where it has none."""
        for name, (block, blocks) in _DEPTHS.items():
            if (block is Bottleneck) == self.bottleneck and tuple(blocks) == self.blocks:
                return name
        return "resnet-" + "-".join(map(str, self.blocks))


def outline(shapes: Shapes) -> Outline:
    """Return the structure that a torchvision-style state dict describes.

    Args:
        shapes: Shape of every tensor, by torchvision's key (``layer1.0.conv1.weight``).

    Raises:
        CheckpointError: A stage or its first block is missing.
    """
    found = {(int(m[1]), int(m[2])) for m in map(_BLOCK.match, shapes) if m}
    blocks = tuple(sum(stage == k for k, _ in found) for stage in range(1, 5))
    if "conv1.weight" not in shapes or not all(blocks):
        raise CheckpointError(
            f"The weights have no stem or lack a stage: blocks per stage are {blocks}.",
            hint="A torchvision ResNet has conv1 and layer1 to layer4.",
        )
    bottleneck = "layer1.0.conv3.weight" in shapes
    width, per_group = _first_block(shapes, bottleneck)
    groups = width // per_group
    return Outline(bottleneck, blocks, groups, width // groups)


def _first_block(shapes: Shapes, bottleneck: bool) -> tuple[int, int]:
    try:
        width = shapes["layer1.0.conv1.weight"][0]
        per_group = shapes["layer1.0.conv2.weight"][1]
    except (KeyError, IndexError):
        raise CheckpointError(
            "The first block's convolutions are missing from the weights.",
            hint="Expected layer1.0.conv1.weight and layer1.0.conv2.weight.",
        ) from None
    return (width, per_group) if bottleneck else (width, width)


def trunk_from_shapes(shapes: Shapes) -> ResNet:
    """Build the trunk (no classifier) whose tensors have just these shapes.

    Raises:
        CheckpointError: The shapes are not those of a ResNet.
    """
    plan = outline(shapes)
    block = Bottleneck if plan.bottleneck else BasicBlock
    wide = {"groups": plan.groups, "width_per_group": plan.width_per_group}
    network = ResNet(block, list(plan.blocks), **(wide if plan.bottleneck else {}))
    network.fc = nn.Identity()
    fit_to_shapes(network, shapes)
    return network


def trunk_from_recipe(depth: str, width: int) -> ResNet:
    """Build an untrained trunk of a usual depth, its stem ``width`` channels wide.

    Args:
        depth: ``resnet18`` and its like.
        width: Channels of the stem; torchvision's own networks have 64.

    Raises:
        CheckpointError: The depth has no such name.
    """
    if depth not in _DEPTHS:
        raise CheckpointError(
            f"There is no trunk called {depth!r}.", hint=f"Known: {', '.join(_DEPTHS)}."
        )
    block, blocks = _DEPTHS[depth]
    network = ResNet(block, blocks)
    network.fc = nn.Identity()
    fit_to_shapes(network, _scaled(network, width / _STANDARD_WIDTH))
    _initialise(network)
    return network


def _scaled(network: nn.Module, factor: float) -> dict[str, tuple[int, ...]]:
    def scale(name: str, tensor: Tensor) -> tuple[int, ...]:
        channels = 2 if tensor.dim() == 4 else 1
        return tuple(
            round(n * factor) if axis < channels and n != 3 else n
            for axis, n in enumerate(tensor.shape)
        )

    return {name: scale(name, tensor) for name, tensor in network.state_dict().items()}


def fit_to_shapes(network: nn.Module, shapes: Shapes) -> None:
    """Replace in place every convolution and normalisation whose weight has another shape."""
    for name, module in list(network.named_modules()):
        wanted = shapes.get(f"{name}.weight")
        if not isinstance(module, nn.Conv2d | nn.BatchNorm2d) or wanted is None:
            continue
        if tuple(module.weight.shape) == wanted:
            continue
        parent = network.get_submodule(name.rpartition(".")[0])
        setattr(parent, name.rpartition(".")[2], _resized(module, wanted, name))


def _resized(module: nn.Module, shape: tuple[int, ...], name: str) -> nn.Module:
    if isinstance(module, nn.Conv2d) and len(shape) == 4:
        out, inputs, kernel, _ = shape
        return nn.Conv2d(
            inputs * module.groups,
            out,
            kernel,
            module.stride,  # type: ignore[arg-type]
            kernel // 2,
            groups=module.groups,
            bias=module.bias is not None,
        )
    if isinstance(module, nn.BatchNorm2d) and len(shape) == 1:
        return nn.BatchNorm2d(shape[0])
    raise CheckpointError(
        f"{name}.weight has shape {shape}, which no {type(module).__name__} can take.",
        hint="The weights belong to another architecture.",
    )


def _initialise(network: nn.Module) -> None:
    # torchvision's own rule, applied again because the replaced layers were not there for it.
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
