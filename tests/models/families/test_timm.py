"""Real objects of timm, saved by its own means, judge every cut."""

import json

import pytest
import timm
import torch
from safetensors.torch import save_file

from layerscope.errors import CheckpointError
from layerscope.models import load
from layerscope.models.checkpoint import assemble
from layerscope.models.contents import Contents
from layerscope.models.declared import Declared
from layerscope.testing import FamilyExample, check_family
from tests.models.families.truth import randomised, trained
from tests.models.families.zoo_truth import (
    TOLERANCE,
    captured,
    each_network,
    expanded,
    gap,
    judge,
    library_modules,
    nothing_crosses,
    nothing_overwrites,
)

NETWORKS = {
    "resnet18": (64, "fc", "stem layer1.0-1 layer2.0-1 layer3.0-1 layer4.0-1"),
    "resnet26d": (64, "fc", "stem layer1.0-1 layer2.0-1 layer3.0-1 layer4.0-1"),
    "resnetblur18": (64, "fc", "stem layer1.0-1 layer2.0-1 layer3.0-1 layer4.0-1"),
    "resnetv2_50": (
        64,
        "head.fc",
        "stem stages.0.blocks.0-2 stages.1.blocks.0-3 stages.2.blocks.0-5 stages.3.blocks.0-2",
    ),
    "seresnet18": (64, "fc", "stem layer1.0-1 layer2.0-1 layer3.0-1 layer4.0-1"),
    "resnest14d": (64, "fc", "stem layer1.0 layer2.0 layer3.0 layer4.0"),
    "convnext_atto": (
        64,
        "head.fc",
        "stem stages.0.blocks.0-1 stages.1.downsample stages.1.blocks.0-1 stages.2.downsample "
        "stages.2.blocks.0-5 stages.3.downsample stages.3.blocks.0-1",
    ),
    "efficientnet_b0": (
        64,
        "classifier",
        "stem blocks.0.0 blocks.1.0-1 blocks.2.0-1 blocks.3.0-2 blocks.4.0-2 blocks.5.0-3 "
        "blocks.6.0",
    ),
    "regnety_002": (
        64,
        "head.fc",
        "stem s1.b1 s2.b1 s3.b1 s3.b2 s3.b3 s3.b4 s4.b1 s4.b2 s4.b3 s4.b4 s4.b5 s4.b6 s4.b7",
    ),
    "densenet121": (
        64,
        "classifier",
        "stem features.denseblock1 features.transition1 features.denseblock2 "
        "features.transition2 features.denseblock3 features.transition3 features.denseblock4",
    ),
    "mobilenetv2_050": (
        64,
        "classifier",
        "stem blocks.0.0 blocks.1.0-1 blocks.2.0-2 blocks.3.0-3 blocks.4.0-2 blocks.5.0-2 "
        "blocks.6.0",
    ),
    "mobilenetv3_small_050": (
        64,
        "classifier",
        "stem blocks.0.0 blocks.1.0-1 blocks.2.0-2 blocks.3.0-1 blocks.4.0-2 blocks.5.0",
    ),
    "vit_tiny_patch16_224": (224, "head", "embed blocks.0-11"),
    "eva02_tiny_patch14_224": (224, "", "embed blocks.0-11"),
    "xcit_nano_12_p16_224": (64, "head", "embed blocks.0-11 cls_attn_blocks.0-1"),
    "mixer_s32_224": (224, "head", "embed blocks.0-7"),
    "swin_tiny_patch4_window7_224": (
        224,
        "head.fc",
        "embed layers.0.blocks.0-1 layers.1.downsample layers.1.blocks.0-1 layers.2.downsample "
        "layers.2.blocks.0-5 layers.3.downsample layers.3.blocks.0-1",
    ),
    "coatnet_pico_rw_224": (
        224,
        "head.fc",
        "stem stages.0.blocks.0-1 stages.1.blocks.0-2 stages.2.blocks.0-4 stages.3.blocks.0-1",
    ),
}
"""By architecture: the side of the images, the classifier, and the cuts before ``trunk``."""

SLOW = (
    "resnet26d",
    "resnetblur18",
    "resnetv2_50",
    "seresnet18",
    "resnest14d",
    "densenet121",
    "mobilenetv2_050",
    "eva02_tiny_patch14_224",
    "swin_tiny_patch4_window7_224",
    "coatnet_pico_rw_224",
)
"""What has a sibling of its kind among the others, or costs the most."""

CHECKED_FOR_CROSSINGS = 4
"""Cuts of networks that take large images only."""


def saved(network: torch.nn.Module, name: str, folder) -> str:
    """Write a file as timm's hub does: safetensors, with a configuration beside."""
    file = folder / "model.safetensors"
    save_file(network.state_dict(), file)
    settings = {
        "architecture": name,
        "num_classes": network.num_classes,
        "num_features": network.num_features,
        "pretrained_cfg": {
            key: value
            for key, value in network.pretrained_cfg.items()
            if key in ("input_size", "mean", "std", "crop_pct", "interpolation", "crop_mode")
        },
    }
    (folder / "config.json").write_text(json.dumps(settings))
    return str(file)


@each_network(NETWORKS, SLOW)
def test_every_cut_is_what_timm_computes(name, tmp_path):
    side, classifier, cuts = NETWORKS[name]
    network = randomised(timm.create_model(name))
    model = load(saved(network, name, tmp_path))
    head = ["head.1"] if classifier else []
    assert [cut.name for cut in model.cuts] == [*expanded(cuts), "trunk", *head]
    assert model.checkpoint.family == "timm"
    assert not model.ignored
    images = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))
    modules = library_modules(model, [classifier, classifier] if classifier else [])
    judge(model, network, images, modules)
    nothing_overwrites(model, images)
    inner = [m for cut, m in modules.items() if cut != "trunk" and not cut.startswith("head")]
    step = 1 if side == 64 else max(len(inner) // CHECKED_FOR_CROSSINGS, 1)
    nothing_crosses(network, images, inner[::step])


@pytest.mark.parametrize("name", ["convnext_atto", "swin_tiny_patch4_window7_224"])
def test_the_last_block_of_a_stage_is_what_timm_calls_an_intermediate(name, tmp_path):
    side, _, _ = NETWORKS[name]
    network = randomised(timm.create_model(name))
    model = load(saved(network, name, tmp_path))
    images = torch.randn(1, 3, side, side)
    found = captured(model, images, model.cuts)
    with torch.no_grad():
        stages = network.forward_intermediates(images, intermediates_only=True)
    blocks = [cut.name for cut in model.cuts if ".blocks." in cut.name]
    last = {name.split(".")[1]: name for name in blocks}
    assert len(last) == len(stages)
    for stage, map_ in zip(last.values(), stages, strict=True):
        assert gap(found[stage], map_.mean((2, 3))) <= TOLERANCE


def small(name: str = "test_convnext", seed: int = 0, **settings) -> torch.nn.Module:
    return randomised(timm.create_model(name, num_classes=5, **settings), seed)


def convnext_features(network, images):
    x = network.stem(images)
    features = {"stem": x.mean((2, 3))}
    for number, stage in enumerate(network.stages):
        if not isinstance(stage.downsample, torch.nn.Identity):
            x = stage.downsample(x)
            features[f"stages.{number}.downsample"] = x.mean((2, 3))
        for index, block in enumerate(stage.blocks):
            x = block(x)
            features[f"stages.{number}.blocks.{index}"] = x.mean((2, 3))
    x = features["trunk"] = network.head.norm(x.mean((2, 3), keepdim=True)).flatten(1)
    return features | {"head.1": network.head.fc(x)}


def training_example(branch: str | None, averaged: str = "state_dict_ema") -> FamilyExample:
    """What timm's train.py writes with --model-ema."""
    online, momentum = small(seed=0), small(seed=1)
    network = momentum if branch == "momentum" else online
    root = {
        "epoch": 3,
        "arch": "test_convnext",
        averaged.removesuffix("_ema"): online.state_dict(),
        "optimizer": trained(online),
        "version": 2,
        averaged: momentum.state_dict(),
        "metric": 71.0,
    }
    return FamilyExample(
        root, lambda images: convnext_features(network, images), declared=Declared(branch=branch)
    )


@pytest.mark.parametrize(
    ("branch", "averaged"),
    [
        (None, "state_dict_ema"),
        pytest.param("momentum", "state_dict_ema", marks=pytest.mark.slow),
        ("momentum", "model_ema"),
    ],
)
def test_a_training_checkpoint_conforms(branch, averaged):
    assert check_family("timm", training_example(branch, averaged)) == []


def test_a_file_without_averaged_weights_has_one_branch(tmp_path):
    torch.save(small().state_dict(), tmp_path / "weights.pth")
    assert load(tmp_path / "weights.pth").checkpoint.family == "timm"
    with pytest.raises(CheckpointError, match="no momentum weights"):
        load(tmp_path / "weights.pth", Declared(branch="momentum"))


def test_a_file_of_several_architectures_that_differ_is_refused(tmp_path):
    network = small("tf_mobilenetv3_small_075")
    file = tmp_path / "weights.pth"
    torch.save(network.state_dict(), file)
    with pytest.raises(CheckpointError, match="does not tell which network") as error:
        load(file)
    assert "mobilenetv3_small_075" in str(error.value)
    assert "--declare arch=timm.models:" in error.value.hint
    torch.save({"arch": "tf_mobilenetv3_small_075", "state_dict": network.state_dict()}, file)
    model = load(file)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = network(images)
    assert gap(captured(model, images, model.cuts)["head.1"], expected) <= TOLERANCE


def test_a_file_that_names_another_architecture_than_its_own_is_refused(tmp_path):
    file = saved(small("test_resnet"), "test_convnext", tmp_path)
    with pytest.raises(CheckpointError, match=r"says that it is of timm's test_convnext, but"):
        load(file)


def test_a_named_plain_transformer_is_timm_s_and_no_other_family_s(tmp_path):
    network = small("test_vit")
    model = load(saved(network, "test_vit", tmp_path))
    assert model.checkpoint.family == "timm"
    assert "config.json" in model.reason
    file = tmp_path / "alone" / "weights.pth"
    file.parent.mkdir()
    torch.save({"arch": "test_vit", "state_dict": network.state_dict()}, file)
    assert load(file).checkpoint.family == "timm"
    torch.save({"arch": "somebody_s_own", "state_dict": network.state_dict()}, file)
    assert load(file, Declared(attention_heads=2)).checkpoint.family == "vit"


def test_the_configuration_beside_a_file_decides_preprocessing_and_structure(tmp_path):
    network = small("test_vit", global_pool="avg", img_size=64)
    file = saved(network, "test_vit", tmp_path)
    settings = json.loads((tmp_path / "config.json").read_text())
    settings["model_args"] = {"global_pool": "avg", "img_size": 64}
    settings["pretrained_cfg"] |= {
        "input_size": [3, 64, 64],
        "crop_pct": 0.8,
        "crop_mode": "squash",
        "mean": [0.5, 0.5, 0.5],
    }
    (tmp_path / "config.json").write_text(json.dumps(settings))
    model = load(file)
    preprocessing = model.checkpoint.preprocessing
    assert (preprocessing.resize, preprocessing.crop) == ((80, 80), 64)
    assert preprocessing.mean == (0.5, 0.5, 0.5)
    assert model.cuts[-3].pooling == "mean"
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = network(images)
    assert gap(captured(model, images, model.cuts)["head.1"], expected) <= TOLERANCE


def test_two_classifiers_side_by_side_are_left_out_for_a_reason(tmp_path):
    network = randomised(timm.create_model("deit_tiny_distilled_patch16_224", img_size=64))
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    model = load(tmp_path / "weights.pth")
    assert model.checkpoint.preprocessing.crop == 64
    assert model.cuts[-1].name == "trunk"
    assert set(model.ignored) == {
        f"{head}.{own}" for head in ("head", "head_dist") for own in ("weight", "bias")
    }
    assert "side by side" in model.ignored["head.weight"]
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        tokens = network.forward_features(images)
    expected = tokens[:, :2].mean(1)
    assert gap(captured(model, images, model.cuts)["trunk"], expected) <= TOLERANCE
    with pytest.raises(CheckpointError, match="takes images of 64 pixels, not of 128"):
        load(tmp_path / "weights.pth", Declared(image_size=128))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_args": {"nonsense": 1}}, "makes no resnet18"),
        ({"model_args": "x"}, "no table"),
        ({"pretrained_cfg": 5}, "no table"),
        ({"pretrained_cfg": {"input_size": 5}}, "input_size 5"),
        ({"pretrained_cfg": {"input_size": [3, 0, 0]}}, "input_size"),
        (
            {
                "pretrained_cfg": {
                    "input_size": [3, 64, 64],
                    "mean": [0.5] * 3,
                    "std": [0.5] * 3,
                    "crop_pct": "x",
                }
            },
            "incomplete",
        ),
    ],
)
def test_a_damaged_configuration_is_refused(change, message):
    state = timm.create_model("resnet18", num_classes=3).state_dict()
    config = {"architecture": "resnet18", "num_classes": 3} | change
    with pytest.raises(CheckpointError, match=message):
        assemble(Contents(state, "f", {"config.json": config}), Declared())
