"""The layout of ZeenSong/UMM: bare state dicts of several methods around ``back_bone``."""

import pytest
import torch
from torch import nn
from torchvision.models.resnet import BasicBlock, ResNet

from layerscope.errors import CheckpointError
from layerscope.models.checkpoint import assemble
from layerscope.models.contents import Contents
from layerscope.models.declared import Declared
from layerscope.testing import FamilyExample, check_family
from tests.models.families.truth import randomised, resnet_features

REPRESENTATION, HIDDEN, OUT = 512, 40, 24


def backbone(stem: str) -> ResNet:
    network = ResNet(BasicBlock, [1, 1, 1, 1])
    network.fc = nn.Identity()
    if stem != "imagenet":
        network.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
    if stem == "cifar":
        network.maxpool = nn.Identity()
    return network


def mlp(inputs: int, linear: bool = False) -> nn.Module:
    if linear:
        return nn.Linear(inputs, OUT, bias=False)
    return nn.Sequential(
        nn.Linear(inputs, HIDDEN),
        nn.BatchNorm1d(HIDDEN),
        nn.ReLU(),
        nn.Linear(HIDDEN, OUT, bias=False),
    )


def simsiam_head() -> nn.Module:
    layers = []
    for _ in range(2):
        layers += [nn.Linear(REPRESENTATION, REPRESENTATION, bias=False)]
        layers += [nn.BatchNorm1d(REPRESENTATION), nn.ReLU()]
    return nn.Sequential(
        *layers,
        nn.Linear(REPRESENTATION, OUT, bias=False),
        nn.BatchNorm1d(OUT, affine=False),
    )


def method(name: str, stem: str, linear: bool) -> nn.Module:
    made = nn.Module()
    made.back_bone = backbone(stem)
    if name in ("byol", "moco"):
        made.target = backbone(stem)
    if name == "simsiam":
        made.head, made.predictor = simsiam_head(), mlp(OUT)
        return randomised(made)
    if name != "headless":
        made.head = mlp(REPRESENTATION, linear)
    if name in ("byol", "moco"):
        made.head_target = mlp(REPRESENTATION, linear)
    if name == "byol":
        made.predictor = mlp(OUT, linear)
    if name == "swav":
        made.prototypes = nn.Linear(OUT, 30, bias=False)
    return randomised(made)


def layers(module: nn.Module, prefix: str, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """Outputs just before each Linear but the first, and at the end."""
    steps = [module] if isinstance(module, nn.Linear) else list(module)
    found: list[torch.Tensor] = []
    for step in steps:
        if isinstance(step, nn.Linear):
            found.append(x)
        x = step(x)
    return {f"{prefix}{n}": y for n, y in enumerate([*found[1:], x], start=1)}


def example(
    name: str, stem: str = "cifar", linear: bool = False, branch=None, side: int = 32
) -> FamilyExample:
    network = method(name, stem, linear)
    momentum = branch == "momentum"

    def forward(images):
        features = resnet_features(network.target if momentum else network.back_bone, images)
        if name == "headless":
            return features
        head = network.head_target if momentum else network.head
        features |= layers(head, "head.", features["trunk"])
        key, last = list(features.items())[-1]
        if name in ("moco", "swav"):
            last = features[f"{key}n"] = last / last.norm(dim=1, keepdim=True)
        if hasattr(network, "predictor") and not momentum:
            features |= layers(network.predictor, "P", last)
        if name == "swav":
            features["Q"] = network.prototypes(last)
        return features

    return FamilyExample(
        dict(network.state_dict()),
        forward,
        side=side,
        declared=Declared(branch=branch, stem=None if stem == "imagenet" else stem),
        branches=("online", "momentum") if name in ("byol", "moco") else ("online",),
    )


@pytest.mark.parametrize("name", ["simclr", "byol", "moco", "simsiam", "swav", "headless"])
def test_every_cut_equals_a_plain_forward(name):
    assert check_family("umm", example(name)) == []


@pytest.mark.parametrize("name", ["byol", "moco"])
def test_the_momentum_copy_equals_a_plain_forward(name):
    assert check_family("umm", example(name, branch="momentum")) == []


@pytest.mark.parametrize(("stem", "side"), [("imagenet", 64), ("stl10", 32)])
def test_other_stems_equal_a_plain_forward(stem, side):
    assert check_family("umm", example("simclr", stem, side=side)) == []


def test_linear_heads_equal_a_plain_forward():
    assert check_family("umm", example("byol", linear=True)) == []


def test_the_early_and_late_parts_are_the_trunk_a_second_time():
    found = example("simclr")
    contents = dict(found.contents) | {"f_e.0.weight": found.contents["back_bone.conv1.weight"]}
    assembly = assemble(Contents(contents), found.declared)
    assert assembly.ignored["f_e.0.weight"] == "the trunk's weights a second time"


def test_a_small_stem_has_to_be_declared():
    with pytest.raises(CheckpointError) as refusal:
        assemble(Contents(example("simclr").contents), Declared())
    assert "--declare stem=cifar" in refusal.value.hint
    assert "stl10" in refusal.value.hint


def test_a_method_without_a_target_has_no_momentum_copy():
    with pytest.raises(CheckpointError, match="no target"):
        assemble(Contents(example("simclr").contents), Declared(branch="momentum", stem="cifar"))


@pytest.mark.parametrize(("stem", "resize", "crop"), [("cifar", 40, 32), ("stl10", 70, 64)])
def test_the_size_of_the_images_follows_the_stem(stem, resize, crop):
    found = example("simclr", stem)
    preprocessing = assemble(Contents(found.contents), found.declared).preprocessing
    assert (preprocessing.resize, preprocessing.crop) == (resize, crop)
    assert preprocessing.interpolation == "bicubic"
