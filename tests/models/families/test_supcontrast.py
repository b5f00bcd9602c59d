"""The layout of HobbitLong/SupContrast: CIFAR ResNets with ``shortcut``, three kinds of heads."""

import pytest
import torch
from torch import nn
from torch.nn import functional
from torchvision.models.resnet import Bottleneck, ResNet

from layerscope.models.checkpoint import assemble
from layerscope.models.contents import Contents
from layerscope.models.declared import Declared
from layerscope.testing import FamilyExample, check_family
from tests.models.families.truth import randomised, resnet_features, stage_features, trained


class Block(nn.Module):
    def __init__(self, inputs: int, width: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != width:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, width, 1, stride, bias=False), nn.BatchNorm2d(width)
            )

    def forward(self, x):
        y = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        return functional.relu(y + self.shortcut(x))


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(Block(16, 16, 1), Block(16, 16, 1))
        self.layer2 = nn.Sequential(Block(16, 32, 2))
        self.layer3 = nn.Sequential(Block(32, 64, 2))
        self.layer4 = nn.Sequential(Block(64, 128, 2))

    def features(self, images):
        x = functional.relu(self.bn1(self.conv1(images)))
        return stage_features(self, x)


def example(head: str = "mlp", inner: str = "", outer: str = "") -> FamilyExample:
    network = nn.Module()
    network.encoder = Encoder()
    if head == "mlp":
        network.head = nn.Sequential(nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 24))
    elif head == "linear":
        network.head = nn.Linear(128, 24)
    else:
        network.fc = nn.Linear(128, 10)
    randomised(network)

    def forward(images):
        features = network.encoder.features(images)
        if head == "classifier":
            return features | {"head.1": network.fc(features["trunk"])}
        if head == "linear":
            last = features["head.1"] = network.head(features["trunk"])
            return features | {"head.1n": last / last.norm(dim=1, keepdim=True)}
        features["head.1"] = network.head[:2](features["trunk"])
        last = features["head.2"] = network.head[2](features["head.1"])
        return features | {"head.2n": last / last.norm(dim=1, keepdim=True)}

    state = {
        outer + key.replace("encoder.", f"encoder.{inner}"): value
        for key, value in network.state_dict().items()
    }
    contents = {
        "opt": {"model": "resnet18", "dataset": "cifar10"},
        "model": state,
        "optimizer": trained(network),
        "epoch": 1000,
    }
    return FamilyExample(contents, forward, side=32)


@pytest.mark.parametrize("head", ["mlp", "linear", "classifier"])
def test_every_cut_equals_a_plain_forward(head):
    assert check_family("supcontrast", example(head)) == []


@pytest.mark.parametrize(("inner", "outer"), [("module.", ""), ("", "module.")])
def test_parallel_encoders_are_unwrapped(inner, outer):
    assert check_family("supcontrast", example(inner=inner, outer=outer)) == []


def test_an_imagenet_encoder_has_torchvisions_stem():
    network = nn.Module()
    network.encoder = ResNet(Bottleneck, [1, 1, 1, 1])
    network.encoder.fc = nn.Identity()
    network.head = nn.Sequential(nn.Linear(2048, 64), nn.ReLU(), nn.Linear(64, 24))
    randomised(network)

    def forward(images):
        features = resnet_features(network.encoder, images)
        features["head.1"] = network.head[:2](features["trunk"])
        last = features["head.2"] = network.head[2](features["head.1"])
        return features | {"head.2n": functional.normalize(last)}

    contents = {
        "model": {f"module.{key}": value for key, value in network.state_dict().items()},
        "model_ema": {"module.encoder.conv1.weight": torch.zeros(64, 3, 7, 7)},
    }
    assert check_family("supcontrast", FamilyExample(contents, forward)) == []
    assembly = assemble(Contents(contents), Declared())
    assert assembly.preprocessing.crop == 224
    assert assembly.ignored["model_ema/module.encoder.conv1.weight"] == "the momentum copy"


def test_the_channel_statistics_are_the_repositorys():
    assembly = assemble(Contents(example().contents), Declared())
    assert assembly.preprocessing.std == (0.2023, 0.1994, 0.2010)
    assert assembly.preprocessing.crop == 32
