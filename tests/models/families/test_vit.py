"""Bare transformers by timm's names: the backbones that DINO, MoCo v3, DeiT and timm release."""

from functools import partial

import pytest
import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from layerscope.errors import CheckpointError
from layerscope.models.checkpoint import assemble
from layerscope.models.contents import Contents
from layerscope.models.declared import Declared
from layerscope.models.families import families
from layerscope.models.recognition import recognise_family
from layerscope.models.trunks.positions import sine_cosine
from layerscope.testing import FamilyExample, check_family
from tests.models.families.truth import randomised, vit_features


def network(width: int = 192, heads: int = 3, **settings) -> VisionTransformer:
    size = {"img_size": 64, "patch_size": 16, "embed_dim": width, "depth": 2, "num_heads": heads}
    return randomised(VisionTransformer(**(size | {"num_classes": 0} | settings)))


def example(module, contents=None, pooling="cls", **declared) -> FamilyExample:
    def forward(images):
        features = vit_features(module, images, pooling)
        x = features["trunk"] = module.fc_norm(features["trunk"])
        return features | ({"head.1": module.head(x)} if module.num_classes else {})

    state = dict(module.state_dict())
    return FamilyExample(
        state if contents is None else contents(state), forward, declared=Declared(**declared)
    )


def in_model(state: dict) -> dict:
    return {"model": state, "epoch": 1}


def averaged_beside(state: dict) -> dict:
    return {"state_dict": state, "state_dict_ema": {key: value + 1 for key, value in state.items()}}


def parallel(state: dict) -> dict:
    return {"state_dict": {f"module.{key}": value for key, value in state.items()}}


EXAMPLES = {
    "backbone": example(network()),
    "deit": example(network(num_classes=7), in_model),
    "averaged-beside": example(network(num_classes=7), averaged_beside),
    "parallel": example(network(num_classes=7), parallel),
    "fine-tuned-mae": example(network(global_pool="avg", num_classes=7), in_model, "mean"),
    "no-class-token": example(
        network(class_token=False, global_pool="avg", fc_norm=False), pooling="mean"
    ),
    "registers": example(network(reg_tokens=4, init_values=0.1)),
    "declared-heads": example(network(48, 2), attention_heads=2),
    "quick-gelu": example(
        network(
            pre_norm=True,
            act_layer=timm.layers.get_act_layer("quick_gelu"),
            norm_layer=partial(nn.LayerNorm, eps=1e-5),
        ),
        trunk_act="quick_gelu",
    ),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_cut_equals_a_plain_forward(name):
    assert check_family("vit", EXAMPLES[name]) == []


def loaded(module, **declared):
    return assemble(Contents(dict(module.state_dict())), Declared(**declared))


def test_what_was_taken_by_convention_is_said():
    notes = " ".join(loaded(network()).notes)
    assert "3 is the usual number; --declare attention_heads" in notes
    assert "gelu is the usual one; --declare trunk_act" in notes
    assert "a card states others" in notes
    told = " ".join(loaded(network(), attention_heads=6, trunk_act="gelu").notes)
    assert "usual number" not in told
    assert "--declare trunk_act" not in told


@pytest.mark.parametrize(("width", "heads"), [(1152, 16), (1280, 16), (1408, 16), (1664, 16)])
def test_widths_whose_heads_are_not_64_features_wide(width, heads):
    assembly = loaded(network(width, heads, depth=1, mlp_ratio=0.1))
    assert assembly.architecture["attention_heads"] == heads


def refused(module, option: str, **declared) -> None:
    with pytest.raises(CheckpointError) as caught:
        loaded(module, **declared)
    assert option in caught.value.hint


def test_a_width_without_convention_has_to_be_declared():
    refused(network(48, 2), "--declare attention_heads")


def test_widths_on_which_networks_differ_have_to_be_declared():
    bare = {"class_token": False, "global_pool": "avg", "fc_norm": False, "depth": 1}
    refused(network(768, 16, **bare), "--declare attention_heads")
    refused(network(1536, 16, depth=1, mlp_ratio=0.1), "--declare attention_heads")
    assert loaded(network(768, 16, **bare), attention_heads=16)


def test_the_activation_of_clips_structure_has_to_be_declared():
    refused(network(pre_norm=True), "--declare trunk_act")


def test_moco_v3s_positions_tell_its_twelve_narrow_heads():
    module = network(384, 12, depth=1)
    module.pos_embed.data = sine_cosine(4, 384, rows_first=True)[None]
    assert loaded(module).architecture["attention_heads"] == 12
    assert loaded(network(384, 6, depth=1)).architecture["attention_heads"] == 6


def test_a_file_that_names_an_architecture_of_timm_is_left_to_timm():
    module = timm.create_model("vit_tiny_patch16_224", num_classes=0)
    state = dict(module.state_dict())
    assert recognise_family(Contents({"state_dict": state}))[0] == "vit"
    assert (
        recognise_family(Contents({"state_dict": state, "arch": "vit_tiny_patch16_224"}))[0]
        == "timm"
    )
    assert recognise_family(Contents({"state_dict": state, "arch": "vit_of_mine"}))[0] == "vit"


def test_other_peoples_tensors_are_not_a_plain_transformers():
    state = dict(network(num_classes=7).state_dict())
    family = families["vit"]
    assert family.recognise(Contents(state))
    for name in ("mask_token", "head.0.weight", "blocks.0.attn.relative_position_bias_table"):
        assert not family.recognise(Contents({**state, name: torch.zeros(3)}))
    assert not family.recognise(Contents({}))
