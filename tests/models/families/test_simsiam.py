"""The layout of facebookresearch/simsiam: an encoder with its head in ``fc``, and a predictor."""

import pytest
from torch import nn

from layerscope.models.declared import Declared
from layerscope.testing import FamilyExample, check_family
from tests.models.families.truth import randomised, resnet_features, small_resnet, trained


class SimSiam(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = small_resnet()
        self.encoder.fc = nn.Sequential(
            nn.Linear(256, 256, bias=False),
            nn.BatchNorm1d(256),
            nn.ReLU(),
            nn.Linear(256, 256, bias=False),
            nn.BatchNorm1d(256),
            nn.ReLU(),
            nn.Linear(256, 24),
            nn.BatchNorm1d(24, affine=False),
        )
        self.predictor = nn.Sequential(
            nn.Linear(24, 12, bias=False), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 24)
        )


def example(prefix: str = "module.", act: str | None = None) -> FamilyExample:
    network = randomised(SimSiam())
    state = {f"{prefix}{key}": value for key, value in network.state_dict().items()}
    fc, predictor = network.encoder.fc, network.predictor
    if act == "tanh":
        fc[2] = fc[5] = predictor[2] = nn.Tanh()

    def forward(images):
        features = resnet_features(network.encoder, images)
        features["head.1"] = fc[:3](features["trunk"])
        features["head.2"] = fc[3:6](features["head.1"])
        features["head.3"] = fc[6:](features["head.2"])
        features["P1"] = predictor[:3](features["head.3"])
        features["P2"] = predictor[3](features["P1"])
        return features

    contents = {"epoch": 3, "arch": "resnet50", "state_dict": state, "optimizer": trained(network)}
    return FamilyExample(contents, forward, declared=Declared(head_act=act))


@pytest.mark.parametrize("prefix", ["module.", "", "module._orig_mod."])
def test_every_cut_equals_a_plain_forward(prefix):
    assert check_family("simsiam", example(prefix)) == []


def test_a_declared_activation_comes_before_the_usual_one():
    assert check_family("simsiam", example(act="tanh")) == []
