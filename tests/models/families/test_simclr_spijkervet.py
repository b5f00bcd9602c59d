"""The layout of Spijkervet/SimCLR: a bare state dict, an encoder beside a projector."""

import pytest
from torch import nn
from torchvision.models.resnet import BasicBlock, ResNet

from layerscope.errors import CheckpointError
from layerscope.models.checkpoint import assemble
from layerscope.models.contents import Contents
from layerscope.models.declared import Declared
from layerscope.testing import FamilyExample, check_family
from tests.models.families.truth import randomised, resnet_features


class SimCLR(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = ResNet(BasicBlock, [1, 1, 1, 1])
        self.encoder.fc = nn.Identity()
        self.projector = nn.Sequential(
            nn.Linear(512, 512, bias=False), nn.ReLU(), nn.Linear(512, 24, bias=False)
        )


def example(lightning: bool = False, wrapper: str = "") -> FamilyExample:
    network = randomised(SimCLR())

    def forward(images):
        features = resnet_features(network.encoder, images)
        features["head.1"] = network.projector[:2](features["trunk"])
        return features | {"head.2": network.projector[2](features["head.1"])}

    state = {wrapper + key: value for key, value in network.state_dict().items()}
    if not lightning:
        return FamilyExample(state, forward)
    twice = {key: value for key, value in state.items() if key.startswith("encoder.")}
    state = twice | {f"model.{key}": value for key, value in state.items()}
    return FamilyExample({"epoch": 3, "state_dict": state}, forward)


@pytest.mark.parametrize("wrapper", ["", "module."])
def test_every_cut_equals_a_plain_forward(wrapper):
    assert check_family("simclr-spijkervet", example(wrapper=wrapper)) == []


def test_lightnings_second_copy_of_the_encoder_is_ignored():
    assert check_family("simclr-spijkervet", example(lightning=True)) == []


def test_a_projector_with_biases_is_another_familys():
    state = dict(example().contents)
    state["projector.0.bias"] = state["projector.0.weight"][:, 0]
    with pytest.raises(CheckpointError, match="not of the family"):
        assemble(Contents(state), Declared(family="simclr-spijkervet"))


def test_images_are_unnormalised():
    preprocessing = assemble(Contents(example().contents), Declared()).preprocessing
    assert (preprocessing.resize, preprocessing.std) == (224, (1.0, 1.0, 1.0))
