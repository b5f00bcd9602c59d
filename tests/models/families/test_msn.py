"""The layout of facebookresearch/msn: two encoders with a head in ``fc``, and prototypes."""

from collections import OrderedDict

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from layerscope.errors import CheckpointError
from layerscope.models.checkpoint import assemble
from layerscope.models.contents import Contents
from layerscope.models.declared import Declared
from layerscope.testing import FamilyExample, check_family
from tests.models.families.truth import randomised, vit_features


def encoder(seed: int, batch_norm: bool) -> nn.Module:
    network = VisionTransformer(
        img_size=64, patch_size=16, embed_dim=192, depth=2, num_heads=3, num_classes=0
    )
    layers = OrderedDict(fc1=nn.Linear(192, 48))
    if batch_norm:
        layers["bn1"] = nn.BatchNorm1d(48)
    layers["gelu1"], layers["fc2"] = nn.GELU(), nn.Linear(48, 48)
    if batch_norm:
        layers["bn2"] = nn.BatchNorm1d(48)
    layers["gelu2"], layers["fc3"] = nn.GELU(), nn.Linear(48, 24)
    network.fc = nn.Sequential(layers)
    return randomised(network, seed)


def example(branch=None, batch_norm=True, prototypes=True) -> FamilyExample:
    online, target = encoder(0, batch_norm), encoder(1, batch_norm)
    network = online if branch == "online" else target
    centres = torch.randn(20, 24, generator=torch.Generator().manual_seed(2))

    def forward(images):
        features = vit_features(network, images)
        x, fc = features["trunk"], network.fc
        for number in (1, 2):
            x = getattr(fc, f"fc{number}")(x)
            x = getattr(fc, f"bn{number}")(x) if batch_norm else x
            x = features[f"head.{number}"] = nn.functional.gelu(x)
        x = features["head.3"] = fc.fc3(x)
        x = features["head.3n"] = x / x.norm(dim=1, keepdim=True)
        if prototypes:
            features["Q"] = x @ (centres / centres.norm(dim=1, keepdim=True)).T
        return features

    contents = {
        "encoder": {f"module.{key}": value for key, value in online.state_dict().items()},
        "opt": {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": []},
        "target_encoder": {f"module.{key}": value for key, value in target.state_dict().items()},
        "epoch": 3,
        "lr": 0.1,
    }
    if prototypes:
        contents["prototypes"] = centres
    return FamilyExample(contents, forward, declared=Declared(branch=branch))


@pytest.mark.parametrize("branch", [None, "online"])
@pytest.mark.parametrize("batch_norm", [True, False])
def test_every_cut_equals_a_plain_forward(branch, batch_norm):
    assert check_family("msn", example(branch, batch_norm)) == []


def test_without_prototypes():
    assert check_family("msn", example(prototypes=False)) == []


def test_a_branch_that_is_not_there_is_named():
    contents = dict(example().contents)
    contents["encoder"] = None
    with pytest.raises(CheckpointError, match="holds no online weights"):
        assemble(Contents(contents), Declared(branch="online"))


def test_the_prototypes_are_accounted_for_by_their_own_key():
    assembly = assemble(Contents(example().contents), Declared())
    assert assembly.keys["prototypes"].startswith("logits.Q")
