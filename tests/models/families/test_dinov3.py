"""The layout of facebookresearch/dinov3: rotary positions, storage tokens, a masked key bias."""

import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from layerscope.errors import CheckpointError
from layerscope.models.checkpoint import assemble
from layerscope.models.contents import Contents
from layerscope.models.cuts import cut_points, trace
from layerscope.models.declared import Declared
from layerscope.models.recognition import recognise_family
from layerscope.models.taps import Taps
from layerscope.testing import TOLERANCE, FamilyExample, check_family
from tests.models.families.test_dino import Head
from tests.models.families.test_dinov2 import MLP, Scale
from tests.models.families.truth import randomised

WIDTH, HEADS, PATCH = 128, 4, 16


def rotated(x, angles):
    """Turn each pair of features (i, i + half) by its angle."""
    first, second = x.chunk(2, -1)
    sine, cosine = angles.sin(), angles.cos()
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], -1)


class Attention(nn.Module):
    def __init__(self, bias: bool, masked: bool):
        super().__init__()
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH, bias=bias)
        if masked:
            mask = torch.ones(3 * WIDTH)
            mask[WIDTH : 2 * WIDTH] = 0
            self.qkv.register_buffer("bias_mask", mask)
        self.proj = nn.Linear(WIDTH, WIDTH)

    def forward(self, x, angles):
        bias = self.qkv.bias
        if hasattr(self.qkv, "bias_mask"):
            bias = torch.cat([bias[:WIDTH], torch.zeros(WIDTH), bias[2 * WIDTH :]])
        parts = nn.functional.linear(x, self.qkv.weight, bias).chunk(3, 2)
        q, k, v = (part.unflatten(2, (HEADS, -1)).transpose(1, 2) for part in parts)
        prefix = x.shape[1] - len(angles)
        q, k = (
            torch.cat([part[:, :, :prefix], rotated(part[:, :, prefix:], angles)], 2)
            for part in (q, k)
        )
        weights = (q @ k.transpose(2, 3) / math.sqrt(WIDTH // HEADS)).softmax(3)
        return self.proj((weights @ v).transpose(1, 2).flatten(2))


class SwiGLU(nn.Module):
    def __init__(self):
        super().__init__()
        self.w1, self.w2 = nn.Linear(WIDTH, 72), nn.Linear(WIDTH, 72)
        self.w3 = nn.Linear(72, WIDTH)

    def forward(self, x):
        gate = self.w1(x)
        return self.w3(gate * torch.sigmoid(gate) * self.w2(x))


class Block(nn.Module):
    def __init__(self, gated: bool, bias: bool, masked: bool):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attn, self.mlp = Attention(bias, masked), SwiGLU() if gated else MLP()
        self.ls1, self.ls2 = Scale(), Scale()

    def forward(self, x, angles):
        x = x + self.ls1.gamma * self.attn(self.norm1(x), angles)
        return x + self.ls2.gamma * self.mlp(self.norm2(x))


class Transformer(nn.Module):
    def __init__(self, gated=False, bias=True, masked=True, registers=4, local=False):
        super().__init__()
        self.registers = registers
        self.patch_embed = nn.Module()
        self.patch_embed.proj = nn.Conv2d(3, WIDTH, PATCH, PATCH)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, WIDTH))
        if registers:
            self.storage_tokens = nn.Parameter(torch.zeros(1, registers, WIDTH))
        self.rope_embed = nn.Module()
        periods = 100 ** (torch.arange(WIDTH // HEADS // 4) / (WIDTH // HEADS // 4))
        self.rope_embed.register_buffer("periods", periods.bfloat16())
        self.blocks = nn.ModuleList(Block(gated, bias, masked) for _ in range(2))
        self.norm = nn.LayerNorm(WIDTH)
        if local:
            self.local_cls_norm = nn.LayerNorm(WIDTH)
        self.mask_token = nn.Parameter(torch.zeros(1, WIDTH))

    def angles(self, side: int):
        along = (torch.arange(side) + 0.5) / side * 2 - 1
        turns = 2 * math.pi * along[:, None] / self.rope_embed.periods.float()
        rows = turns[:, None].expand(side, side, -1)
        columns = turns[None].expand(side, side, -1)
        return torch.cat([rows, columns], 2).flatten(0, 1)

    def features(self, images):
        x = self.patch_embed.proj(images).flatten(2).transpose(1, 2)
        leading = [self.cls_token] + ([self.storage_tokens] if self.registers else [])
        x = torch.cat([*(token.expand(len(x), -1, -1) for token in leading), x], dim=1)
        found = {"embed": x[:, 1 + self.registers :].mean(1)}
        angles = self.angles(images.shape[-1] // PATCH)
        for number, block in enumerate(self.blocks):
            x = block(x, angles)
            found[f"blocks.{number}"] = x[:, 0]
        return found | {"trunk": self.norm(x)[:, 0]}


def trained(**settings) -> Transformer:
    network = Transformer(**settings)
    kept = {
        name: tensor.clone()
        for name, tensor in network.state_dict().items()
        if name.endswith(("periods", "bias_mask"))
    }
    randomised(network).load_state_dict(kept, strict=False)
    return network


VARIANTS = [
    {},
    {"gated": True},
    {"bias": False, "masked": False, "gated": True, "local": True},
    {"masked": False},
    {"registers": 0},
]


@pytest.mark.parametrize("settings", VARIANTS, ids=str)
def test_every_cut_of_a_release_equals_a_plain_forward(settings):
    network = trained(**settings)
    made = FamilyExample(dict(network.state_dict()), network.features, side=80)
    assert check_family("dinov3", made) == []


def test_a_trainings_teacher_has_a_head():
    backbone, head = trained(), randomised(Head(WIDTH))
    state = {f"backbone.{key}": value for key, value in backbone.state_dict().items()}
    mlp = {f"dino_head.{k}": v for k, v in head.state_dict().items() if "last" not in k}
    last = torch.randn(40, 32, generator=torch.Generator().manual_seed(2))
    logits = {"dino_head.last_layer.weight": last}
    patches = {key.replace("dino", "ibot"): value + 1 for key, value in (mlp | logits).items()}

    def forward(images):
        features = head.add_features(backbone.features(images))
        return features | {"Q": features["head.3n"] @ last.T}

    made = FamilyExample({"teacher": state | mlp | logits | patches}, forward, side=80)
    assert check_family("dinov3", made) == []


def test_heads_are_told_by_the_periods():
    contents = Contents(dict(trained().state_dict()))
    assembly = assemble(contents, Declared())
    assert assembly.architecture["attention_heads"] == HEADS
    with pytest.raises(CheckpointError, match="make 4, not 2"):
        assemble(contents, Declared(attention_heads=2))


def test_a_mask_that_is_missing_is_named():
    state = dict(trained().state_dict())
    del state["blocks.1.attn.qkv.bias_mask"]
    with pytest.raises(CheckpointError, match=r"blocks\.1\.attn\.qkv\.bias_mask is missing"):
        assemble(Contents(state), Declared())


def test_another_image_size_has_to_be_whole_patches():
    contents = Contents(dict(trained().state_dict()))
    assert assemble(contents, Declared(image_size=256)).preprocessing.crop == 256
    with pytest.raises(CheckpointError, match="100 pixels"):
        assemble(contents, Declared(image_size=100))


class ConvNeXtBlock(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.dwconv = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.pwconv1, self.pwconv2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x):
        y = self.norm(self.dwconv(x).permute(0, 2, 3, 1))
        y = self.gamma * self.pwconv2(nn.functional.gelu(self.pwconv1(y)))
        return x + y.permute(0, 3, 1, 2)


class MapNorm(nn.LayerNorm):
    def forward(self, x):
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ConvNeXt(nn.Module):
    def __init__(self, widths=(96, 192, 384, 768), depths=(3, 3, 9, 3)):
        super().__init__()
        stem = nn.Sequential(nn.Conv2d(3, widths[0], 4, 4), MapNorm(widths[0], eps=1e-6))
        self.downsample_layers = nn.ModuleList([stem])
        for before, after in pairwise(widths):
            norm, shrink = MapNorm(before, eps=1e-6), nn.Conv2d(before, after, 2, 2)
            self.downsample_layers.append(nn.Sequential(norm, shrink))
        self.stages = nn.ModuleList(
            nn.Sequential(*(ConvNeXtBlock(width) for _ in range(depth)))
            for width, depth in zip(widths, depths, strict=True)
        )
        self.norm = nn.LayerNorm(widths[-1], eps=1e-6)
        self.norms = nn.ModuleList([*(nn.Identity() for _ in range(3)), self.norm])

    def features(self, images):
        x, found = images, {}
        for stage, (shrink, blocks) in enumerate(
            zip(self.downsample_layers, self.stages, strict=True)
        ):
            x = shrink(x)
            found["stem" if not stage else f"stages.{stage}.downsample"] = x.mean((2, 3))
            for number, block in enumerate(blocks):
                x = block(x)
                found[f"stages.{stage}.blocks.{number}"] = x.mean((2, 3))
        return found | {"trunk": self.norm(x.mean((2, 3)))}


@torch.no_grad()
def test_every_cut_of_a_convnext_equals_a_plain_forward():
    network = randomised(ConvNeXt())
    state = dict(network.state_dict())
    assembly = assemble(Contents(state), Declared())
    assert recognise_family(Contents(state))[0] == "dinov3"
    assert set(assembly.ignored) == {"norms.3.weight", "norms.3.bias"}
    assert set(assembly.keys) | set(assembly.ignored) == set(state)
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    module = assembly.module.eval()
    taps = Taps(module, cut_points(trace(module, 64), assembly.stops))
    found, wanted = taps.run(images), network.features(images)
    assert list(found) == list(wanted)
    for name, features in wanted.items():
        gap = (found[name] - features).abs().max() / features.abs().max()
        assert gap <= TOLERANCE, name
