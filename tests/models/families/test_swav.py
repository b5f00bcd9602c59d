"""The layout of facebookresearch/swav: its own wide ResNet with head and prototypes beside it."""

import pytest
from torch import nn
from torch.nn import functional

from layerscope.models.contents import Contents
from layerscope.models.declared import Declared
from layerscope.models.families import families
from layerscope.testing import FamilyExample, check_family
from tests.models.families.truth import randomised, resnet_features, small_resnet, trained


class MultiPrototypes(nn.Module):
    def __init__(self, counts: list[int]):
        super().__init__()
        for number, count in enumerate(counts):
            self.add_module(f"prototypes{number}", nn.Linear(16, count, bias=False))


def swav(width: int, hidden: int, prototypes: int | list[int]) -> nn.Module:
    network = small_resnet(width)
    network.conv1.padding = (2, 2)
    features = 32 * width
    network.projection_head = (
        nn.Sequential(
            nn.Linear(features, hidden),
            nn.BatchNorm1d(hidden),
            nn.ReLU(),
            nn.Linear(hidden, 16),
        )
        if hidden
        else nn.Linear(features, 16)
    )
    if isinstance(prototypes, list):
        network.prototypes = MultiPrototypes(prototypes)
    elif prototypes:
        network.prototypes = nn.Linear(16, prototypes, bias=False)
    return randomised(network)


def example(
    width: int = 8,
    hidden: int = 48,
    prototypes: int | list[int] = 30,
    prefix: str = "module.",
    *,
    bare: bool = True,
) -> FamilyExample:
    network = swav(width, hidden, prototypes)
    state = {f"{prefix}{key}": value for key, value in network.state_dict().items()}

    def forward(images):
        features = resnet_features(network, functional.pad(images, (1, 1, 1, 1)))
        x = features["trunk"]
        if hidden:
            x = features["head.1"] = network.projection_head[:3](x)
            x = features["head.2"] = network.projection_head[3](x)
        else:
            x = features["head.1"] = network.projection_head(x)
        x = features["head.2n" if hidden else "head.1n"] = x / x.norm(dim=1, keepdim=True)
        if isinstance(prototypes, list):
            for number in range(len(prototypes)):
                layer = getattr(network.prototypes, f"prototypes{number}")
                features[f"Q{number + 1}"] = x @ layer.weight.T
        elif prototypes:
            features["Q"] = x @ network.prototypes.weight.T
        return features

    training = {"epoch": 3, "state_dict": state, "optimizer": trained(network)}
    return FamilyExample(state if bare else training, forward)


@pytest.mark.parametrize("width", [8, 16])
@pytest.mark.parametrize("prototypes", [30, [30, 20, 10]])
def test_every_cut_equals_a_plain_forward(width, prototypes):
    assert check_family("swav", example(width, prototypes=prototypes)) == []


@pytest.mark.parametrize("hidden", [48, 0])
@pytest.mark.parametrize("prefix", ["module.", "", "_orig_mod.module."])
def test_training_files_with_and_without_a_hidden_layer(hidden, prefix):
    assert check_family("swav", example(hidden=hidden, prefix=prefix, bare=False)) == []


def test_a_head_without_prototypes():
    assert check_family("swav", example(prototypes=0)) == []


def test_more_than_ten_sets_of_prototypes_keep_their_order():
    assert check_family("swav", example(prototypes=list(range(3, 15)))) == []


def test_its_own_standard_deviation():
    parts = families["swav"].parts(Contents(example().contents), Declared())
    assert parts.preprocessing.std == (0.228, 0.224, 0.225)
    assert (parts.preprocessing.resize, parts.preprocessing.crop) == (256, 224)
