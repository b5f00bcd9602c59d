"""The layout of facebookresearch/moco-v3: two encoders, ResNet or ViT, and one predictor."""

from itertools import pairwise

import pytest
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from layerscope.errors import CheckpointError
from layerscope.models.checkpoint import assemble
from layerscope.models.contents import Contents
from layerscope.models.declared import Declared
from layerscope.testing import FamilyExample, check_family
from tests.models.families.truth import (
    randomised,
    resnet_features,
    small_resnet,
    trained,
    vit_features,
)


class ConvStem(nn.Module):
    """Five convolutions in the place of a patch embedding."""

    def __init__(self, width: int):
        super().__init__()
        widths = (3, width // 8, width // 4, width // 2, width)
        layers = []
        for inputs, outputs in pairwise(widths):
            conv = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False)
            layers += [conv, nn.BatchNorm2d(outputs), nn.ReLU()]
        self.proj = nn.Sequential(*layers, nn.Conv2d(width, width, 1))

    def forward(self, images):
        return self.proj(images).flatten(2).transpose(1, 2)


def mlp(layers: int, inputs: int, outputs: int, *, last_bn: bool = True) -> nn.Sequential:
    steps = []
    for layer in range(layers):
        last = layer == layers - 1
        width = outputs if last else 40
        steps.append(nn.Linear(inputs, width, bias=False))
        if not last:
            steps += [nn.BatchNorm1d(width), nn.ReLU()]
        elif last_bn:
            steps.append(nn.BatchNorm1d(width, affine=False))
        inputs = width
    return nn.Sequential(*steps)


def vit(width: int, heads: int, *, conv: bool = False) -> VisionTransformer:
    network = VisionTransformer(
        img_size=64,
        patch_size=16,
        embed_dim=width,
        depth=1,
        num_heads=heads,
        mlp_ratio=1,
        num_classes=0,
    )
    if conv:
        network.patch_embed = ConvStem(width)
    network.head = mlp(3, width, 16)
    return network


def resnet() -> nn.Module:
    network = small_resnet()
    network.fc = mlp(2, 256, 16)
    return network


TRUNKS = {
    "resnet": resnet,
    "vit_small": lambda: vit(384, 12),
    "vit_base": lambda: vit(768, 12),
    "vit_conv_small": lambda: vit(384, 12, conv=True),
}


def example(
    trunk: str, branch: str | None = None, prefix: str = "module.", act: str | None = None
) -> FamilyExample:
    both = nn.Module()
    both.base_encoder, both.momentum_encoder = TRUNKS[trunk](), TRUNKS[trunk]()
    both.predictor = mlp(2, 16, 16, last_bn=trunk != "resnet")
    randomised(both)
    state = {f"{prefix}{key}": value for key, value in both.state_dict().items()}
    encoder = both.momentum_encoder if branch == "momentum" else both.base_encoder
    head, predictor = (encoder.fc if trunk == "resnet" else encoder.head), both.predictor
    if act == "silu":
        for step in (2, 5) if len(head) > 5 else (2,):
            head[step] = nn.SiLU()
        predictor[2] = nn.SiLU()

    def forward(images):
        features = (resnet_features if trunk == "resnet" else vit_features)(encoder, images)
        x = features["trunk"]
        layers = [head[start : start + 3] for start in range(0, len(head), 3)]
        for number, layer in enumerate(layers, start=1):
            x = features[f"head.{number}"] = layer(x)
        if branch == "momentum":
            features[f"head.{len(layers)}n"] = x / x.norm(dim=1, keepdim=True)
        else:
            features["P1"] = predictor[:3](x)
            features["P2"] = predictor[3:](features["P1"])
        return features

    contents = {
        "epoch": 300,
        "arch": trunk,
        "state_dict": state,
        "optimizer": trained(both),
        "scaler": {"scale": 65536.0},
    }
    return FamilyExample(contents, forward, declared=Declared(branch=branch, head_act=act))


@pytest.mark.parametrize("trunk", TRUNKS)
@pytest.mark.parametrize("branch", [None, "momentum"])
def test_every_cut_equals_a_plain_forward(trunk, branch):
    assert check_family("moco-v3", example(trunk, branch)) == []


@pytest.mark.parametrize("prefix", ["", "module._orig_mod."])
def test_wrappers(prefix):
    assert check_family("moco-v3", example("resnet", prefix=prefix)) == []


def test_a_declared_activation_comes_before_the_usual_one():
    assert check_family("moco-v3", example("resnet", act="silu")) == []


def test_a_width_of_unknown_heads_is_not_guessed(monkeypatch):
    monkeypatch.setitem(TRUNKS, "vit_tiny", lambda: vit(192, 3))
    tiny = example("vit_tiny")
    with pytest.raises(CheckpointError, match="attention heads") as caught:
        assemble(Contents(tiny.contents), Declared(family="moco-v3"))
    assert "--declare attention_heads" in caught.value.hint
    tiny = FamilyExample(tiny.contents, tiny.forward, declared=Declared(attention_heads=3))
    assert check_family("moco-v3", tiny) == []


def test_a_stem_without_its_last_convolution_is_refused():
    contents = example("vit_conv_small").contents
    del contents["state_dict"]["module.base_encoder.patch_embed.proj.12.weight"]
    with pytest.raises(CheckpointError, match="stem"):
        assemble(Contents(contents), Declared(family="moco-v3"))
