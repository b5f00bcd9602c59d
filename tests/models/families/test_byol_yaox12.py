"""The layouts of yaox12/BYOL-PyTorch: the code's own, and that of the release."""

import pytest
import torch
from torch import nn
from torchvision.models import resnet18

from layerscope.errors import CheckpointError
from layerscope.models.checkpoint import assemble
from layerscope.models.contents import Contents
from layerscope.models.declared import Declared
from layerscope.testing import FamilyExample, check_family
from tests.models.families.truth import randomised, resnet_features, tiny_resnet, trained


class MLP(nn.Module):
    def __init__(self, inputs: int):
        super().__init__()
        self.l1 = nn.Linear(inputs, 24)
        self.bn1 = nn.BatchNorm1d(24)
        self.relu1 = nn.ReLU()
        self.l2 = nn.Linear(24, 12)

    def layers(self, x):
        hidden = self.relu1(self.bn1(self.l1(x)))
        return [hidden, self.l2(hidden)]


def network(body=tiny_resnet, width: int = 64) -> nn.Module:
    both = nn.Module()
    for name in ("online_network", "target_network"):
        part = nn.Module()
        part.encoder = nn.Sequential(*list(body().children())[:-1])
        part.projetion = MLP(width)
        setattr(both, name, part)
    both.predictor = nn.Module()
    both.predictor.predictor = MLP(12)
    return randomised(both)


def named(encoder: nn.Sequential) -> nn.Module:
    """A view of the children under torchvision's names, for the plain forward."""
    body = nn.Module()
    names = ["conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4"]
    for name, child in zip(names, encoder, strict=False):
        setattr(body, name, child)
    return body


def truth(both: nn.Module, branch: str | None):
    part = both.target_network if branch == "momentum" else both.online_network

    def forward(images):
        features = resnet_features(named(part.encoder), images)
        outputs = part.projetion.layers(features["trunk"])
        features |= {f"head.{n}": x for n, x in enumerate(outputs, start=1)}
        if branch is None:
            predictions = both.predictor.predictor.layers(outputs[-1])
            features |= {f"P{n}": x for n, x in enumerate(predictions, start=1)}
        return features

    return forward


@pytest.mark.parametrize("branch", [None, "momentum"])
@pytest.mark.parametrize("wrapper", ["", "module."])
def test_what_the_code_saves(branch, wrapper):
    both = network()
    contents = {
        "config": {"model": {"backbone": {"type": "resnet18"}}},
        "epoch": 3,
        "steps": 100,
        "model": {f"{wrapper}{k}": v for k, v in both.state_dict().items()},
        "optimizer": trained(both),
        "amp": {"loss_scaler0": {"loss_scale": 65536.0}},
    }
    file = FamilyExample(contents, truth(both, branch), declared=Declared(branch=branch))
    assert check_family("byol-yaox12", file) == []


def older_names(module: nn.Module) -> dict:
    """The same tensors in the same order, their modules called something else."""
    modules: dict[str, str] = {}
    tensors = {}
    for key, value in module.state_dict().items():
        owner, _, kind = key.rpartition(".")
        name = modules.setdefault(owner, f"stage.unit{len(modules)}")
        tensors[f"module.{name}.{kind}"] = value
    return tensors


def released(both: nn.Module) -> dict:
    return {
        "epoch": 300,
        "online_backbone": older_names(both.online_network.encoder),
        "online_projection": older_names(both.online_network.projetion),
        "predictor": older_names(both.predictor.predictor),
        "target_backbone": older_names(both.target_network.encoder),
        "target_projection": older_names(both.target_network.projetion),
        "optimizer": trained(both),
    }


@pytest.mark.parametrize("branch", [None, "momentum"])
def test_the_release_has_other_names_in_the_same_order(branch):
    both = network(resnet18, 512)
    declared = Declared(branch=branch)
    file = FamilyExample(released(both), truth(both, branch), 32, declared)
    assert check_family("byol-yaox12", file) == []


@pytest.mark.parametrize("table", ["online_backbone", "online_projection", "predictor"])
def test_a_release_in_another_order_is_refused(table):
    contents = released(network(resnet18, 512))
    items = list(contents[table].items())
    items[2], items[3] = items[3], items[2]  # two vectors of one width: their shapes do not tell
    contents[table] = dict(items)
    with pytest.raises(CheckpointError, match="in their order"):
        assemble(Contents(contents), Declared())


def test_a_release_without_target_networks_has_one_branch():
    contents = released(network(resnet18, 512))
    del contents["target_backbone"], contents["target_projection"]
    with pytest.raises(CheckpointError, match="no momentum weights"):
        assemble(Contents(contents), Declared(branch="momentum"))
    assert torch.equal(
        assemble(Contents(contents), Declared()).module.trunk.conv1.weight,
        contents["online_backbone"]["module.stage.unit0.weight"],
    )
