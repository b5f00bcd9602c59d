"""The layout of lucidrains/byol-pytorch: a wrapped network, online, target, and by itself."""

import copy
from itertools import pairwise

import pytest
import torch
from torch import nn

from layerscope.errors import CheckpointError
from layerscope.models.checkpoint import assemble
from layerscope.models.contents import Contents
from layerscope.models.declared import Declared
from layerscope.testing import FamilyExample, check_family
from tests.models.families.truth import randomised, resnet_features, tiny_resnet


def mlp(inputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Linear(24, 12))


def simsiam(inputs: int) -> nn.Sequential:
    return nn.Sequential(
        *(nn.Linear(inputs, 24, bias=False), nn.BatchNorm1d(24), nn.ReLU()),
        *(nn.Linear(24, 24, bias=False), nn.BatchNorm1d(24), nn.ReLU()),
        *(nn.Linear(24, 12, bias=False), nn.BatchNorm1d(12, affine=False)),
    )


def resnet(classes: int = 10) -> nn.Module:
    network = tiny_resnet()
    network.fc = nn.Linear(64, classes)
    return network


def byol(projector, net: nn.Module, momentum: bool = True) -> nn.Module:
    whole = nn.Module()
    whole.net = net
    whole.online_encoder = nn.Module()
    whole.online_encoder.net, whole.online_encoder.projector = whole.net, projector
    whole.online_predictor = mlp(12)
    if momentum:
        whole.target_encoder = copy.deepcopy(whole.online_encoder)
    return randomised(whole)


def split(head: nn.Sequential) -> list[nn.Sequential]:
    starts = [i for i, step in enumerate(head) if isinstance(step, nn.Linear)] + [len(head)]
    return [head[a:b] for a, b in pairwise(starts)]


def example(whole, branch=None, *, behind_fc=False, wrapper="", lightning=False, inner=False):
    encoder = whole.target_encoder if branch == "momentum" else whole.online_encoder

    def forward(images):
        features = resnet_features(encoder.net, images)
        x = features["trunk"]
        layers = [*([encoder.net.fc] if behind_fc else []), *split(encoder.projector)]
        for number, layer in enumerate(layers, start=1):
            x = features[f"head.{number}"] = layer(x)
        if branch is None:
            for number, layer in enumerate(split(whole.online_predictor), start=1):
                x = features[f"P{number}"] = layer(x)
        return features

    state = {f"{wrapper}{key}": value for key, value in whole.state_dict().items()}
    if inner:
        for old in ("online_encoder.projector.", "target_encoder.projector.", "online_predictor."):
            state = {key.replace(old, f"{old}net."): value for key, value in state.items()}
    contents = {"epoch": 3, "state_dict": state, "loops": {}} if lightning else state
    held = ("online", "momentum") if hasattr(whole, "target_encoder") else ("online",)
    return FamilyExample(contents, forward, 64, Declared(branch=branch), held)


def check(*args, **kwargs):
    assert check_family("byol-lucidrains", example(*args, **kwargs)) == []


@pytest.mark.parametrize("branch", [None, "momentum"])
def test_byol(branch):
    check(byol(mlp(64), resnet()), branch)


@pytest.mark.parametrize("branch", [None, "momentum"])
def test_older_heads_are_modules_around_a_sequential(branch):
    check(byol(mlp(64), resnet()), branch, inner=True)


def test_the_lightning_example():
    check(byol(mlp(64), resnet()), wrapper="learner.", lightning=True)


def test_without_momentum_the_projector_is_simsiams():
    check(byol(simsiam(64), resnet(), momentum=False))


@pytest.mark.parametrize("branch", [None, "momentum"])
def test_a_projector_behind_the_last_layer(branch):
    check(byol(mlp(20), resnet(20)), branch, behind_fc=True)


def test_a_square_last_layer_is_refused():
    with pytest.raises(CheckpointError, match="before or behind"):
        assemble(Contents(byol(mlp(64), resnet(64)).state_dict()), Declared())


def simplicial() -> nn.Sequential:
    embedder = nn.Sequential(nn.Linear(64, 16), nn.BatchNorm1d(16))
    return nn.Sequential(embedder, nn.Identity(), mlp(16))


@pytest.mark.parametrize("branch", [None, "momentum"])
def test_the_head_ends_before_simplices_of_unknown_temperature(branch):
    whole = byol(simplicial(), resnet())
    encoder = whole.target_encoder if branch else whole.online_encoder

    def forward(images):
        features = resnet_features(encoder.net, images)
        return features | {"head.1": encoder.projector[0](features["trunk"])}

    file = FamilyExample(whole.state_dict(), forward, declared=Declared(branch=branch))
    assert check_family("byol-lucidrains", file) == []
    notes = assemble(Contents(file.contents), Declared()).notes
    assert any("temperature" in note for note in notes)


def test_networks_whose_hidden_layer_is_unknown_are_refused():
    whole = byol(mlp(8), nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8, 8)))
    with pytest.raises(CheckpointError, match="no ResNet"):
        assemble(Contents(whole.state_dict()), Declared())
    assert torch.equal(whole.net[0].weight, whole.online_encoder.net[0].weight)
