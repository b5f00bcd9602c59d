"""The layout of facebookresearch/vissl: ``trunk`` and ``heads`` deep in a classy state dict."""

import re

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torch.nn import functional
from torchvision.models import regnet_y_400mf

from layerscope.errors import CheckpointError
from layerscope.models.assembly import put_together
from layerscope.models.checkpoint import assemble
from layerscope.models.contents import Contents
from layerscope.models.declared import Declared
from layerscope.models.families import families, vissl
from layerscope.models.recognition import recognise, recognise_family
from layerscope.testing import FamilyExample, check_family
from tests.models.families.truth import (
    randomised,
    resnet_features,
    small_resnet,
    vit_features,
)


class ResNeXt(nn.Module):
    """VISSL's trunk: a torchvision ResNet's children in a ``ModuleDict``."""

    def __init__(self, width: int = 8):
        super().__init__()
        self._feature_blocks = nn.ModuleDict(
            {name: child for name, child in small_resnet(width).named_children() if name != "fc"}
        )
        self.__dict__["parts"] = self._feature_blocks

    def __getattr__(self, name: str):
        blocks = self.__dict__.get("parts")
        if blocks is not None and name in blocks:
            return blocks[name]
        return super().__getattr__(name)


class Extractor(nn.Module):
    """VISSL's trunk of a linear evaluation."""

    def __init__(self, base_model: nn.Module):
        super().__init__()
        self.base_model = base_model


class MLP(nn.Module):
    def __init__(self, *layers: nn.Module):
        super().__init__()
        self.clf = nn.Sequential(*layers)

    def forward(self, x):
        return self.clf(x)


class LinearEvalMLP(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.channel_bn = nn.BatchNorm2d(channels)
        self.clf = MLP(nn.Linear(channels, 10))


class Siamese(nn.Module):
    """No tensors: it joins the nine patches of an image."""


class Prototypes(nn.Module):
    """VISSL's head of SwAV, or of DINO with ``name="mlp"`` and weight-normed prototypes."""

    def __init__(
        self, name: str, layers: list[nn.Module], counts: tuple[int, ...], *, normed: bool
    ):
        super().__init__()
        self.add_module(name, nn.Sequential(*layers) if len(layers) > 1 else layers[0])
        for number, count in enumerate(counts):
            self.add_module(f"prototypes{number}", nn.Linear(16, count, bias=False))
            if normed:
                layer = self.get_submodule(f"prototypes{number}")
                del layer.weight
                layer.weight_g = nn.Parameter(torch.ones(count, 1))
                layer.weight_v = nn.Parameter(torch.randn(count, 16))


class MSN(nn.Module):
    def __init__(self, *, bn: bool):
        super().__init__()
        self.fc = nn.Module()
        for number, (inputs, outputs) in enumerate([(192, 40), (40, 40), (40, 16)], start=1):
            self.fc.add_module(f"fc{number}", nn.Linear(inputs, outputs))
            if bn and number < 3:
                self.fc.add_module(f"bn{number}", nn.BatchNorm1d(outputs))
        self.prototypes = nn.Parameter(torch.randn(30, 16))


def vit(class_token: bool = True) -> VisionTransformer:
    return VisionTransformer(
        img_size=64,
        patch_size=16,
        embed_dim=192,
        depth=2,
        num_heads=3,
        mlp_ratio=1,
        num_classes=0,
        class_token=class_token,
        global_pool="token" if class_token else "avg",
        fc_norm=False,
    )


def classy(trunk: nn.Module, heads: nn.Module) -> dict:
    model = {"trunk": trunk.state_dict(), "heads": heads.state_dict()}
    return {
        "phase_idx": 3,
        "type": "consolidated",
        "classy_state_dict": {
            "base_model": {"model": model, "meta": {"trunk": {}, "heads": []}},
            "loss": {"queue": torch.zeros(4, 3)},
            "optimizer": {"optim": {"state": {0: {"momentum_buffer": torch.zeros(3)}}}},
        },
    }


def built(trunk: nn.Module, *heads: nn.Module) -> tuple[nn.Module, nn.ModuleList]:
    whole = nn.Module()
    whole.trunk, whole.heads = trunk, nn.ModuleList(heads)
    randomised(whole)
    return whole.trunk, whole.heads


def features_of(trunk: nn.Module, images):
    plain = trunk.base_model if isinstance(trunk, Extractor) else trunk
    if isinstance(plain, VisionTransformer):
        return vit_features(plain, images, "cls" if plain.cls_token is not None else "mean")
    return resnet_features(plain, images)


def mlp_example(kind: str, trunk: nn.Module | None = None, *, width: int = 256) -> FamilyExample:
    """Return a file with MLP heads, and the layers that one image runs through."""
    linear, norm, relu = nn.Linear, nn.BatchNorm1d, nn.ReLU
    heads, chosen = {
        "simclr": ([MLP(linear(width, 40), relu()), MLP(linear(40, 16))], ["0.", "1."]),
        "one": ([MLP(linear(width, 40), relu(), linear(40, 16))], ["0."]),
        "supervised": ([MLP(linear(width, 10))], ["0."]),
        "norms": (
            [
                MLP(linear(width, 40, bias=False), norm(40), relu()),
                MLP(linear(40, 32, bias=False), norm(32), relu()),
                MLP(linear(32, 16, bias=False)),
            ],
            ["0.", "1.", "2."],
        ),
        "jigsaw": (
            [MLP(linear(width, 40), norm(40), relu()), Siamese(), MLP(linear(360, 10))],
            ["0."],
        ),
        "pirl": (
            [
                nn.Sequential(MLP(linear(width, 16)), Siamese(), MLP(linear(144, 16))),
                MLP(linear(width, 16)),
            ],
            ["1."],
        ),
        "pirl-mlp": (
            [
                nn.Sequential(
                    MLP(linear(width, 40), relu(), linear(40, 16), relu()),
                    Siamese(),
                    MLP(linear(144, 16)),
                ),
                nn.Sequential(MLP(linear(width, 40), relu(), linear(40, 16))),
            ],
            ["1.0."],
        ),
    }[kind]
    trunk, heads = built(trunk or ResNeXt(), *heads)

    def forward(images):
        features = features_of(trunk, images)
        x, number = features["trunk"], 0
        for name in chosen:
            for layer in heads.get_submodule(name.rstrip(".")).clf:
                x = layer(x)
                number += isinstance(layer, nn.Linear)
                features[f"head.{number}"] = x
        return features

    return FamilyExample(classy(trunk, heads), forward)


@pytest.mark.parametrize(
    "kind", ["simclr", "one", "supervised", "norms", "jigsaw", "pirl", "pirl-mlp"]
)
def test_every_cut_of_mlp_heads_equals_a_plain_forward(kind):
    assert check_family("vissl", mlp_example(kind)) == []


def test_a_wide_trunk():
    assert check_family("vissl", mlp_example("simclr", ResNeXt(16), width=512)) == []


@pytest.mark.parametrize("class_token", [True, False])
def test_transformers(class_token):
    assert check_family("vissl", mlp_example("one", vit(class_token), width=192)) == []


def test_what_stands_between_two_heads_can_be_declared():
    linear = nn.Linear
    trunk, heads = built(ResNeXt(), MLP(linear(256, 40)), MLP(linear(40, 16)))

    def forward(images):
        features = features_of(trunk, images)
        features["head.1"] = heads[0](features["trunk"])
        features["head.2"] = heads[1](features["head.1"])
        return features

    example = FamilyExample(classy(trunk, heads), forward, declared=Declared(head_act="none"))
    assert check_family("vissl", example) == []


def prototypes_example(
    name: str, layers: list[nn.Module], counts: tuple[int, ...], act: str | None, *, normed: bool
) -> FamilyExample:
    head = Prototypes(name, layers, counts, normed=normed)
    trunk, heads = built(vit(), head)

    def forward(images):
        features = features_of(trunk, images)
        x, number = features["trunk"], 0
        for layer in layers:
            x = layer(x)
            number += isinstance(layer, nn.Linear)
            features[f"head.{number}"] = x
        x = features[f"head.{number}n"] = x / x.norm(dim=1, keepdim=True)
        for place in range(len(counts)):
            layer = getattr(head, f"prototypes{place}")
            if normed:
                weight = layer.weight_g * functional.normalize(layer.weight_v, dim=1)
            else:
                weight = layer.weight
            features["Q" if len(counts) == 1 else f"Q{place + 1}"] = x @ weight.T
        return features

    return FamilyExample(classy(trunk, heads), forward, declared=Declared(head_act=act))


@pytest.mark.parametrize("counts", [(30,), (30, 20)])
def test_the_head_of_swav(counts):
    layers = [nn.Linear(192, 40), nn.BatchNorm1d(40), nn.ReLU(), nn.Linear(40, 16)]
    example = prototypes_example("projection_head", layers, counts, None, normed=False)
    assert check_family("vissl", example) == []


def test_a_head_of_swav_that_ends_in_a_norm_ends_in_a_relu():
    layers = [nn.Linear(192, 40), nn.BatchNorm1d(40), nn.ReLU()]
    layers += [nn.Linear(40, 16), nn.BatchNorm1d(16), nn.ReLU()]
    example = prototypes_example("projection_head", layers, (30,), None, normed=False)
    assert check_family("vissl", example) == []


def test_the_activation_of_a_swav_head_for_dino_has_to_be_declared():
    layers = [nn.Linear(192, 40), nn.GELU(), nn.Linear(40, 40), nn.GELU(), nn.Linear(40, 16)]
    example = prototypes_example("projection_head", layers, (30,), "gelu", normed=True)
    assert check_family("vissl", example) == []
    with pytest.raises(CheckpointError, match="activation") as caught:
        assemble(Contents(example.contents), Declared())
    assert "--declare head_act" in caught.value.hint


@pytest.mark.parametrize(
    "layers",
    [
        lambda: [nn.Linear(192, 40), nn.GELU(), nn.Linear(40, 40), nn.GELU(), nn.Linear(40, 16)],
        lambda: [nn.Linear(192, 40), nn.BatchNorm1d(40), nn.GELU(), nn.Linear(40, 16)],
        lambda: [nn.Linear(192, 16)],
    ],
)
def test_the_head_of_dino(layers):
    example = prototypes_example("mlp", layers(), (30,), None, normed=True)
    assert check_family("vissl", example) == []


def test_ibot_without_its_mask_token_and_its_prototypes_of_patches():
    layers = [nn.Linear(192, 40), nn.GELU(), nn.Linear(40, 16)]
    plain = prototypes_example("mlp", layers, (30,), None, normed=True)
    model = plain.contents["classy_state_dict"]["base_model"]["model"]
    model["trunk"]["patch_masking.masked_embed"] = torch.zeros(1, 192)
    for name in ("weight_g", "weight_v"):
        model["heads"][f"0.prototypes1.{name}"] = torch.ones(20, 16)
    assert check_family("vissl", plain) == []
    ignored = _ignored(plain.contents)
    where = "classy_state_dict/base_model/model"
    assert "mask token" in ignored[f"{where}/trunk/patch_masking.masked_embed"]
    assert "patches" in ignored[f"{where}/heads/0.prototypes1.weight_v"]


@pytest.mark.parametrize("bn", [True, False])
def test_the_head_of_msn(bn):
    trunk, heads = built(vit(), MSN(bn=bn))
    head = heads[0]

    def forward(images):
        features = features_of(trunk, images)
        x = features["trunk"]
        for number in (1, 2, 3):
            x = getattr(head.fc, f"fc{number}")(x)
            if number < 3:
                x = getattr(head.fc, f"bn{number}", nn.Identity())(x)
                x = functional.gelu(x)
            features[f"head.{number}"] = x
        x = features["head.3n"] = x / x.norm(dim=1, keepdim=True)
        prototypes = head.prototypes / head.prototypes.norm(dim=1, keepdim=True)
        features["Q"] = x @ prototypes.T
        return features

    assert check_family("vissl", FamilyExample(classy(trunk, heads), forward)) == []


def test_linear_classifiers_on_a_frozen_trunk_are_no_head():
    channels = [8, 32, 64, 128, 256]
    probes = [*(LinearEvalMLP(count) for count in channels), MLP(nn.Linear(256, 10))]
    trunk, heads = built(Extractor(ResNeXt()), *probes)
    contents = classy(trunk, heads)
    example = FamilyExample(contents, lambda images: features_of(trunk, images))
    assert check_family("vissl", example) == []
    key = "classy_state_dict/base_model/model/heads/5.clf.0.weight"
    assert "linear classifier" in _ignored(contents)[key]


@pytest.mark.parametrize("container", ["model_state_dict", None])
@pytest.mark.parametrize("prefix", ["", "base_model."])
def test_a_trunk_alone(container, prefix):
    trunk, _ = built(ResNeXt())
    state = {f"{prefix}{key}": value for key, value in trunk.state_dict().items()}
    contents = state if container is None else {container: state, "epoch": 3}
    example = FamilyExample(contents, lambda images: features_of(trunk, images))
    assert check_family("vissl", example) == []


def test_the_state_dict_of_a_whole_model():
    whole = mlp_example("simclr")
    model = whole.contents["classy_state_dict"]["base_model"]["model"]
    state = {f"module.{part}.{key}": value for part in model for key, value in model[part].items()}
    assert check_family("vissl", FamilyExample(state, whole.forward)) == []


@pytest.mark.parametrize(
    "contents",
    [
        {"type": "shard_list", "shards": ["a_shard0.torch", "a_shard1.torch"]},
        {"type": "slice", "weight": torch.zeros(3)},
        {
            "type": "slice_list",
            "classy_state_dict": {"base_model": {"model": {"trunk": {"a": "b"}, "heads": {}}}},
        },
        {
            "type": "shard",
            "classy_state_dict": {
                "base_model": {"model": {"trunk": {"flat_param_0": torch.zeros(9)}, "heads": []}}
            },
        },
    ],
)
def test_one_piece_of_several_files_is_refused(contents):
    assert recognise_family(Contents(contents, "model.torch"))[0] == "vissl"
    with pytest.raises(CheckpointError, match=contents["type"]) as caught:
        assemble(Contents(contents, "model.torch"), Declared())
    assert "Consolidate" in caught.value.hint


@pytest.mark.parametrize(
    "name", ["flat_param_0", "_feature_blocks.res2._fsdp_wrapped_module.flat_param_0"]
)
def test_flattened_parameters_are_refused(name):
    contents = mlp_example("simclr").contents
    contents["classy_state_dict"]["base_model"]["model"]["trunk"][name] = torch.zeros(9)
    with pytest.raises(CheckpointError, match=f"FSDP: {name}"):
        assemble(Contents(contents), Declared())


def test_a_type_that_is_no_text_is_no_reason_to_refuse():
    whole = mlp_example("one").contents | {"type": ["consolidated"]}
    assert recognise(Contents(whole), Declared(family="vissl")).family == "vissl"


def test_the_metadata_of_fsdp_is_refused():
    contents = mlp_example("simclr").contents
    contents["classy_state_dict"]["base_model"]["meta"]["trunk"] = {"param_metadata": []}
    with pytest.raises(CheckpointError, match="FSDP"):
        assemble(Contents(contents), Declared())


def test_images_of_one_channel_are_refused():
    contents = mlp_example("simclr").contents
    trunk = contents["classy_state_dict"]["base_model"]["model"]["trunk"]
    trunk["_feature_blocks.conv1.weight"] = torch.zeros(8, 1, 7, 7)
    with pytest.raises(CheckpointError, match="1 channels"):
        assemble(Contents(contents), Declared())


def test_heads_of_another_kind_are_refused():
    contents = mlp_example("simclr").contents
    contents["classy_state_dict"]["base_model"]["model"]["heads"] = {
        "0.layers.pre_logits.weight": torch.zeros(3, 256)
    }
    with pytest.raises(CheckpointError, match="not known") as caught:
        assemble(Contents(contents), Declared())
    assert "--declare arch" in caught.value.hint


def test_a_grid_of_another_size_is_interpolated_as_vissl_does():
    network = vit()
    trunk, heads = built(network)
    contents = Contents(classy(trunk, heads))
    assembly = assemble(contents, Declared(image_size=96))
    positions = trunk.pos_embed.detach()
    maps = positions[:, 1:].reshape(1, 4, 4, 192).permute(0, 3, 1, 2)
    larger = functional.interpolate(maps, scale_factor=1.5, mode="bicubic")
    larger = larger.permute(0, 2, 3, 1).reshape(1, 36, 192)
    found = assembly.module.trunk.pos_embed
    assert torch.allclose(found[:, :1], positions[:, :1])
    assert torch.allclose(found[:, 1:], larger, atol=1e-6)


CLASSY_REGNET = {
    "stem.": "conv1.stem.",
    "trunk_output.block": "res",
    ".proj.0.": ".proj.",
    ".proj.1.": ".bn.",
    ".f.c.0.": ".f.c.",
    ".f.c.1.": ".f.final_bn.",
    ".se.fc1.": ".se.excitation.0.",
    ".se.fc2.": ".se.excitation.2.",
}


def test_a_regnet_gets_torchvisions_names(monkeypatch):
    network = regnet_y_400mf()
    network.fc = nn.Identity()
    state = {}
    for key, tensor in network.state_dict().items():
        name = key
        for new, old in CLASSY_REGNET.items():
            name = name.replace(new, old)
        name = re.sub(r"^res(\d)", lambda match: f"res{int(match[1]) + 1}", name)
        state[f"_feature_blocks.{name}"] = tensor
    assert "_feature_blocks.res2.block1-0.f.se.excitation.2.bias" in state
    assert "_feature_blocks.res5.block4-1.f.final_bn.running_var" in state
    taken = {}
    monkeypatch.setattr(vissl, "build_trunk", lambda tensors, *_: taken.update(tensors))
    families["vissl"].parts(Contents(state), Declared())
    own = network.state_dict()
    assert taken.keys() == own.keys()
    assert all(taken[key] is own[key] or torch.equal(taken[key], own[key]) for key in own)


def _ignored(contents: dict) -> dict[str, str]:
    parts = families["vissl"].parts(Contents(contents), Declared())
    return dict(put_together(parts, Contents(contents), Declared()).ignored)
