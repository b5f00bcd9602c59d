"""The layout of sthalles/SimCLR: a torchvision ResNet under ``backbone`` with an MLP for its fc."""

import pytest
from torch import nn
from torchvision.models.resnet import BasicBlock, ResNet

from layerscope.errors import CheckpointError
from layerscope.models.checkpoint import assemble
from layerscope.models.contents import Contents
from layerscope.models.declared import Declared
from layerscope.models.recognition import recognise_family
from layerscope.testing import FamilyExample, check_family
from tests.models.families.truth import randomised, resnet_features, trained


class SimCLR(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = ResNet(BasicBlock, [1, 1, 1, 1], num_classes=24)
        self.backbone.fc = nn.Sequential(nn.Linear(512, 512), nn.ReLU(), self.backbone.fc)


def example(wrapper: str = "", act=None) -> FamilyExample:
    network = randomised(SimCLR())

    def forward(images):
        features = resnet_features(network.backbone, images)
        first, _, last = network.backbone.fc
        features["head.1"] = (act or nn.ReLU()).forward(first(features["trunk"]))
        return features | {"head.2": last(features["head.1"])}

    contents = {
        "epoch": 200,
        "arch": "resnet18",
        "state_dict": {wrapper + key: value for key, value in network.state_dict().items()},
        "optimizer": trained(network),
    }
    declared = Declared(head_act="gelu" if act else None)
    return FamilyExample(contents, forward, declared=declared)


@pytest.mark.parametrize("wrapper", ["", "module.", "_orig_mod.module."])
def test_every_cut_equals_a_plain_forward(wrapper):
    assert check_family("simclr-sthalles", example(wrapper)) == []


def test_a_declared_activation_wins():
    assert check_family("simclr-sthalles", example(act=nn.GELU())) == []


def test_images_are_unnormalised_and_of_stl10s_size():
    contents = Contents(example().contents)
    preprocessing = assemble(contents, Declared()).preprocessing
    assert (preprocessing.crop, preprocessing.mean) == (96, (0.0, 0.0, 0.0))
    assert assemble(contents, Declared(image_size=32)).preprocessing.resize == 32


def test_a_head_with_batch_norm_is_another_familys():
    network = SimCLR()
    network.backbone.fc.insert(1, nn.BatchNorm1d(512))
    with pytest.raises(CheckpointError, match="fits no known family"):
        recognise_family(Contents({"state_dict": dict(network.state_dict())}))
