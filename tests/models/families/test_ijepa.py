"""The layout of facebookresearch/ijepa: two encoders without class token, and a predictor."""

import pytest
import torch
from timm.models.vision_transformer import Block, VisionTransformer
from torch import nn

from layerscope.errors import CheckpointError
from layerscope.models.checkpoint import assemble
from layerscope.models.contents import Contents
from layerscope.models.declared import Declared
from layerscope.testing import FamilyExample, check_family
from tests.models.families.truth import randomised, vit_features


def encoder(seed: int, width: int = 192, heads: int = 3, **settings) -> VisionTransformer:
    size = {"img_size": 64, "patch_size": 16, "embed_dim": width, "depth": 2, "num_heads": heads}
    pooling = {"class_token": False, "global_pool": "avg", "fc_norm": False}
    network = VisionTransformer(**(size | settings), **pooling, num_classes=0)
    return randomised(network, seed)


class Predictor(nn.Module):
    def __init__(self):
        super().__init__()
        self.predictor_embed = nn.Linear(192, 64)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, 64))
        self.predictor_pos_embed = nn.Parameter(torch.zeros(1, 16, 64))
        self.predictor_blocks = nn.ModuleList(Block(64, 2, qkv_bias=True) for _ in range(2))
        self.predictor_norm, self.predictor_proj = nn.LayerNorm(64), nn.Linear(64, 192)


def contents(online: nn.Module, target: nn.Module) -> dict:
    def parallel(module):
        return {f"module.{key}": value for key, value in module.state_dict().items()}

    return {
        "encoder": parallel(online),
        "predictor": parallel(Predictor()),
        "target_encoder": parallel(target),
        "opt": {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": []},
        "scaler": {"scale": torch.tensor(2.0)},
        "epoch": 3,
    }


@pytest.mark.parametrize("branch", [None, "online"])
def test_every_cut_equals_a_plain_forward(branch):
    online, target = encoder(0), encoder(1)
    network = online if branch == "online" else target
    made = FamilyExample(
        contents(online, target),
        lambda images: vit_features(network, images, "mean"),
        declared=Declared(branch=branch),
    )
    assert check_family("ijepa", made) == []


def test_giant_has_sixteen_heads_of_eighty_eight_features():
    giant = encoder(0, 1408, 16, depth=1, mlp_ratio=1 / 11)
    assembly = assemble(Contents(contents(giant, giant)), Declared())
    assert assembly.architecture["attention_heads"] == 16
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(assembly.module.eval().trunk(images), giant(images))


def test_a_branch_that_is_not_there_is_named():
    file = contents(encoder(0), encoder(1))
    del file["encoder"]
    with pytest.raises(CheckpointError, match="holds no online weights"):
        assemble(Contents(file), Declared(branch="online"))
