"""The layouts of lightning-bolts: SimCLR, and the two arms of BYOL and SimSiam."""

import copy

import pytest
from torch import nn

from layerscope.errors import CheckpointError
from layerscope.models.checkpoint import assemble
from layerscope.models.contents import Contents
from layerscope.models.declared import Declared
from layerscope.testing import FamilyExample, check_family
from tests.models.families.truth import randomised, resnet_features, tiny_resnet, trained


class MLP(nn.Module):
    def __init__(self, inputs: int, hidden: int, outputs: int, biases: tuple[bool, bool]):
        super().__init__()
        self.model = nn.Sequential(
            nn.Linear(inputs, hidden, bias=biases[0]),
            nn.BatchNorm1d(hidden),
            nn.ReLU(),
            nn.Linear(hidden, outputs, bias=biases[1]),
        )


def encoder(first_conv: bool = True, maxpool1: bool = True) -> nn.Module:
    network = tiny_resnet()
    if not first_conv:
        network.conv1 = nn.Conv2d(3, 8, 3, stride=1, padding=1, bias=False)
    if not maxpool1:
        network.maxpool = nn.MaxPool2d(kernel_size=1, stride=1)
    return network


def saved(network: nn.Module, settings: dict | None = None) -> dict:
    return {
        "epoch": 3,
        "state_dict": network.state_dict(),
        "optimizer_states": [dict(trained(network))],
        "hyper_parameters": settings or {},
    }


def simclr(first_conv: bool = True, maxpool1: bool = True) -> nn.Module:
    network = nn.Module()
    network.encoder = encoder(first_conv, maxpool1)
    network.encoder.fc = nn.Linear(64, 10)
    network.projection = MLP(64, 24, 12, (True, False))
    return randomised(network)


def simclr_example(network: nn.Module, settings: dict, **declared) -> FamilyExample:
    def forward(images):
        features = resnet_features(network.encoder, images)
        mlp = network.projection.model
        x = features["head.1"] = mlp[:3](features["trunk"])
        x = features["head.2"] = mlp[3](x)
        features["head.2n"] = x / x.norm(dim=1, keepdim=True)
        return features

    contents = saved(network, settings)
    return FamilyExample(contents, forward, 32, Declared(**declared), branches=("online",))


@pytest.mark.parametrize("first_conv", [True, False])
@pytest.mark.parametrize("maxpool1", [True, False])
def test_simclr_with_every_stem(first_conv, maxpool1):
    network = simclr(first_conv, maxpool1)
    settings = {"first_conv": first_conv, "maxpool1": maxpool1, "dataset": "imagenet2012"}
    assert check_family("lightning-bolts", simclr_example(network, settings)) == []


@pytest.mark.parametrize(("stem", "pooled"), [("imagenet", True), ("cifar", False)])
@pytest.mark.parametrize("first_conv", [True, False])
def test_the_max_pooling_has_to_be_declared_where_no_settings_tell(stem, pooled, first_conv):
    network = simclr(first_conv, maxpool1=pooled)
    with pytest.raises(CheckpointError, match="max pooling"):
        assemble(Contents(saved(network)), Declared())
    assert check_family("lightning-bolts", simclr_example(network, {}, stem=stem)) == []


@pytest.mark.parametrize(
    ("dataset", "mean", "crop"),
    [("cifar10", 125.3 / 255, 32), ("stl10", 0.43, 96), ("imagenet2012", 0.485, 224)],
)
def test_preprocessing_of_the_data_that_it_was_trained_on(dataset, mean, crop):
    contents = Contents(saved(simclr(), {"maxpool1": True, "dataset": dataset}))
    found = assemble(contents, Declared()).preprocessing
    assert (found.mean[0], found.crop) == (mean, crop)


def siamese() -> nn.Module:
    network = nn.Module()
    network.online_network = nn.Module()
    network.online_network.encoder = encoder()
    network.online_network.projector = MLP(64, 24, 12, (False, True))
    network.target_network = copy.deepcopy(network.online_network)
    network.predictor = MLP(12, 24, 12, (False, True))
    return randomised(network)


@pytest.mark.parametrize("branch", [None, "momentum"])
def test_byol_and_simsiam(branch):
    network = siamese()
    arm = network.target_network if branch == "momentum" else network.online_network

    def forward(images):
        features = resnet_features(arm.encoder, images)
        x = features["head.1"] = arm.projector.model[:3](features["trunk"])
        x = features["head.2"] = arm.projector.model[3](x)
        if branch is None:
            x = features["P1"] = network.predictor.model[:3](x)
            features["P2"] = network.predictor.model[3](x)
        return features

    file = FamilyExample(saved(network), forward, declared=Declared(branch=branch))
    assert check_family("lightning-bolts", file) == []
