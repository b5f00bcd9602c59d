"""SimCLR v2, converted by Separius: ResNets with or without selective kernels, and their head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from timm.layers.selective_kernel import SelectiveKernel
from torch import nn

from layerscope.errors import CheckpointError
from layerscope.models.contents import Contents, Weights, unwrapped
from layerscope.models.declared import Declared
from layerscope.models.families import Family, Parts, register
from layerscope.models.heads import sequential
from layerscope.models.preprocessing import UNNORMALISED
from layerscope.models.trunks import Trunk, TrunkFacts, build_trunk, resnet

_STEM = (
    (r"^net\.0\.0\.", "conv1."),
    (r"^net\.0\.1\.0\.", "bn1."),
)
_SELECTIVE_STEM = (
    (r"^net\.0\.0\.", "conv1.0."),
    (r"^net\.0\.1\.0\.", "conv1.1."),
    (r"^net\.0\.2\.", "conv1.3."),
    (r"^net\.0\.3\.0\.", "conv1.4."),
    (r"^net\.0\.4\.", "conv1.6."),
    (r"^net\.0\.5\.0\.", "bn1."),
)
_STAGES = ((r"^net\.([1-4])\.blocks\.", r"layer\1."),)
_SHORTCUT = (
    (r"\.projection\.shortcut\.", ".downsample.0."),
    (r"\.projection\.bn\.0\.", ".downsample.1."),
    (r"\.net\.0\.", ".conv1."),
    (r"\.net\.1\.0\.", ".bn1."),
)
_BLOCKS = (
    *_SHORTCUT,
    (r"\.net\.2\.", ".conv2."),
    (r"\.net\.3\.0\.", ".bn2."),
    (r"\.net\.4\.", ".conv3."),
    (r"\.net\.5\.0\.", ".bn3."),
)
_SELECTIVE_BLOCKS = (
    *_SHORTCUT,
    (r"\.net\.2\.main_conv\.0\.", ".conv2.paths.conv."),
    (r"\.net\.2\.main_conv\.1\.0\.", ".conv2.paths.bn."),
    (r"\.net\.2\.mixing_conv\.0\.", ".conv2.attn.fc_reduce."),
    (r"\.net\.2\.mixing_conv\.1\.0\.", ".conv2.attn.bn."),
    (r"\.net\.2\.mixing_conv\.2\.", ".conv2.attn.fc_select."),
    (r"\.net\.3\.", ".conv3."),
    (r"\.net\.4\.0\.", ".bn3."),
)
_PATHS = ".conv2.paths."
_UNTRAINED = (
    "The file's head was never filled (it is of a fine-tuned network), so the drop behind the "
    "trunk cannot be seen in it."
)


@register
class SimCLRv2(Family):
    """The files that Separius/SimCLRv2-Pytorch writes."""

    name = "simclr-v2"
    title = "SimCLR v2 (Separius' conversion, with and without selective kernels)"
    layout = "resnet: net.0, net.1.blocks.0. to net.4.; head: layers.0 to layers.7"
    source = "Separius/SimCLRv2-Pytorch resnet.py, convert.py, verify.py"

    def recognise(self, contents: Contents) -> str:
        network = unwrapped(contents.table("resnet"))
        blocks = network.has(r"net\.0\.0\.weight$", r"net\.1\.blocks\.0\.projection\.shortcut\.")
        if blocks and "head" in contents.names():
            return "tables resnet, with net.1.blocks.0.projection, and head"
        return ""

    def parts(self, contents: Contents, declared: Declared) -> Parts:
        network = unwrapped(contents.table("resnet")).without("fc.")
        head = unwrapped(contents.table("head"))
        trained = _is_trained(head)
        return Parts(
            trunk=_trunk(network, declared),
            tensors=head if trained else Weights(),
            head=sequential(head, "layers.", declared.head_act or "relu") if trained else (),
            ignored={
                r"resnet/(module\.)?fc\.": "a classifier of the representation, beside the head",
                r"head/": "random: the head of a fine-tuned network is not converted",
            },
            preprocessing=UNNORMALISED,
            notes=() if trained else (_UNTRAINED,),
        )


def _is_trained(head: Weights) -> bool:
    # The converter saves a fresh head beside a fine-tuned network; its statistics give it away.
    means = [t for name, t in head.items() if name.endswith("running_mean")]
    variances = [t for name, t in head.items() if name.endswith("running_var")]
    fresh = all(not t.any() for t in means) and all(bool((t == 1).all()) for t in variances)
    return bool(head) and not fresh


def _trunk(network: Weights, declared: Declared) -> Trunk:
    stages = network.renamed(_STAGES)
    if "net.0.4.weight" not in network:
        plain = stages.renamed(_STEM).renamed(_BLOCKS)
        return build_trunk(plain, TrunkFacts(stem="imagenet"), declared)
    return _selective_trunk(_parted(stages.renamed(_SELECTIVE_STEM).renamed(_SELECTIVE_BLOCKS)))


def _parted(tensors: Weights) -> Weights:
    """Return the tensors, the joint convolution of each two paths parted into two."""
    parted = Weights()
    for name in tensors:
        own = Weights({name: tensors[name]}, {name: tensors.origins[name]})
        block, joint, rest = name.partition(_PATHS)
        if not joint:
            parted = parted.joined(own)
        elif tensors[name].dim():  # the counter of the joint BatchNorm has no halves
            for path, half in enumerate(_halves(name, tensors)):
                new = own.with_tensor(f"{block}{_PATHS}{path}.{rest}", half, [name])
                parted = parted.joined(new.without(name))
    return parted


def _halves(name: str, tensors: Weights) -> tuple[torch.Tensor, ...]:
    tensor = tensors[name]
    if len(tensor) % 2:
        raise CheckpointError(
            f"{tensors.origins[name][0]} has shape {tuple(tensor.shape)}, which has no two halves.",
            hint="A selective kernel's convolution holds the filters of two paths.",
        )
    return tensor.chunk(2)


def _selective_trunk(tensors: Weights) -> Trunk:
    """Return the trunk with selective kernels: torchvision's ResNet with three parts exchanged.

    The stem's convolution becomes three; each block's 3 × 3 convolution becomes a selective kernel
    of two 3 × 3 paths (its ReLU and BatchNorm are within, and torchvision's ReLU behind it leaves
    what is not negative as it is); and each projecting shortcut averages before it projects, over
    windows that a row and a column of zeros fill up.
    """
    shapes = tensors.shapes
    plain = _plain_shapes(shapes)
    module = resnet.trunk_from_shapes(plain)
    module.conv1 = _stem(shapes)
    for stage, count in enumerate(resnet.outline(plain).blocks, start=1):
        for number in range(count):
            name = f"layer{stage}.{number}"
            _exchange(module.get_submodule(name), name, shapes)
    return Trunk(
        module=module,
        weights=tensors,
        stops=resnet.stops(plain),
        name=resnet.outline(plain).name,
        details={"width": module.bn1.num_features, "selective_kernels": True},
    )


def _plain_shapes(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    plain: dict[str, tuple[int, ...]] = {}
    for name, shape in shapes.items():
        block, path, rest = name.partition(f"{_PATHS}0.")
        if path:
            plain[block + (".conv2.weight" if rest == "conv.weight" else f".bn2.{rest[3:]}")] = (
                shape
            )
        elif ".downsample.0." in name:
            plain[name.replace(".downsample.0.2.", ".downsample.0.")] = shape
        elif not name.startswith("conv1.") and ".conv2." not in name:
            plain[name] = shape
    plain["conv1.weight"] = (*_shape(shapes, "bn1.weight", 1), 3, 7, 7)
    return plain


def _stem(shapes: Mapping[str, tuple[int, ...]]) -> nn.Sequential:
    first, second, third = (_shape(shapes, f"conv1.{i}.weight", 4) for i in (0, 3, 6))
    return nn.Sequential(
        nn.Conv2d(first[1], first[0], 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(first[0]),
        nn.ReLU(),
        nn.Conv2d(second[1], second[0], 3, padding=1, bias=False),
        nn.BatchNorm2d(second[0]),
        nn.ReLU(),
        nn.Conv2d(third[1], third[0], 3, padding=1, bias=False),
    )


def _exchange(block: Any, name: str, shapes: Mapping[str, tuple[int, ...]]) -> None:
    stride = block.conv2.stride[0]
    outputs, inputs = _shape(shapes, f"{name}.conv2.paths.0.conv.weight", 4)[:2]
    mixed = _shape(shapes, f"{name}.conv2.attn.fc_reduce.weight", 4)[0]
    block.conv2 = SelectiveKernel(
        inputs, outputs, kernel_size=[3, 3], stride=stride, rd_channels=mixed, split_input=False
    )
    block.bn2 = nn.Identity()
    if block.downsample is not None:
        width, before = _shape(shapes, f"{name}.downsample.0.2.weight", 4)[:2]
        block.downsample[0] = nn.Sequential(
            nn.ZeroPad2d((0, 1, 0, 1)),
            nn.AvgPool2d(2, stride),
            nn.Conv2d(before, width, 1, bias=False),
        )


def _shape(shapes: Mapping[str, tuple[int, ...]], name: str, dimensions: int) -> tuple[int, ...]:
    shape = shapes.get(name, ())
    if len(shape) != dimensions:
        raise CheckpointError(
            f"The trunk's {name} {f'has shape {shape}' if shape else 'is not there'}.",
            hint="A SimCLR v2 trunk has selective kernels in its stem and all blocks, or in none.",
        )
    return shape
