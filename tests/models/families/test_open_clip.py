"""The layouts of mlfoundations/open_clip, saved from and judged by its own networks."""

import json
from pathlib import Path

import open_clip
import pytest
from open_clip.model import CLIP, CustomTextCLIP
from safetensors.torch import save_file
from torch import nn

from layerscope.errors import CheckpointError
from layerscope.models import load
from layerscope.models.declared import Declared
from layerscope.testing import FamilyExample, check_family
from tests.models.families.hooked import Where, hooked, loaded_like, transformer_cuts
from tests.models.families.truth import randomised, trained

TEXT = {"context_length": 5, "vocab_size": 7, "width": 64, "heads": 1, "layers": 1}
VIT = {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8, "head_width": 16}
RESNET = {"image_size": 64, "layers": [1, 1, 1, 1], "width": 16, "head_width": 32}
TIMM_VIT = {"timm_model_name": "test_vit", "image_size": 160}
MEANS = {"mean": [0.5, 0.4, 0.3], "std": [0.5, 0.25, 0.2], "interpolation": "bilinear"}
CUTS: Where = {
    **transformer_cuts("visual.ln_pre", "visual.transformer.resblocks", 2, "visual.ln_post"),
    "head.1": ("visual", "none"),
}
RESNET_CUTS: Where = {
    "stem": ("visual.avgpool", "map"),
    **{f"layer{i}.0": (f"visual.layer{i}.0", "map") for i in range(1, 5)},
    "trunk": ("visual.layer4", "map"),
    "head.1": ("visual", "none"),
}


def network(vision: dict, *, quick_gelu: bool = False, custom: bool = False) -> nn.Module:
    kind = CustomTextCLIP if custom else CLIP
    return randomised(kind(24, vision, TEXT, quick_gelu=quick_gelu))


def config(vision: dict, *, quick_gelu: bool = False, **preprocessing) -> dict:
    model = {"embed_dim": 24, "vision_cfg": vision, "text_cfg": TEXT}
    model |= {"quick_gelu": True} if quick_gelu else {}
    return {"model_cfg": model, "preprocess_cfg": preprocessing}


def saved(folder: Path, judge: nn.Module, settings: dict | None = None) -> Path:
    """Save a network as OpenCLIP pushes it to a hub: safetensors, its configuration beside."""
    path = folder / "open_clip_model.safetensors"
    state = {key: value.contiguous() for key, value in judge.state_dict().items()}
    save_file(state, path)
    if settings is not None:
        (folder / "open_clip_config.json").write_text(json.dumps(settings))
    return path


@pytest.mark.parametrize("quick_gelu", [False, True])
@pytest.mark.parametrize("wrapper", ["", "module."])
def test_every_cut_of_a_training_checkpoint(quick_gelu, wrapper):
    judge = network(VIT, quick_gelu=quick_gelu)
    state = {wrapper + key: value for key, value in judge.state_dict().items()}
    contents = {"epoch": 3, "name": "run", "state_dict": state, "optimizer": trained(judge)}
    declared = Declared(trunk_act="quick_gelu" if quick_gelu else "gelu", attention_heads=4)
    example = FamilyExample(
        contents, lambda x: hooked(judge, CUTS, x, judge.encode_image), side=32, declared=declared
    )
    assert check_family("open-clip", example) == []


def test_every_cut_of_a_modified_resnet():
    vision = {**RESNET, "head_width": 64}
    judge = network(vision)
    example = FamilyExample(
        dict(judge.state_dict()),
        lambda x: hooked(judge, RESNET_CUTS, x, judge.encode_image),
        side=64,
    )
    assert check_family("open-clip", example) == []


@pytest.mark.parametrize(
    ("vision", "changes", "quick_gelu"),
    [
        ({}, {}, True),
        ({"ls_init_value": 0.1}, {}, False),
        ({"norm_kwargs": {"eps": 1e-2}}, {}, False),
        ({"final_ln_after_pool": True}, {"trunk": ("visual.ln_post", "none")}, True),
        ({"pool_type": "avg"}, {}, False),
        ({"no_ln_pre": True}, {}, False),
        (
            {"pool_type": "avg", "no_ln_pre": True, "final_ln_after_pool": True},
            {"trunk": ("visual.ln_post", "none")},
            False,
        ),
    ],
    ids=["plain", "layer-scale", "eps", "norm-after-token", "mean", "no-ln-pre", "clipa"],
)
def test_the_configuration_beside_the_file_is_believed(tmp_path, vision, changes, quick_gelu):
    vision = VIT | vision
    judge = network(vision, quick_gelu=quick_gelu, custom=True)
    pool = "patches" if vision.get("pool_type") == "avg" else "cls"
    names = ("visual.ln_pre", "visual.transformer.resblocks", 2, "visual.ln_post")
    cuts = transformer_cuts(*names, pool) | changes | {"head.1": ("visual", "none")}
    path = saved(tmp_path, judge, config(vision, quick_gelu=quick_gelu))
    loaded_like(path, judge, cuts, 32, run=judge.encode_image)


def test_a_resnets_head_width_is_the_configurations(tmp_path):
    judge = network(RESNET)
    path = saved(tmp_path, judge, config(RESNET))
    loaded_like(path, judge, RESNET_CUTS, 64, run=judge.encode_image)


def test_the_networks_own_publisher_writes_what_is_read(tmp_path):
    judge = network(VIT, quick_gelu=True)
    judge.visual.image_mean, judge.visual.image_std = (0.5, 0.4, 0.3), (0.5, 0.25, 0.2)
    from open_clip.push_to_hf_hub import save_config_for_hf

    path = saved(tmp_path, judge)
    settings = config(VIT, quick_gelu=True)["model_cfg"]
    save_config_for_hf(judge, tmp_path / "open_clip_config.json", settings)
    model = loaded_like(path, judge, CUTS, 32, run=judge.encode_image)
    assert model.checkpoint.preprocessing.mean == (0.5, 0.4, 0.3)
    assert model.checkpoint.preprocessing.std == (0.5, 0.25, 0.2)
    assert model.checkpoint.preprocessing.resize == 32


TIMM_HEADS = {
    "linear": ({"timm_pool": "", "timm_proj": "linear"}, {"head.1": ("visual.head.proj", "none")}),
    "biased": (
        {"timm_pool": "token", "timm_proj": "linear", "timm_proj_bias": True},
        {"head.1": ("visual.head.proj", "none")},
    ),
    "mlp": (
        {"timm_pool": "", "timm_proj": "mlp"},
        {"head.1": ("visual.head.mlp.act", "none"), "head.2": ("visual.head.mlp", "none")},
    ),
    "classifier": ({"timm_pool": "token", "timm_proj": None}, {"head.1": ("visual.trunk", "none")}),
    "none": ({"timm_pool": "token", "timm_proj": "none"}, {}),
}


def trunk_cuts(pool: str = "cls") -> Where:
    trunk = "visual.trunk."
    return transformer_cuts(f"{trunk}norm_pre", f"{trunk}blocks", 6, f"{trunk}norm", pool)


@pytest.mark.parametrize("kind", TIMM_HEADS)
def test_every_cut_of_a_trunk_of_timm(tmp_path, kind):
    settings, head = TIMM_HEADS[kind]
    vision = TIMM_VIT | settings
    judge = network(vision, custom=True)
    path = saved(tmp_path, judge, config(vision))
    model = loaded_like(path, judge, trunk_cuts() | head, 160, run=judge.encode_image)
    assert any("no projection" in note for note in model.notes) == (kind == "none")


def test_a_trunk_of_timm_whose_pooling_openclip_changed(tmp_path):
    vision = TIMM_VIT | {"timm_pool": "avg"}
    judge = network(vision, custom=True)
    path = saved(tmp_path, judge, config(vision))
    cuts = trunk_cuts("patches") | {"head.1": ("visual.head.proj", "none")}
    loaded_like(path, judge, cuts, 160, run=judge.encode_image)


def test_a_trunk_of_timm_without_configuration():
    vision = TIMM_VIT | {"timm_pool": "token"}
    judge = network(vision, custom=True)
    cuts = trunk_cuts() | {"head.1": ("visual.head.proj", "none")}
    example = FamilyExample(
        {"state_dict": dict(judge.state_dict())},
        lambda x: hooked(judge, cuts, x, judge.encode_image),
        side=160,
        declared=Declared(attention_heads=2),
    )
    assert check_family("open-clip", example) == []


@pytest.mark.parametrize("described", [True, False])
def test_every_cut_of_a_convnext(tmp_path, described):
    vision = {"timm_model_name": "test_convnext", "timm_pool": "", "image_size": 64}
    judge = network(vision, custom=True)
    path = saved(tmp_path, judge, config(vision) if described else None)
    names = [cut.name for cut in load(path).cuts if cut.name.startswith("stages.")]
    blocks = [f"stages.{i}.blocks.{j}" for i, d in enumerate((1, 2, 4, 2)) for j in range(d)]
    assert [name for name in names if ".blocks." in name] == blocks
    cuts = {
        "stem": ("visual.trunk.stem", "map"),
        **{name: (f"visual.trunk.{name}", "map") for name in names},
        "trunk": ("visual.trunk", "none"),
        "head.1": ("visual", "none"),
    }
    loaded_like(path, judge, cuts, 64, run=judge.encode_image)


def test_the_map_pooling_of_siglip(tmp_path):
    pooled = {"timm_pool": "map", "timm_proj": "none"}
    vision = {"timm_model_name": "test_vit3", "image_size": 160, **pooled}
    judge = network(vision, custom=True)
    trunk = "visual.trunk."
    cuts = {
        "embed": (f"{trunk}norm_pre", "patches"),
        **{f"blocks.{i}": (f"{trunk}blocks.{i}", "patches") for i in range(9)},
        "trunk": ("visual.trunk", "none"),
    }
    half = {"mean": [0.5] * 3, "std": [0.5] * 3, "resize_mode": "squash"}
    path = saved(tmp_path, judge, config(vision, **half))
    model = loaded_like(path, judge, cuts, 160, run=judge.encode_image)
    assert model.checkpoint.preprocessing.resize == (160, 160)
    assert model.checkpoint.preprocessing.crop is None


def test_preprocessing_is_the_configurations(tmp_path):
    judge = network(VIT)
    preprocessing = load(saved(tmp_path, judge, config(VIT, **MEANS))).checkpoint.preprocessing
    assert preprocessing.mean == (0.5, 0.4, 0.3)
    assert preprocessing.std == (0.5, 0.25, 0.2)
    assert preprocessing.interpolation == "bilinear"
    assert (preprocessing.resize, preprocessing.crop) == (32, 32)
    judge = load(saved(tmp_path, judge, config(VIT, mean=0.5, std=0.5, resize_mode="squash")))
    assert judge.checkpoint.preprocessing.mean == (0.5, 0.5, 0.5)
    assert judge.checkpoint.preprocessing.resize == (32, 32)


def test_without_configuration_openais_preprocessing_is_assumed_aloud(tmp_path):
    declared = Declared(trunk_act="gelu", attention_heads=4)
    model = load(saved(tmp_path, network(VIT)), declared)
    assert model.checkpoint.preprocessing.std[0] == 0.26862954
    assert any("OpenAI's preprocessing is assumed" in note for note in model.notes)


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        (Declared(attention_heads=4), "which activation"),
        (Declared(trunk_act="gelu"), "how many attention heads"),
    ],
)
def test_what_no_weight_tells_has_to_be_declared(tmp_path, declared, message):
    path = saved(tmp_path, network(VIT))
    with pytest.raises(CheckpointError, match=message):
        load(path, declared)


@pytest.mark.parametrize(
    ("vision", "message"),
    [
        ({"pool_type": "none"}, "pool_type 'none'"),
        ({"act_kwargs": {"approximate": "tanh"}}, "act_kwargs"),
        ({"norm_kwargs": {"bias": True}}, "norm_kwargs"),
        ({"head_width": "wide"}, "head_width 'wide'"),
        ({"head_width": 0}, "head_width 0"),
        ({"image_size": [32, 64]}, r"images of \[32, 64\] pixels"),
        ({"attentional_pool": True}, "attentional_pool"),
    ],
)
def test_what_is_not_supported_is_refused(tmp_path, vision, message):
    path = saved(tmp_path, network(VIT), config(VIT | vision))
    with pytest.raises(CheckpointError, match=message):
        load(path)


@pytest.mark.parametrize(
    ("preprocessing", "message"),
    [
        ({"resize_mode": "longest"}, "resize_mode 'longest'"),
        ({"mean": [0.5, 0.5]}, "for three channels"),
        ({"std": "white"}, "for three channels"),
        ({"size": "224"}, "images of '224' pixels"),
    ],
)
def test_preprocessing_that_cannot_be_followed_is_refused(tmp_path, preprocessing, message):
    path = saved(tmp_path, network(VIT), config(VIT, **preprocessing))
    with pytest.raises(CheckpointError, match=message):
        load(path)


def test_pooling_that_timm_does_not_have_is_refused(tmp_path):
    vision = TIMM_VIT | {"timm_pool": "rot_attn"}
    path = saved(tmp_path, network(TIMM_VIT, custom=True), config(vision))
    with pytest.raises(CheckpointError, match="timm_pool 'rot_attn' of timm's test_vit"):
        load(path)


def test_a_resnets_images_are_multiples_of_its_stride(tmp_path):
    path = saved(tmp_path, network(RESNET), config(RESNET))
    with pytest.raises(CheckpointError, match="no images of 80 pixels"):
        load(path, Declared(image_size=80))
    model = load(path, Declared(image_size=96))
    assert model.checkpoint.preprocessing.crop == 96
    assert any("interpolated from 2×2 positions" in note for note in model.notes)


def test_parts_that_clips_own_towers_lack_are_refused(tmp_path):
    vision = VIT | {"attentional_pool": True, "attn_pooler_heads": 2, "attn_pooler_queries": 3}
    declared = Declared(trunk_act="gelu", attention_heads=4)
    with pytest.raises(CheckpointError, match="holds attn_pool"):
        load(saved(tmp_path, network(vision)), declared)
    vision = VIT | {"scale_fc": True}
    with pytest.raises(CheckpointError, match=r"mlp\.ln"):
        load(saved(tmp_path, network(vision)), declared)


def test_a_tower_without_ln_pre_needs_its_configuration(tmp_path):
    path = saved(tmp_path, network(VIT | {"no_ln_pre": True}))
    with pytest.raises(CheckpointError, match="pools its patches"):
        load(path, Declared(trunk_act="gelu", attention_heads=4))


@pytest.mark.parametrize("settings", [{}, {"model_cfg": 3}, {"model_cfg": {"vision_cfg": []}}])
def test_a_configuration_of_something_else_is_refused(tmp_path, settings):
    path = saved(tmp_path, network(VIT), settings)
    with pytest.raises(CheckpointError, match="does not describe an image tower"):
        load(path)


def test_attention_heads_are_those_of_every_shipped_configuration():
    from layerscope.models.families.open_clip import _ATTENTION_HEADS

    shipped = [open_clip.get_model_config(name)["vision_cfg"] for name in open_clip.list_models()]
    native = [v for v in shipped if isinstance(v.get("layers"), int)]
    heads = {v["width"]: v["width"] // v.get("head_width", 64) for v in native}
    assert heads.items() <= _ATTENTION_HEADS.items()
    assert all(v.get("pool_type", "tok") == "tok" for v in native if not v.get("no_ln_pre"))
