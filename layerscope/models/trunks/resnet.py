"""torchvision's ResNet at any width, told from the shapes of a state dict or from a recipe.

torchvision fixes the widths of its basic-block networks, and a stem's kernel. Instead of writing
the architecture again, its own network is built and each convolution and normalisation is
replaced by one of the wanted shape, with the strides that torchvision gave it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from layerscope.errors import CheckpointError
from layerscope.models.batchnorm import forget
from layerscope.models.contents import Weights
from layerscope.models.cuts import Stop
from layerscope.models.trunks.trunk import Shapes, Trunk, TrunkFacts

_BLOCK = re.compile(r"layer([1-4])\.(\d+)\.")
_PLAIN = re.compile(
    r"(layer[1-4]\.\d+\.)?(conv[123]\.weight"
    r"|bn[123]\.(weight|bias|running_mean|running_var|num_batches_tracked))$"
    r"|layer[1-4]\.\d+\.downsample\.(0\.weight"
    r"|1\.(weight|bias|running_mean|running_var|num_batches_tracked))$"
)
_STANDARD_WIDTH = 64
_DEPTHS: dict[str, tuple[type[BasicBlock | Bottleneck], list[int]]] = {
    "resnet18": (BasicBlock, [2, 2, 2, 2]),
    "resnet34": (BasicBlock, [3, 4, 6, 3]),
    "resnet50": (Bottleneck, [3, 4, 6, 3]),
    "resnet101": (Bottleneck, [3, 4, 23, 3]),
    "resnet152": (Bottleneck, [3, 8, 36, 3]),
    "resnet200": (Bottleneck, [3, 24, 36, 3]),
}


@dataclass(frozen=True, slots=True)
class ResNetOutline:
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


def outline(shapes: Shapes) -> ResNetOutline:
    """Return the structure that a torchvision-style state dict describes.

    Raises:
        CheckpointError: A stage or its first block is missing.
    """
    blocks = stage_blocks(shapes)
    if "conv1.weight" not in shapes or not all(blocks):
        raise CheckpointError(
            f"The weights have no stem or lack a stage: blocks per stage are {blocks}.",
            hint="A torchvision ResNet has conv1 and layer1 to layer4.",
        )
    bottleneck = "layer1.0.conv3.weight" in shapes
    width, per_group = _first_block(shapes, bottleneck)
    groups = width // per_group
    return ResNetOutline(bottleneck, blocks, groups, width // groups)


def stage_blocks(shapes: Shapes) -> tuple[int, ...]:
    """Return how many blocks ``layer1`` to ``layer4`` have."""
    found = {(int(m[1]), int(m[2])) for m in map(_BLOCK.match, shapes) if m}
    return tuple(sum(stage == k for k, _ in found) for stage in range(1, 5))


def _first_block(shapes: Shapes, bottleneck: bool) -> tuple[int, int]:
    first, second = (shapes.get(f"layer1.0.conv{n}.weight", ()) for n in (1, 2))
    if len(first) != 4 or len(second) != 4 or 0 in (*first, *second):
        raise CheckpointError(
            "The first block's convolutions are missing from the weights, or misshapen.",
            hint="Expected layer1.0.conv1.weight and layer1.0.conv2.weight.",
        )
    width, per_group = first[0], second[1]
    if width < per_group:
        raise CheckpointError(
            f"layer1.0.conv2.weight reads {per_group} channels, and conv1 before it makes {width}.",
            hint="The weights are of another architecture.",
        )
    return (width, per_group) if bottleneck else (width, width)


def fits(shapes: Shapes) -> bool:
    """Return whether every name is one that a ResNet of torchvision has."""
    return {"conv1.weight", "bn1.weight", "layer1.0.conv1.weight", "layer4.0.conv1.weight"} <= set(
        shapes
    ) and all(map(_PLAIN.match, shapes))


def build(tensors: Weights, known: TrunkFacts) -> Trunk:
    """Return the ResNet whose tensors these are, at any width.

    Args:
        tensors: By torchvision's keys, without a classifier.
        known: What the family knows, with what the user declared: a 3 × 3 stem may have stride 1
            and no max pooling (CIFAR's), stride 1 and one (STL-10's), or stride 2 and one.

    Raises:
        CheckpointError: The shapes are not those of a ResNet, or its stem has to be declared.
    """
    shapes = tensors.shapes
    module = trunk_from_shapes(shapes)
    stem = _stem(shapes, known)
    if stem != "imagenet":
        module.conv1.stride = (1, 1)
    if stem == "cifar":
        module.maxpool = nn.Identity()
    if not known.statistics:
        norms = [name for name, m in module.named_modules() if isinstance(m, nn.BatchNorm2d)]
        forget(module, norms)
    if known.stem_padding is not None:
        module.conv1.padding = (known.stem_padding, known.stem_padding)
    return Trunk(
        module=module,
        weights=tensors,
        stops=stops(shapes),
        name=outline(shapes).name,
        details={"width": shapes["conv1.weight"][0]}
        | ({"stem": stem} if stem != "imagenet" else {}),
    )


def _stem(shapes: Shapes, known: TrunkFacts) -> str:
    if known.stem is not None:
        return known.stem
    if shapes["conv1.weight"][-1] == 3:
        raise CheckpointError(
            "The stem's kernel is 3 × 3, and the weights do not tell its stride.",
            hint="Write --declare stem=cifar (stride 1, no pooling), stl10 (stride 1) or imagenet.",
        )
    return "imagenet"


def stops(shapes: Shapes) -> tuple[Stop, ...]:
    """Return the canonical stops of a ResNet trunk: stem, every block, the pooled end.

    A residual block is one layer: nothing inside of it is a cut point, since a skip connection
    would cross the cut (Guillotine Regularization, footnote 3).
    """
    blocks = [
        f"layer{stage}.{block}"
        for stage, count in enumerate(outline(shapes).blocks, start=1)
        for block in range(count)
    ]
    return (
        Stop("stem", "maxpool", "trunk"),
        *(Stop(name, name, "trunk") for name in blocks),
        Stop("trunk", "avgpool", "trunk"),
    )


def trunk_from_shapes(shapes: Shapes) -> ResNet:
    """Build the trunk (no classifier) whose tensors have just these shapes, yet to be filled.

    Raises:
        CheckpointError: The shapes are not those of a ResNet.
    """
    plan = outline(shapes)
    block = Bottleneck if plan.bottleneck else BasicBlock
    wide = {"groups": plan.groups, "width_per_group": plan.width_per_group}
    with torch.device("meta"):  # initialising what a file fills anyway costs most of the time
        network = ResNet(block, list(plan.blocks), **(wide if plan.bottleneck else {}))
        network.fc = nn.Identity()
        fit_to_shapes(network, shapes)
    network.to_empty(device="cpu")
    for name, counter in network.named_buffers():
        if name.endswith("num_batches_tracked"):  # which a file need not hold
            counter.zero_()
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
    fit_to_shapes(network, _scale_shapes(network, width / _STANDARD_WIDTH))
    _initialise(network)
    return network


def _scale_shapes(network: nn.Module, factor: float) -> dict[str, tuple[int, ...]]:
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
        setattr(parent, name.rpartition(".")[2], _resize_layer(module, wanted, name))


def _resize_layer(module: nn.Module, shape: tuple[int, ...], name: str) -> nn.Module:
    if isinstance(module, nn.Conv2d) and len(shape) == 4 and shape[0] % module.groups == 0:
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
