"""The layout of AndrewAtanov/simclr-pytorch: convnet and projection, at either size."""

import pytest
from torch import nn
from torchvision.models.resnet import BasicBlock, ResNet

from layerscope.models.checkpoint import assemble
from layerscope.models.contents import Contents
from layerscope.models.declared import Declared
from layerscope.testing import FamilyExample, check_family
from tests.models.families.truth import randomised, resnet_features


class EncodeProject(nn.Module):
    def __init__(self, cifar: bool):
        super().__init__()
        self.convnet = ResNet(BasicBlock, [1, 1, 1, 1])
        if cifar:
            self.convnet.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
            self.convnet.maxpool = nn.Identity()
        self.projection = nn.Sequential()
        self.projection.add_module("fc1", nn.Linear(512, 512, bias=False))
        self.projection.add_module("bn1", nn.BatchNorm1d(512))
        self.projection.add_module("relu1", nn.ReLU())
        self.projection.add_module("fc2", nn.Linear(512, 24, bias=False))
        self.projection.add_module("bn2", nn.BatchNorm1d(24))


def example(cifar: bool, wrapper: str = "", bias: bool = True) -> FamilyExample:
    network = randomised(EncodeProject(cifar))
    if not bias:
        nn.init.zeros_(network.projection.bn2.bias)

    def forward(images):
        features = resnet_features(network.convnet, images)
        features["head.1"] = network.projection[:3](features["trunk"])
        return features | {"head.2": network.projection[3:](features["head.1"])}

    state = {wrapper + key: value for key, value in network.state_dict().items()}
    if not bias:
        del state[f"{wrapper}projection.bn2.bias"]
    contents = {"state_dict": state, "hparams": {"data": "cifar" if cifar else "imagenet"}}
    return FamilyExample(contents, forward, side=32 if cifar else 64)


@pytest.mark.parametrize("cifar", [True, False])
@pytest.mark.parametrize("wrapper", ["", "model.module."])
def test_every_cut_equals_a_plain_forward(cifar, wrapper):
    assert check_family("simclr-andrewatanov", example(cifar, wrapper)) == []


def test_the_last_batch_norm_may_have_no_bias():
    assert check_family("simclr-andrewatanov", example(True, bias=False)) == []


@pytest.mark.parametrize(("cifar", "side"), [(True, 32), (False, 224)])
def test_images_are_unnormalised(cifar, side):
    preprocessing = assemble(Contents(example(cifar).contents), Declared()).preprocessing
    assert (preprocessing.crop, preprocessing.std) == (side, (1.0, 1.0, 1.0))


def test_the_classifier_that_nobody_trained_is_ignored():
    assembly = assemble(Contents(example(True).contents), Declared())
    assert "never used" in assembly.ignored["state_dict/convnet.fc.weight"]
