"""The layout of facebookresearch/barlowtwins: backbone, projector and the loss's ``bn``."""

from itertools import pairwise

import pytest
from torch import nn

from layerscope.models.contents import Contents
from layerscope.models.families import families
from layerscope.testing import FamilyExample, check_family
from tests.models.families.truth import randomised, resnet_features, small_resnet, trained


class BarlowTwins(nn.Module):
    def __init__(self, sizes: tuple[int, ...]):
        super().__init__()
        self.backbone = small_resnet()
        layers = []
        for inputs, outputs in pairwise(sizes[:-1]):
            layers += [nn.Linear(inputs, outputs, bias=False), nn.BatchNorm1d(outputs), nn.ReLU()]
        layers.append(nn.Linear(sizes[-2], sizes[-1], bias=False))
        self.projector = nn.Sequential(*layers)
        self.bn = nn.BatchNorm1d(sizes[-1], affine=False)


def example(sizes: tuple[int, ...] = (256, 40, 32, 24), prefix: str = "module.") -> FamilyExample:
    network = randomised(BarlowTwins(sizes))
    state = {f"{prefix}{key}": value for key, value in network.state_dict().items()}

    def forward(images):
        features = resnet_features(network.backbone, images)
        x = features["trunk"]
        for number in range(1, len(sizes)):
            x = network.projector[3 * number - 3 : 3 * number](x)
            features[f"head.{number}"] = x
        return features

    return FamilyExample({"epoch": 3, "model": state, "optimizer": trained(network)}, forward)


@pytest.mark.parametrize("sizes", [(256, 40, 32, 24), (256, 32, 24), (256, 24)])
@pytest.mark.parametrize("prefix", ["module.", "_orig_mod."])
def test_every_cut_equals_a_plain_forward(sizes, prefix):
    assert check_family("barlow-twins", example(sizes, prefix)) == []


def test_the_batch_norm_of_the_loss_is_no_part_of_the_projector():
    from layerscope.models.assembly import put_together
    from layerscope.models.declared import Declared

    contents = Contents(example().contents)
    parts = families["barlow-twins"].parts(contents, Declared())
    ignored = put_together(parts, contents, Declared()).ignored
    assert "loss" in ignored["model/module.bn.running_mean"]
