"""The layout of facebookresearch/mae: an encoder with a fixed table of positions and a decoder."""

import math

import pytest
import torch
from timm.models.vision_transformer import Block, VisionTransformer
from torch import nn

from layerscope.errors import CheckpointError
from layerscope.models.checkpoint import assemble
from layerscope.models.contents import Contents
from layerscope.models.declared import Declared
from layerscope.testing import FamilyExample, check_family
from tests.models.families.truth import randomised, trained, vit_features

WIDTH, GRID = 64, 4


def table(width: int, grid: int) -> torch.Tensor:
    """The published table, patch by patch and feature by feature."""
    rows = [[0.0] * width]
    for row in range(grid):
        for column in range(grid):
            features = []
            for place in (column, row):
                angles = [place / 10000 ** (i / (width // 4)) for i in range(width // 4)]
                features += [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
            rows.append(features)
    return torch.tensor(rows)[None]


class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.decoder_embed = nn.Linear(WIDTH, 32)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, 32))
        self.decoder_pos_embed = nn.Parameter(torch.zeros(1, 1 + GRID**2, 32))
        self.decoder_blocks = nn.ModuleList(Block(32, 2, qkv_bias=True) for _ in range(2))
        self.decoder_norm = nn.LayerNorm(32)
        self.decoder_pred = nn.Linear(32, 16**2 * 3)


def encoder(**settings) -> VisionTransformer:
    size = {"img_size": 16 * GRID, "patch_size": 16, "embed_dim": WIDTH, "depth": 2}
    network = VisionTransformer(**size, num_heads=2, num_classes=0, **settings)
    randomised(network).pos_embed.data = table(WIDTH, GRID)
    return network


def example(state: dict, network: VisionTransformer, head=None, pooling="cls") -> FamilyExample:
    def forward(images):
        features = vit_features(network, images, pooling)
        features["trunk"] = network.fc_norm(features["trunk"])
        return features | ({"head.1": head(features["trunk"])} if head else {})

    contents = {"model": state, "epoch": 3, "optimizer": trained(network), "scaler": {"scale": 1.0}}
    return FamilyExample(contents, forward, declared=Declared(attention_heads=2))


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_pretraining_with_its_decoder(prefix):
    network, decoder = encoder(), randomised(Decoder(), seed=1)
    state = dict(network.state_dict()) | dict(decoder.state_dict())
    made = example({prefix + key: value for key, value in state.items()}, network)
    assert check_family("mae", made) == []


def test_an_encoder_alone_is_known_by_its_positions():
    network = encoder()
    made = example(dict(network.state_dict()), network)
    made.contents.pop("optimizer")
    assert check_family("mae", made) == []


@pytest.mark.parametrize("mean", [False, True])
def test_a_linear_probe_is_a_head_layer(mean):
    network = encoder(global_pool="avg" if mean else "token")
    probe = nn.Sequential(nn.BatchNorm1d(WIDTH, affine=False, eps=1e-6), nn.Linear(WIDTH, 10))
    randomised(probe, seed=2)
    state = {f"head.{key}": value for key, value in probe.state_dict().items()}
    made = example(
        dict(network.state_dict()) | state, network, probe, pooling="mean" if mean else "cls"
    )
    assert check_family("mae", made) == []


def test_attention_heads_of_another_width_than_the_papers_have_to_be_declared():
    network = encoder()
    with pytest.raises(CheckpointError, match="attention heads") as caught:
        assemble(Contents({"model": dict(network.state_dict())}), Declared())
    assert "--declare attention_heads" in caught.value.hint


def test_huge_has_sixteen_heads_of_eighty_features():
    network = VisionTransformer(
        img_size=32,
        patch_size=14,
        embed_dim=1280,
        depth=1,
        num_heads=16,
        mlp_ratio=0.1,
        num_classes=0,
    )
    network.pos_embed.data = table(1280, 2)
    assembly = assemble(Contents({"model": dict(network.state_dict())}), Declared())
    assert assembly.architecture["attention_heads"] == 16
    assert any("no projector" in note for note in assembly.notes)


def test_positions_are_interpolated_as_mae_does():
    network = encoder()
    contents = Contents({"model": dict(network.state_dict())})
    found = assemble(contents, Declared(attention_heads=2, image_size=96))
    old = network.pos_embed.detach()
    moved = nn.functional.interpolate(
        old[:, 1:].reshape(1, 4, 4, WIDTH).permute(0, 3, 1, 2), size=(6, 6), mode="bicubic"
    )
    wanted = torch.cat([old[:, :1], moved.flatten(2).transpose(1, 2)], dim=1)
    torch.testing.assert_close(found.module.trunk.pos_embed.data, wanted)
