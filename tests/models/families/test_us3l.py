"""The layout of megvii-research/US3L-CVPR2023: slimmable encoders without statistics."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional
from torchvision.models.resnet import BasicBlock, ResNet

from layerscope.errors import CheckpointError
from layerscope.models.checkpoint import assemble
from layerscope.models.contents import Contents
from layerscope.models.declared import Declared
from layerscope.testing import FamilyExample, check_family
from tests.models.families.truth import randomised

HIDDEN = 48


def divisible(channels: float) -> int:
    return next(
        c
        for c in (int(channels + 4) // 8 * 8, int(channels + 4) // 8 * 8 + 8)
        if c >= 0.9 * channels
    )


class Slim:
    """Runs a network's layers on their leading channels, as the slimmable operations do."""

    def __init__(self, width: float, tracked: bool):
        self.width, self.tracked = width, tracked

    def conv(self, layer, x, whole=False):
        out = divisible(layer.out_channels * self.width)
        weight = layer.weight[:out] if whole else layer.weight[:out, : x.shape[1]]
        return functional.conv2d(x, weight, stride=layer.stride, padding=layer.padding)

    def norm(self, layer, x):
        c = x.shape[1]
        mean = layer.running_mean[:c] if self.tracked else None
        var = layer.running_var[:c] if self.tracked else None
        return functional.batch_norm(
            x, mean, var, layer.weight[:c], layer.bias[:c], training=not self.tracked
        )

    def block(self, block, x):
        out = functional.relu(self.norm(block.bn1, self.conv(block.conv1, x)))
        out = self.norm(block.bn2, self.conv(block.conv2, out))
        if block.downsample is not None:
            x = self.norm(block.downsample[1], self.conv(block.downsample[0], x))
        return functional.relu(out + x)

    def features(self, network, images):
        x = self.conv(network.conv1, images, whole=True)
        x = functional.relu(self.norm(network.bn1, x))
        features = {"stem": x.mean((2, 3))}
        for stage in range(1, 5):
            for number, block in enumerate(getattr(network, f"layer{stage}")):
                x = self.block(block, x)
                features[f"layer{stage}.{number}"] = x.mean((2, 3))
        x = features["trunk"] = x.mean((2, 3))
        fc = network.fc
        x = functional.linear(x, fc[0].weight[:, : x.shape[1]], fc[0].bias)
        x = features["head.1"] = functional.relu(self.norm(fc[1], x))
        x = features["head.2"] = functional.relu(self.norm(fc[4], fc[3](x)))
        features["head.3"] = fc[6](x)
        return features


def encoder() -> nn.Module:
    network = ResNet(BasicBlock, [1, 1, 1, 1], num_classes=HIDDEN)
    network.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    network.maxpool = nn.Identity()
    network.fc = nn.Sequential(
        network.fc,
        nn.BatchNorm1d(HIDDEN),
        nn.ReLU(inplace=True),
        nn.Linear(HIDDEN, HIDDEN, bias=False),
        nn.BatchNorm1d(HIDDEN),
        nn.ReLU(inplace=True),
        nn.Linear(HIDDEN, 16),
    )
    return network


def method() -> nn.Module:
    both = nn.Module()
    both.encoder_q, both.encoder_k = encoder(), encoder()
    for name in ("predictor", "predictor_new"):
        layers = (
            nn.Linear(16, HIDDEN, bias=False),
            nn.BatchNorm1d(HIDDEN),
            nn.ReLU(),
            nn.Linear(HIDDEN, 16),
        )
        setattr(both, name, nn.Sequential(*layers))
    return randomised(both)


def only_trained_at(width: float, network: nn.Module) -> None:
    """Undo what training did to the channels that a network of this width does not run."""
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            ran = divisible(layer.num_features * width)
            for tensor in (layer.bias.data, layer.running_mean):
                tensor[ran:] = 0
            layer.running_var[ran:] = 1


def example(
    tracked: bool, width: float = 1.0, branch: str | None = None, trained: float = 1.0
) -> FamilyExample:
    network = method()
    only_trained_at(trained, network.encoder_q)
    state = {
        f"module.{key}": value
        for key, value in network.state_dict().items()
        if tracked
        or not ("running" in key or "num_batches" in key)
        or ".fc." in key
        or "pred" in key
    }
    chosen = network.encoder_k if branch == "momentum" else network.encoder_q
    slim = Slim(width, tracked)

    def forward(images):
        features = slim.features(chosen, images)
        if branch != "momentum":
            p = network.predictor
            x = features["P1"] = functional.relu(slim.norm(p[1], p[0](features["head.3"])))
            features["P2"] = p[3](x)
        return features

    declared = Declared(branch=branch, width=None if width == 1 else width)
    contents = {"epoch": 3, "arch": "us_cifar_resnet18", "state_dict": state}
    return FamilyExample(contents, forward, side=32, declared=declared)


@pytest.mark.parametrize("branch", [None, "momentum"])
def test_with_statistics_every_cut_equals_a_plain_forward(branch):
    assert check_family("us3l", example(tracked=True, branch=branch)) == []


@pytest.mark.parametrize("width", [0.5, 0.3])
def test_trained_at_one_width_below_the_full_one_it_loads_at_that_width(width):
    assert check_family("us3l", example(tracked=True, width=width, trained=width)) == []


@pytest.mark.parametrize("tracked", [True, False])
def test_channels_that_were_never_trained_are_refused(tracked):
    contents = Contents(example(tracked, trained=0.5).contents)
    with pytest.raises(CheckpointError, match="never trained: only the first 256 of 512"):
        assemble(contents, Declared())
    with pytest.raises(CheckpointError, match="never trained"):
        assemble(contents, Declared(width=0.75))


def test_statistics_of_one_width_serve_no_smaller_one():
    contents = Contents(example(tracked=True, trained=0.5).contents)
    with pytest.raises(CheckpointError, match="trained at one width only"):
        assemble(contents, Declared(width=0.25))


@pytest.mark.parametrize("width", [1.0, 0.7, 0.25])
def test_without_statistics_only_the_dependence_on_the_batch_is_found(width):
    findings = check_family("us3l", example(tracked=False, width=width))
    assert findings
    assert all("depend on the other images" in finding for finding in findings)


def test_a_width_has_the_leading_channels_rounded_to_eights():
    contents = Contents(example(tracked=False).contents)
    assembly = assemble(contents, Declared(width=0.3))
    assert assembly.module.trunk.conv1.weight.shape == (24, 3, 3, 3)
    assert assembly.module.trunk.layer4[0].conv1.weight.shape == (152, 80, 3, 3)
    assert assembly.architecture["width_multiplier"] == 0.3
    assert len(assembly.uncalibrated) == len(
        [m for m in assembly.module.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    )


@pytest.mark.parametrize(
    ("tracked", "declared", "match"),
    [
        (False, Declared(width=1.5), "1.5 is not a share"),
        (True, Declared(width=0.5), "trained at one width only"),
        (False, Declared(width=0.5, branch="momentum"), "used at full width only"),
    ],
)
def test_a_width_that_was_never_trained_is_refused(tracked, declared, match):
    with pytest.raises(CheckpointError, match=match):
        assemble(Contents(copy.copy(example(tracked).contents)), declared)


def test_statistics_that_may_mix_several_widths_are_noted():
    state = example(tracked=True).contents["state_dict"]
    counts = {key: tensor.new_tensor(0) for key, tensor in state.items() if "num_batches" in key}
    last = {"module.encoder_q.fc.7.running_mean": torch.zeros(16)}
    last["module.encoder_q.fc.7.running_var"] = torch.ones(16)
    plain = {key: count + 5 for key, count in counts.items()}
    for changes, noted in ((counts | last, True), (plain | last, False), (counts, False)):
        notes = assemble(Contents({"state_dict": {**state, **changes}}), Declared()).notes
        assert any("several widths" in note for note in notes) == noted
