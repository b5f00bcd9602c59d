"""The layout of facebookresearch/vicreg: its own ResNet, of any width, and a projector."""

from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn import functional

from layerscope.models.contents import Contents
from layerscope.models.families import families
from layerscope.testing import FamilyExample, check_family
from tests.models.families.truth import randomised, resnet_features, small_resnet, trained


class VICReg(nn.Module):
    def __init__(self, width: int, blocks: tuple[int, ...], sizes: tuple[int, ...]):
        super().__init__()
        self.backbone = small_resnet(width, blocks)
        self.backbone.conv1.padding = (2, 2)
        sizes = (32 * width, *sizes)
        layers = []
        for inputs, outputs in pairwise(sizes[:-1]):
            layers += [nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs), nn.ReLU()]
        layers.append(nn.Linear(sizes[-2], sizes[-1], bias=False))
        self.projector = nn.Sequential(*layers)


def example(
    width: int = 8,
    blocks: tuple[int, ...] = (1, 1, 1, 1),
    sizes: tuple[int, ...] = (40, 32, 24),
    prefix: str = "module.",
) -> FamilyExample:
    network = randomised(VICReg(width, blocks, sizes))
    state = {f"{prefix}{key}": value for key, value in network.state_dict().items()}

    def forward(images):
        features = resnet_features(network.backbone, functional.pad(images, (1, 1, 1, 1)))
        x = features["trunk"]
        for number in range(1, len(sizes) + 1):
            x = network.projector[3 * number - 3 : 3 * number](x)
            features[f"head.{number}"] = x
        return features

    return FamilyExample({"epoch": 3, "model": state, "optimizer": trained(network)}, forward)


@pytest.mark.parametrize(
    ("width", "blocks"),
    [
        (8, (1, 1, 1, 1)),
        (16, (1, 1, 1, 1)),
        pytest.param(4, (3, 24, 36, 3), marks=pytest.mark.slow),
    ],
)
def test_every_cut_equals_a_plain_forward_at_any_width_and_depth(width, blocks):
    assert check_family("vicreg", example(width, blocks)) == []


@pytest.mark.parametrize("sizes", [(32, 24), (24,)])
@pytest.mark.parametrize("prefix", ["module.", "module._orig_mod.", ""])
def test_projectors_of_other_lengths_and_wrappers(sizes, prefix):
    assert check_family("vicreg", example(sizes=sizes, prefix=prefix)) == []


@pytest.mark.parametrize("name", ["norm.weight", "0.bias", "2.extra"])
def test_a_projector_of_another_structure_is_no_reason_to_fail(name):
    state = {"backbone.conv1.weight": torch.zeros(8, 3, 7, 7), f"projector.{name}": torch.zeros(3)}
    state["projector.0.weight"] = torch.zeros(4, 3) if name != "0.bias" else torch.zeros(4)
    assert families["vicreg"].recognise(Contents(state)) == ""
