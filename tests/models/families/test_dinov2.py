"""The layout of facebookresearch/dinov2: its own transformer, released alone or with its heads."""

import math

import pytest
import torch
from torch import nn

from layerscope.models.checkpoint import assemble
from layerscope.models.contents import Contents
from layerscope.models.declared import Declared
from layerscope.testing import FamilyExample, check_family
from tests.models.families.test_dino import Head
from tests.models.families.truth import randomised

WIDTH, HEADS = 128, 2


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv, self.proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        q, k, v = (
            part.unflatten(2, (HEADS, -1)).transpose(1, 2) for part in self.qkv(x).chunk(3, 2)
        )
        weights = (q @ k.transpose(2, 3) / math.sqrt(WIDTH // HEADS)).softmax(3)
        return self.proj((weights @ v).transpose(1, 2).flatten(2))


class MLP(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x):
        return self.fc2(nn.functional.gelu(self.fc1(x)))


class SwiGLU(nn.Module):
    def __init__(self):
        super().__init__()
        self.w12, self.w3 = nn.Linear(WIDTH, 2 * 88), nn.Linear(88, WIDTH)

    def forward(self, x):
        gate, value = self.w12(x).chunk(2, 2)
        return self.w3(gate * torch.sigmoid(gate) * value)


class Scale(nn.Module):
    def __init__(self):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(WIDTH))


class Block(nn.Module):
    def __init__(self, gated: bool):
        super().__init__()
        self.norm1, self.norm2 = (nn.LayerNorm(WIDTH, eps=1e-6) for _ in range(2))
        self.attn, self.mlp = Attention(), SwiGLU() if gated else MLP()
        self.ls1, self.ls2 = Scale(), Scale()

    def forward(self, x):
        x = x + self.ls1.gamma * self.attn(self.norm1(x))
        return x + self.ls2.gamma * self.mlp(self.norm2(x))


class Transformer(nn.Module):
    def __init__(self, grid=16, patch=14, registers=0, gated=False, chunks=0, depth=2):
        super().__init__()
        self.grid, self.patch, self.registers = grid, patch, registers
        self.patch_embed = nn.Module()
        self.patch_embed.proj = nn.Conv2d(3, WIDTH, patch, patch)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + grid**2, WIDTH))
        self.mask_token = nn.Parameter(torch.zeros(1, WIDTH))
        if registers:
            self.register_tokens = nn.Parameter(torch.zeros(1, registers, WIDTH))
        self.flat = [Block(gated) for _ in range(depth)]
        self.blocks = nn.ModuleList(self.flat)
        if chunks:
            size = depth // chunks
            self.blocks = nn.ModuleList(
                nn.ModuleList([nn.Identity()] * first + self.flat[first : first + size])
                for first in range(0, depth, size)
            )
        self.norm = nn.LayerNorm(WIDTH, eps=1e-6)

    def positions(self, side: int):
        if side == self.grid:
            return self.pos_embed
        patches = self.pos_embed[:, 1:].reshape(1, self.grid, self.grid, WIDTH).permute(0, 3, 1, 2)
        if self.registers:
            moved = nn.functional.interpolate(
                patches, size=(side, side), mode="bicubic", antialias=True
            )
        else:
            scale = (side + 0.1) / self.grid
            moved = nn.functional.interpolate(
                patches, scale_factor=(scale, scale), mode="bicubic", antialias=False
            )
        return torch.cat([self.pos_embed[:, :1], moved.flatten(2).transpose(1, 2)], dim=1)

    def features(self, images):
        x = self.patch_embed.proj(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(len(x), 1, -1), x], dim=1)
        x = x + self.positions(images.shape[-1] // self.patch)
        if self.registers:
            more = self.register_tokens.expand(len(x), -1, -1)
            x = torch.cat([x[:, :1], more, x[:, 1:]], dim=1)
        found = {"embed": x[:, 1 + self.registers :].mean(1)}
        for number, block in enumerate(self.flat):
            x = block(x)
            found[f"blocks.{number}"] = x[:, 0]
        return found | {"trunk": self.norm(x)[:, 0]}


def release(**settings) -> FamilyExample:
    network = randomised(Transformer(**settings))
    return FamilyExample(dict(network.state_dict()), network.features, side=224)


VARIANTS = [
    {},
    {"registers": 4},
    {"gated": True},
    {"chunks": 2, "depth": 4, "gated": True},
    {"chunks": 1, "patch": 16, "grid": 14},
    {"grid": 37},
    {"grid": 37, "registers": 4},
]


@pytest.mark.parametrize("settings", VARIANTS, ids=str)
def test_every_cut_of_a_release_equals_a_plain_forward(settings):
    assert check_family("dinov2", release(**settings)) == []


@pytest.mark.parametrize("separate", [False, True])
def test_a_trainings_teacher_has_a_head(separate):
    teacher = nn.Module()
    teacher.backbone = Transformer(patch=32, grid=7, chunks=1)
    teacher.dino_head = Head(WIDTH)
    if separate:
        teacher.ibot_head = Head(WIDTH)
    randomised(teacher)

    def forward(images):
        return teacher.dino_head.add_features(teacher.backbone.features(images))

    made = FamilyExample({"teacher": dict(teacher.state_dict())}, forward, side=224)
    assert check_family("dinov2", made) == []


def test_a_file_of_a_larger_grid_is_evaluated_at_224_pixels_unless_declared():
    contents = Contents(release(grid=37).contents)
    assembly = assemble(contents, Declared())
    assert (assembly.preprocessing.resize, assembly.preprocessing.crop) == (256, 224)
    assert any("from 37×37 patches to 16×16" in note for note in assembly.notes)
    declared = assemble(contents, Declared(image_size=518))
    assert declared.preprocessing.crop == 518
    assert torch.equal(declared.module.trunk.pos_embed.data, contents.root["pos_embed"])
