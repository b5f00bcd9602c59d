"""What byol-convert writes: torchvision's names in Haiku's order, for TensorFlow's padding."""

import math
from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.resnet import Bottleneck, ResNet

from layerscope.errors import CheckpointError
from layerscope.models.checkpoint import assemble
from layerscope.models.contents import Contents
from layerscope.models.declared import Declared
from layerscope.models.recognition import recognise_family
from layerscope.testing import FamilyExample, check_family
from tests.models.families.truth import randomised


def network() -> nn.Module:
    return randomised(ResNet(Bottleneck, [1, 1, 1, 1], num_classes=20))


def haiku_name(key: str) -> str:
    for ours, theirs in (
        ("downsample.0.", "shortcut_conv."),
        ("downsample.1.", "shortcut_batchnorm."),
        ("bn", "batchnorm_"),
        ("fc.", "classifier."),
        (".bias", ".offset"),
    ):
        key = key.replace(ours, theirs)
    return key


def converted(body: nn.Module) -> dict[str, Tensor]:
    """What the converter leaves: sorted parameters by Haiku's names, then sorted statistics."""
    state = {k: v for k, v in body.state_dict().items() if not k.endswith("num_batches_tracked")}
    ordered = sorted(state, key=lambda key: ("running_" in key, haiku_name(key)))
    return {key: state[key] for key in ordered}


def same(x: Tensor, kernel: int, stride: int) -> Tensor:
    """Pad as TensorFlow does: what is odd goes to the right and below."""
    sides = []
    for size in (x.shape[-1], x.shape[-2]):
        total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
        sides += [total // 2, total - total // 2]
    return functional.pad(x, sides)


def conv(layer: nn.Conv2d, x: Tensor) -> Tensor:
    kernel, stride = layer.kernel_size[0], layer.stride[0]
    return functional.conv2d(same(x, kernel, stride), layer.weight, stride=stride)


def block(layer: nn.Module, x: Tensor) -> Tensor:
    out = torch.relu(layer.bn1(conv(layer.conv1, x)))
    out = torch.relu(layer.bn2(conv(layer.conv2, out)))
    out = layer.bn3(conv(layer.conv3, out))
    return torch.relu(out + layer.downsample[1](conv(layer.downsample[0], x)))


def truth(body: nn.Module):
    def forward(images: Tensor) -> Mapping[str, Tensor]:
        x = torch.relu(body.bn1(conv(body.conv1, images)))
        x = functional.max_pool2d(same(x, 3, 2), 3, 2)
        features = {"stem": x.mean((2, 3))}
        for stage in range(1, 5):
            x = block(getattr(body, f"layer{stage}")[0], x)
            features[f"layer{stage}.0"] = x.mean((2, 3))
        features["trunk"] = x.mean((2, 3))
        if isinstance(body.fc, nn.Identity):
            return features
        return features | {"Q": body.fc(features["trunk"])}

    return forward


@pytest.mark.parametrize(("side", "classifier"), [(64, True), (75, True), (64, False)])
def test_every_cut_equals_a_forward_with_tensorflows_padding(side, classifier):
    body = network()
    if not classifier:
        body.fc = nn.Identity()
    file = FamilyExample(converted(body), truth(body), side)
    assert check_family("byol-deepmind", file) == []


def test_torchvisions_own_order_is_not_taken_for_it():
    state = {k: v for k, v in network().state_dict().items() if "num_batches" not in k}
    assert recognise_family(Contents(state))[0] != "byol-deepmind"
    with pytest.raises(CheckpointError):
        assemble(Contents(state), Declared(family="byol-deepmind"))


def test_the_classifier_is_no_head():
    assembly = assemble(Contents(converted(network())), Declared())
    assert assembly.head.startswith("none")
    assert [s.name for s in assembly.stops if s.part == "head" and s.canonical] == []
