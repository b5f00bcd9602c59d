"""The layout of Separius/SimCLRv2-Pytorch: tables ``resnet`` and ``head``, blocks in ``net``."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from layerscope.errors import CheckpointError
from layerscope.models.checkpoint import assemble
from layerscope.models.contents import Contents
from layerscope.models.declared import Declared
from layerscope.testing import FamilyExample, check_family
from tests.models.families.truth import randomised

WIDTH = 8


def conv(inputs, outputs, kernel=3, stride=1):
    return nn.Conv2d(inputs, outputs, kernel, stride, (kernel - 1) // 2, bias=False)


def normed(width, relu=True):
    return nn.Sequential(nn.BatchNorm2d(width), nn.ReLU() if relu else nn.Identity())


class Selective(nn.Module):
    """Two paths in one convolution; a softmax over the paths says how much of each."""

    def __init__(self, inputs, width, stride):
        super().__init__()
        self.main_conv = nn.Sequential(conv(inputs, 2 * width, 3, stride), normed(2 * width))
        self.mixing_conv = nn.Sequential(conv(width, 4, 1), normed(4), conv(4, 2 * width, 1))

    def forward(self, x):
        both = self.main_conv(x)
        one, two = both[:, : both.shape[1] // 2], both[:, both.shape[1] // 2 :]
        scores = self.mixing_conv((one + two).mean((2, 3), keepdim=True))
        width = one.shape[1]
        share = torch.sigmoid(scores[:, :width] - scores[:, width:])  # the softmax of two
        return share * one + (1 - share) * two


class Shortcut(nn.Module):
    def __init__(self, inputs, outputs, stride, selective):
        super().__init__()
        self.shortcut = conv(inputs, outputs, 1, stride)
        if selective:
            average = nn.AvgPool2d(2, stride)
            self.shortcut = nn.Sequential(
                nn.ZeroPad2d((0, 1, 0, 1)), average, conv(inputs, outputs, 1)
            )
        self.bn = normed(outputs, relu=False)

    def forward(self, x):
        return self.bn(self.shortcut(x))


class Block(nn.Module):
    def __init__(self, inputs, width, stride, selective, projects):
        super().__init__()
        self.projection = Shortcut(inputs, 4 * width, stride, selective) if projects else None
        middle = (
            [Selective(width, width, stride)]
            if selective
            else [conv(width, width, 3, stride), normed(width)]
        )
        self.net = nn.Sequential(
            conv(inputs, width, 1),
            normed(width),
            *middle,
            conv(width, 4 * width, 1),
            normed(4 * width, relu=False),
        )

    def forward(self, x):
        return functional.relu((self.projection(x) if self.projection else x) + self.net(x))


class Stage(nn.Module):
    def __init__(self, count, inputs, width, stride, selective):
        super().__init__()
        self.blocks = nn.ModuleList([Block(inputs, width, stride, selective, True)])
        self.blocks.extend(Block(4 * width, width, 1, selective, False) for _ in range(count - 1))


class Network(nn.Module):
    def __init__(self, selective):
        super().__init__()
        stem = (
            [
                *(conv(3, WIDTH // 2, 3, 2), normed(WIDTH // 2)),
                *(conv(WIDTH // 2, WIDTH // 2), normed(WIDTH // 2)),
                conv(WIDTH // 2, WIDTH),
            ]
            if selective
            else [conv(3, WIDTH, 7, 2)]
        )
        self.net = nn.Sequential(
            nn.Sequential(*stem, normed(WIDTH), nn.MaxPool2d(3, 2, 1)),
            Stage(2, WIDTH, WIDTH, 1, selective),
            *(Stage(1, 4 * WIDTH * 2**n, WIDTH * 2 ** (n + 1), 2, selective) for n in range(3)),
        )
        self.fc = nn.Linear(32 * WIDTH, 10)

    def features(self, images):
        x = self.net[0](images)
        found = {"stem": x.mean((2, 3))}
        for stage in range(1, 5):
            for number, block in enumerate(self.net[stage].blocks):
                x = block(x)
                found[f"layer{stage}.{number}"] = x.mean((2, 3))
        return found | {"trunk": x.mean((2, 3))}


class Head(nn.Module):
    def __init__(self, width=32 * WIDTH):
        super().__init__()
        self.layers = nn.ModuleList()
        for outputs in (width, width, 24):
            self.layers += [nn.Linear(width, outputs, bias=False), nn.BatchNorm1d(outputs)]
            if outputs == width:
                self.layers.append(nn.ReLU())


def example(selective: bool, side: int = 64, tuned: bool = False, wrapper: str = ""):
    network, head = randomised(Network(selective)), Head().eval()
    if not tuned:
        randomised(head, 1)

    def forward(images):
        features = network.features(images)
        if tuned:
            return features
        x = features["trunk"]
        for number, (start, stop) in enumerate(((0, 3), (3, 6), (6, 8)), start=1):
            for layer in head.layers[start:stop]:
                x = layer(x)
            features[f"head.{number}"] = x
        return features

    contents = {
        "resnet": {wrapper + key: value for key, value in network.state_dict().items()},
        "head": {wrapper + key: value for key, value in head.state_dict().items()},
    }
    return FamilyExample(contents, forward, side=side)


@pytest.mark.parametrize("selective", [True, False])
@pytest.mark.parametrize("side", [64, 50])
def test_every_cut_equals_a_plain_forward(selective, side):
    assert check_family("simclr-v2", example(selective, side)) == []


def test_wrappers_are_taken_off():
    assert check_family("simclr-v2", example(True, wrapper="module.")) == []


def test_a_head_that_was_never_filled_is_left_out():
    assert check_family("simclr-v2", example(False, tuned=True)) == []
    assembly = assemble(Contents(example(False, tuned=True).contents), Declared())
    assert any("never filled" in note for note in assembly.notes)
    assert assembly.ignored["head/layers.0.weight"].startswith("random")


def test_images_are_unnormalised_and_the_classifier_is_ignored():
    assembly = assemble(Contents(example(True).contents), Declared())
    assert assembly.preprocessing.std == (1.0, 1.0, 1.0)
    assert assembly.architecture["selective_kernels"] is True
    assert "classifier" in assembly.ignored["resnet/fc.weight"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("net.1.blocks.0.net.2.main_conv.0.weight", torch.zeros(7, 8, 3, 3)),
        ("net.1.blocks.0.net.2.mixing_conv.0.weight", None),
        ("net.0.2.weight", torch.zeros(4)),
        ("net.2.blocks.0.projection.shortcut.2.weight", None),
    ],
)
def test_a_damaged_selective_trunk_is_refused(key, value):
    contents = dict(example(True).contents)
    resnet = dict(contents["resnet"])
    resnet.pop(key)
    if value is not None:
        resnet[key] = value
    with pytest.raises(CheckpointError):
        assemble(Contents(contents | {"resnet": resnet}), Declared())
