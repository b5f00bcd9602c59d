"""The layout of sthalles/PyTorch-BYOL: two tables of networks, and no predictor."""

import pytest
from torch import nn

from layerscope.models.checkpoint import assemble
from layerscope.models.contents import Contents
from layerscope.models.declared import Declared
from layerscope.testing import FamilyExample, check_family
from tests.models.families.truth import randomised, resnet_features, tiny_resnet, trained


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(*list(tiny_resnet().children())[:-1])
        self.projetion = nn.Module()
        self.projetion.net = nn.Sequential(
            nn.Linear(64, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Linear(24, 12)
        )


def example(branch: str | None = None, wrapper: str = "") -> FamilyExample:
    online, target = randomised(Network()), randomised(Network(), seed=1)
    network = target if branch == "momentum" else online
    body = nn.Module()
    names = ["conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4"]
    for name, child in zip(names, network.encoder, strict=False):
        setattr(body, name, child)

    def forward(images):
        features = resnet_features(body, images)
        x = features["head.1"] = network.projetion.net[:3](features["trunk"])
        features["head.2"] = network.projetion.net[3](x)
        return features

    def table(module):
        return {f"{wrapper}{key}": value for key, value in module.state_dict().items()}

    contents = {
        "online_network_state_dict": table(online),
        "target_network_state_dict": table(target),
        "optimizer_state_dict": trained(online),
    }
    return FamilyExample(contents, forward, declared=Declared(branch=branch))


@pytest.mark.parametrize("branch", [None, "momentum"])
@pytest.mark.parametrize("wrapper", ["", "module."])
def test_every_cut_equals_a_plain_forward(branch, wrapper):
    assert check_family("byol-sthalles", example(branch, wrapper)) == []


def test_images_are_not_normalised():
    found = assemble(Contents(example().contents), Declared()).preprocessing
    assert (found.mean, found.std, found.crop) == ((0.0,) * 3, (1.0,) * 3, 96)
