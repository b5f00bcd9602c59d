"""The layout of facebookresearch/FFCV-SSL: ``net``, ``projector``, and what its losses add."""

from itertools import pairwise

import pytest
import torch
from torch import nn

from layerscope.models.assembly import put_together
from layerscope.models.contents import Contents
from layerscope.models.declared import Declared
from layerscope.models.families import families
from layerscope.testing import FamilyExample, check_family
from tests.models.families.truth import randomised, resnet_features, small_resnet, trained


def mlp(widths: list[int], *, proj_relu: bool) -> nn.Sequential:
    blocks = [
        nn.Sequential(nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs), nn.ReLU())
        for inputs, outputs in pairwise(widths[:-1])
    ]
    last = nn.Linear(widths[-2], widths[-1], bias=False)
    return nn.Sequential(*blocks, nn.Sequential(last, nn.ReLU()) if proj_relu else last)


class SSLNetwork(nn.Module):
    def __init__(self, widths: list[int], loss: str, *, fc: bool, proj_relu: bool):
        super().__init__()
        self.net = small_resnet()
        if fc:
            self.net.fc = nn.Linear(256, 20)
        inputs = 20 if fc else 256
        self.projector = mlp([inputs, *widths], proj_relu=proj_relu) if widths else nn.Identity()
        outputs = widths[-1] if widths else inputs
        if loss == "barlow":
            self.bn = nn.BatchNorm1d(outputs, affine=False)
        elif loss == "byol":
            self.predictor = mlp([outputs, *widths], proj_relu=proj_relu)
        elif loss == "supervised":
            self.fc = nn.Linear(outputs, 10)


def example(
    widths: list[int] | None = None,
    loss: str = "simclr",
    *,
    fc: bool = False,
    proj_relu: bool = False,
    bare: bool = False,
    act: str | None = None,
) -> FamilyExample:
    widths = [40, 32, 24] if widths is None else widths
    network = randomised(SSLNetwork(widths, loss, fc=fc, proj_relu=proj_relu))
    state = {f"module.{key}": value for key, value in network.state_dict().items()}
    if act == "gelu":
        for block in network.projector[:-1]:
            block[2] = nn.GELU()

    def forward(images):
        features = resnet_features(network.net, images)
        x = features["trunk"]
        blocks = ([network.net.fc] if fc else []) + list(network.projector if widths else [])
        for number, block in enumerate(blocks, start=1):
            x = features[f"head.{number}"] = block(x)
        if loss == "byol":
            y = x
            for number, block in enumerate(network.predictor, start=1):
                y = features[f"P{number}"] = block(y)
        if loss == "supervised":
            features["Q"] = network.fc(x)
        return features

    probes = {"module.probes.0.weight": torch.zeros(10, 256), "module.probes.0.bias": torch.ones(3)}
    training = {
        "epoch": 5,
        "model": state,
        "optimizer": trained(network),
        "probes": probes,
        "optimizer_probes": {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": []},
    }
    return FamilyExample(state if bare else training, forward, declared=Declared(head_act=act))


@pytest.mark.parametrize("loss", ["simclr", "barlow", "byol", "supervised"])
@pytest.mark.parametrize("bare", [True, False])
def test_every_cut_equals_a_plain_forward(loss, bare):
    assert check_family("ffcv-ssl", example(loss=loss, bare=bare)) == []


@pytest.mark.parametrize("widths", [[32, 24], [24], []])
def test_projectors_of_every_length(widths):
    assert check_family("ffcv-ssl", example(widths)) == []


@pytest.mark.parametrize("loss", ["simclr", "byol"])
def test_a_projector_that_ends_in_a_relu(loss):
    assert check_family("ffcv-ssl", example(loss=loss, proj_relu=True)) == []


def test_a_linear_at_the_end_of_net_is_the_first_layer_of_the_head():
    assert check_family("ffcv-ssl", example(fc=True)) == []


def test_a_declared_activation_comes_before_the_usual_one():
    assert check_family("ffcv-ssl", example(act="gelu")) == []


def test_probes_and_the_barlow_norm_are_ignored_for_a_reason():
    contents = Contents(example(loss="barlow").contents)
    parts = families["ffcv-ssl"].parts(contents, Declared())
    ignored = put_together(parts, contents, Declared()).ignored
    assert "online probes" in ignored["probes/module.probes.0.weight"]
    assert "Barlow" in ignored["model/module.bn.running_mean"]


def test_the_loss_that_params_json_names_is_recorded():
    beside = {"params.json": {"training.loss": "simclr", "model.fc": 0}}
    contents = Contents(example().contents, beside=beside)
    assert families["ffcv-ssl"].parts(contents, Declared()).architecture == {"loss": "simclr"}
