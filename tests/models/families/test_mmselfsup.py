"""The layouts of mmselfsup 0.x and 1.x: backbone, neck, head, and their momentum copies."""

import copy
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
from tests.models.families.truth import (
    randomised,
    resnet_features,
    tiny_resnet,
    trained,
    vit_features,
)


class NonLinear(nn.Module):
    def __init__(self, inputs, layers=2, bias=False, last_norm=True, affine=True):
        super().__init__()
        self.depth, width = layers, inputs
        for number in range(layers):
            last = number == layers - 1
            out = 12 if last else 24
            setattr(self, f"fc{number}", nn.Linear(width, out, bias=bias and not last))
            if not last or last_norm:
                setattr(self, f"bn{number}", nn.BatchNorm1d(out, affine=affine or not last))
            width = out

    def layers(self, x):
        outputs = []
        for number in range(self.depth):
            x = getattr(self, f"fc{number}")(x)
            if hasattr(self, f"bn{number}"):
                x = getattr(self, f"bn{number}")(x)
            if number < self.depth - 1:
                x = torch.relu(x)
            outputs.append(x)
        return outputs


class MoCoV2(nn.Module):
    def __init__(self):
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 12))

    def layers(self, x):
        hidden = self.mlp[1](self.mlp[0](x))
        return [hidden, self.mlp[2](hidden)]


class MLPNeck(nn.Module):
    def __init__(self, inputs):
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(inputs, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Linear(24, 12)
        )

    def layers(self, x):
        hidden = self.mlp[:3](x)
        return [hidden, self.mlp[3](hidden)]


class DenseCL(MoCoV2):
    def __init__(self):
        super().__init__()
        self.mlp2 = nn.Sequential(nn.Conv2d(64, 24, 1), nn.ReLU(), nn.Conv2d(24, 12, 1))


class LinearNeck(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(64, 12)

    def layers(self, x):
        return [self.fc(x)]


class SwAVNeck(nn.Module):
    def __init__(self):
        super().__init__()
        self.bn = nn.BatchNorm1d(24)
        self.projection_neck = nn.Sequential(
            nn.Linear(64, 24), self.bn, nn.ReLU(), nn.Linear(24, 12)
        )

    def layers(self, x):
        hidden = self.projection_neck[:3](x)
        return [hidden, self.projection_neck[3](hidden)]


class Algorithm(nn.Module):
    def __init__(self, neck, predictor=None, backbone=None):
        super().__init__()
        self.backbone, self.neck = backbone or tiny_resnet(), neck
        self.head = nn.Module()
        if predictor is not None:
            self.head.predictor = predictor


def with_momentum(network, name, version):
    """Add the momentum copy, as an averaged model or, in 0.x, as a Sequential."""
    pair = nn.Sequential(copy.deepcopy(network.backbone), copy.deepcopy(network.neck))
    if version == 1:
        averaged = nn.Module()
        averaged.module = pair
        averaged.register_buffer("steps", torch.tensor(3))
        setattr(network, name, averaged)
    else:
        setattr(network, name, pair)
    return network


def example(network, *, branch=None, momentum="", normalised=False, logits=None, twice=""):
    network = randomised(network)
    backbone, neck = network.backbone, network.neck
    if branch == "momentum":
        pair = getattr(network, momentum)
        backbone, neck = pair.module if hasattr(pair, "module") else pair

    def forward(images):
        features = resnet_features(backbone, images)
        outputs = neck.layers(features["trunk"])
        features |= {f"head.{n}": x for n, x in enumerate(outputs, start=1)}
        z = outputs[-1]
        if normalised:
            z = features[f"head.{len(outputs)}n"] = z / z.norm(dim=1, keepdim=True)
        if branch is None and hasattr(network.head, "predictor"):
            predictions = network.head.predictor.layers(z)
            features |= {f"P{n}": x for n, x in enumerate(predictions, start=1)}
        return features | (logits(network, z) if logits else {})

    state = OrderedDict(network.state_dict())
    if twice:
        for number, part in enumerate(("backbone", "neck")):
            for key, value in getattr(network, part).state_dict().items():
                state[f"{twice}.{number}.{key}"] = value
    contents = {
        "meta": {"epoch": 200, "mmcv_version": "1.7.0"},
        "state_dict": state,
        "optimizer": trained(network),
    }
    branches = ("online", "momentum") if momentum else ("online",)
    return FamilyExample(contents, forward, 64, Declared(branch=branch), branches)


def check(*args, **kwargs):
    assert check_family("mmselfsup", example(*args, **kwargs)) == []


def test_simclr():
    check(Algorithm(NonLinear(64)))


def test_barlow_twins():
    network = Algorithm(NonLinear(64, layers=3, last_norm=False))
    network.head.bn = nn.BatchNorm1d(12, affine=False)
    check(network)


@pytest.mark.parametrize("twice", ["", "encoder"], ids=["1.x", "0.x"])
def test_simsiam(twice):
    network = Algorithm(NonLinear(64, layers=3, affine=False), NonLinear(12, last_norm=False))
    check(network, twice=twice)


@pytest.mark.parametrize("branch", [None, "momentum"])
@pytest.mark.parametrize("version", [0, 1])
def test_byol(branch, version):
    neck = NonLinear(64, bias=True, last_norm=False)
    network = Algorithm(neck, NonLinear(12, bias=True, last_norm=False))
    with_momentum(network, "target_net", version)
    twice = "" if version else "online_net"
    check(network, branch=branch, momentum="target_net", twice=twice)


@pytest.mark.parametrize("neck", [MoCoV2, LinearNeck, DenseCL])
@pytest.mark.parametrize("branch", [None, "momentum"])
@pytest.mark.parametrize("version", [0, 1])
def test_moco_and_densecl(neck, branch, version):
    network = with_momentum(Algorithm(neck()), "encoder_k", version)
    network.register_buffer("queue", torch.randn(12, 30))
    network.register_buffer("queue_ptr", torch.zeros(1, dtype=torch.long))
    twice = "" if version else "encoder_q"
    check(network, branch=branch, momentum="encoder_k", normalised=True, twice=twice)


@pytest.mark.parametrize("branch", [None, "momentum"])
def test_byol_of_openselfsup_has_its_neck_in_the_sequential_alone(branch):
    network = Algorithm(MLPNeck(64), MLPNeck(12))
    with_momentum(network, "target_net", 0)
    file = example(network, branch=branch, momentum="target_net", twice="online_net")
    state = file.contents["state_dict"]
    for key in [key for key in state if key.startswith("neck.")]:
        del state[key]
    assert check_family("mmselfsup", file) == []


@pytest.mark.parametrize("where", ["head", "loss"], ids=["0.x", "1.x"])
@pytest.mark.parametrize("several", [False, True])
def test_swav(where, several):
    network = Algorithm(SwAVNeck())
    holder = network.head
    if where == "loss":
        holder = network.head.loss = nn.Module()
    holder.prototypes = nn.Linear(12, 30, bias=False)
    if several:
        holder.prototypes = nn.Module()
        holder.prototypes.prototypes0 = nn.Linear(12, 30, bias=False)
        holder.prototypes.prototypes1 = nn.Linear(12, 20, bias=False)

    def scores(_, z):
        if not several:
            return {"Q": holder.prototypes(z)}
        both = holder.prototypes
        return {"Q1": both.prototypes0(z), "Q2": both.prototypes1(z)}

    check(network, normalised=True, logits=scores)


NAMES = [
    ("patch_embed.proj.", "patch_embed.projection."),
    ("blocks.", "layers."),
    (".norm", ".ln"),
    ("mlp.fc1.", "ffn.layers.0.0."),
    ("mlp.fc2.", "ffn.layers.1."),
]


def mmcls_names(key: str) -> str:
    if key.startswith("norm."):
        return key.replace("norm.", "ln1.")
    for ours, theirs in NAMES:
        key = key.replace(ours, theirs)
    return key


@pytest.mark.parametrize("branch", [None, "momentum"])
@pytest.mark.parametrize("version", [0, 1])
def test_moco_v3_with_a_transformer_of_twelve_heads(branch, version):
    def part():
        network = nn.Module()
        network.backbone = VisionTransformer(
            img_size=32, patch_size=16, embed_dim=384, depth=1, num_heads=12, num_classes=0
        )
        network.neck = NonLinear(384, layers=3, affine=False)
        return network

    online, momentum = part(), part()
    online.predictor = NonLinear(12, affine=False)
    randomised(online)
    randomised(momentum, seed=1)
    network = momentum if branch else online

    def forward(images):
        features = vit_features(network.backbone, images)
        outputs = network.neck.layers(features["trunk"])
        features |= {f"head.{n}": x for n, x in enumerate(outputs, start=1)}
        if branch is None:
            predictions = online.predictor.layers(outputs[-1])
            features |= {f"P{n}": x for n, x in enumerate(predictions, start=1)}
        return features

    def tensors(part, backbone, neck):
        names = {f"{backbone}{mmcls_names(k)}": v for k, v in part.backbone.state_dict().items()}
        return names | {f"{neck}{k}": v for k, v in part.neck.state_dict().items()}

    target = "momentum_encoder." + ("module." if version else "")
    state = tensors(online, "backbone.", "neck.") | tensors(momentum, f"{target}0.", f"{target}1.")
    if not version:
        state |= tensors(online, "base_encoder.0.", "base_encoder.1.")
    state |= {f"head.predictor.{k}": v for k, v in online.predictor.state_dict().items()}
    file = FamilyExample({"meta": {}, "state_dict": state}, forward, 32, Declared(branch=branch))
    assert check_family("mmselfsup", file) == []


def test_a_pretext_task_with_a_classifier_is_refused():
    network = Algorithm(NonLinear(64, last_norm=False))
    network.head.fc_cls = nn.Linear(12, 4)
    with pytest.raises(CheckpointError):
        assemble(Contents({"state_dict": network.state_dict()}), Declared(family="mmselfsup"))
