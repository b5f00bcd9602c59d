"""The layout of facebookresearch/dino: student and teacher with a shared-structure head."""

import pytest
import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torchvision.models.resnet import BasicBlock, ResNet

from layerscope.errors import CheckpointError
from layerscope.models.checkpoint import assemble
from layerscope.models.contents import Contents
from layerscope.models.declared import Declared
from layerscope.testing import FamilyExample, check_family
from tests.models.families.truth import randomised, resnet_features, vit_features


class Head(nn.Module):
    def __init__(self, width: int, batch_norm: bool = False, layers: int = 3):
        super().__init__()
        between = [nn.BatchNorm1d(96)] if batch_norm else []
        if layers == 1:
            self.mlp = nn.Linear(width, 32)
        else:
            steps = [nn.Linear(width, 96), *between, nn.GELU()]
            for _ in range(layers - 2):
                steps += [nn.Linear(96, 96), *[nn.BatchNorm1d(96) for _ in between], nn.GELU()]
            self.mlp = nn.Sequential(*steps, nn.Linear(96, 32))
        self.last_layer = nn.Module()
        self.last_layer.weight_g = nn.Parameter(torch.ones(50, 1))
        self.last_layer.weight_v = nn.Parameter(torch.randn(50, 32))

    def add_features(self, features: dict) -> dict:
        x, number = features["trunk"], 0
        steps = [self.mlp] if isinstance(self.mlp, nn.Linear) else list(self.mlp)
        for step in steps:
            number += isinstance(step, nn.Linear)
            x = features[f"head.{number}"] = step(x)
        x = features[f"head.{number}n"] = x / x.norm(dim=1, keepdim=True)
        last = self.last_layer
        features["Q"] = x @ (last.weight_g * nn.functional.normalize(last.weight_v, dim=1)).T
        return features


def small_vit(side: int = 64, patch: int = 16) -> VisionTransformer:
    return VisionTransformer(
        img_size=side, patch_size=patch, embed_dim=192, depth=2, num_heads=3, num_classes=0
    )


def small_resnet() -> nn.Module:
    network = ResNet(BasicBlock, [1, 1, 1, 1])
    network.fc = nn.Identity()
    return network


def wrapper(seed: int, backbone: nn.Module, width: int, **head) -> nn.Module:
    both = nn.Module()
    both.backbone, both.head = backbone, Head(width, **head)
    return randomised(both, seed)


def contents(student: nn.Module, teacher: nn.Module, parallel: bool = False) -> dict:
    prefix = "module." if parallel else ""
    return {
        "student": {f"module.{key}": value for key, value in student.state_dict().items()},
        "teacher": {f"{prefix}{key}": value for key, value in teacher.state_dict().items()},
        "optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": []},
        "epoch": 3,
        "dino_loss": {"center": torch.zeros(1, 50)},
        "fp16_scaler": {"scale": torch.tensor(2.0)},
    }


def example(branch: str | None = None, parallel: bool = False, **head) -> FamilyExample:
    student, teacher = (wrapper(seed, small_vit(), 192, **head) for seed in (0, 1))
    network = student if branch == "online" else teacher

    def forward(images):
        return network.head.add_features(vit_features(network.backbone, images))

    return FamilyExample(
        contents(student, teacher, parallel), forward, declared=Declared(branch=branch)
    )


@pytest.mark.parametrize("branch", [None, "online"])
def test_every_cut_equals_a_plain_forward(branch):
    assert check_family("dino", example(branch)) == []


@pytest.mark.parametrize(
    "head", [{"batch_norm": True}, {"layers": 1}, {"layers": 2}, {"layers": 4}], ids=str
)
def test_heads_of_other_structure(head):
    assert check_family("dino", example(parallel="batch_norm" in head, **head)) == []


def test_a_resnet_as_the_trunk():
    student, teacher = (wrapper(seed, small_resnet(), 512) for seed in (0, 1))

    def forward(images):
        return teacher.head.add_features(resnet_features(teacher.backbone, images))

    assert check_family("dino", FamilyExample(contents(student, teacher, True), forward)) == []


def in_the_original(state: dict) -> dict:
    """XCiT's own names: one Linear for class attention, and a spelling of its own."""
    named = {}
    for key, value in state.items():
        if ".attn.q." in key:
            parts = [state[key.replace(".q.", f".{letter}.")] for letter in "qkv"]
            named[key.replace(".q.", ".qkv.")] = torch.cat(parts)
        elif ".attn.k." not in key and ".attn.v." not in key:
            named[key.replace("pos_embed.", "pos_embeder.")] = value
    return named


@torch.no_grad()
def test_an_xcit_as_the_trunk():
    teacher = randomised(timm.create_model("xcit_nano_12_p16_224", num_classes=0))
    head = randomised(Head(128))
    backbone = in_the_original(teacher.state_dict())
    state = {f"backbone.{key}": value for key, value in backbone.items()}
    state |= {f"head.{key}": value for key, value in head.state_dict().items()}
    student = {f"module.{key}": value for key, value in state.items()}
    assembly = assemble(Contents({"student": student, "teacher": state}), Declared())
    images = torch.randn(2, 3, 64, 64)
    wanted = head.add_features({"trunk": teacher(images)})
    found = assembly.module.eval()
    torch.testing.assert_close(found.trunk(images), wanted["trunk"], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found(images), wanted["head.3n"], rtol=1e-4, atol=1e-5)
    assert set(assembly.keys) == {f"teacher/{key}" for key in state}


def test_the_logits_use_the_lengths_that_the_file_holds():
    # norm_last_layer freezes them at 1; without it they are trained.
    made = example()
    teacher = made.contents["teacher"]
    assert not torch.allclose(teacher["head.last_layer.weight_g"], torch.ones(50, 1))


def test_a_declared_activation_is_used():
    made = example()
    assembly = assemble(Contents(made.contents), Declared(head_act="relu"))
    kinds = {type(module) for module in assembly.module.head.modules()}
    assert nn.ReLU in kinds
    assert nn.GELU not in kinds


def test_positions_are_interpolated_as_dino_does():
    made = example()
    assembly = assemble(Contents(made.contents), Declared(image_size=96))
    positions = made.contents["teacher"]["backbone.pos_embed"]
    moved = nn.functional.interpolate(
        positions[:, 1:].reshape(1, 4, 4, 192).permute(0, 3, 1, 2),
        scale_factor=(6 + 0.1) / 4,
        mode="bicubic",
    )
    wanted = torch.cat([positions[:, :1], moved.permute(0, 2, 3, 1).reshape(1, 36, 192)], dim=1)
    torch.testing.assert_close(assembly.module.trunk.pos_embed.data, wanted)
    assert assembly.preprocessing.crop == 96


def test_a_branch_that_is_not_there_is_named():
    damaged = Contents({**example().contents, "student": {}})
    with pytest.raises(CheckpointError, match="holds no online weights"):
        assemble(damaged, Declared(branch="online"))
