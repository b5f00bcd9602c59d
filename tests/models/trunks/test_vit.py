"""Transformers from shapes alone: every cut equals a forward of timm's own network."""

from functools import partial

import pytest
import timm
import torch
from timm.layers import SwiGLUPacked
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from layerscope.errors import CheckpointError
from layerscope.models.contents import Weights
from layerscope.models.cuts import cut_points, trace
from layerscope.models.loading import fill
from layerscope.models.taps import Taps
from layerscope.models.trunks import TrunkFacts, vit
from layerscope.models.trunks.positions import bicubic, is_sine_cosine, sine_cosine
from tests.models.families.truth import randomised, vit_features

SIDE = 64
TINY = {"img_size": SIDE, "patch_size": 16, "embed_dim": 64, "depth": 3, "num_heads": 2}


def plain(**settings) -> VisionTransformer:
    return randomised(VisionTransformer(**(TINY | {"num_classes": 0} | settings)))


def clip_like(act: type[nn.Module]) -> VisionTransformer:
    return plain(pre_norm=True, act_layer=act, norm_layer=partial(nn.LayerNorm, eps=1e-5))


def created(name: str, **settings) -> nn.Module:
    return randomised(timm.create_model(name, num_classes=0, img_size=SIDE, depth=2, **settings))


def state(network: nn.Module) -> Weights:
    return Weights(network.state_dict())


def captured(trunk, images):
    fill(trunk.module, trunk.weights)
    trunk.module.eval()
    taps = Taps(trunk.module, cut_points(trace(trunk.module, images.shape[-1]), trunk.stops))
    try:
        with torch.no_grad():
            return taps.run(images)
    finally:
        taps.close()


def images(side: int = SIDE) -> torch.Tensor:
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def expected(network, pooling, side: int = SIDE):
    if isinstance(network.fc_norm, nn.Identity):
        return vit_features(network, images(side), pooling)
    features = vit_features(network, images(side), pooling)
    return features | {"trunk": network.fc_norm(features["trunk"])}


def assert_same(found, wanted):
    assert list(found) == list(wanted)
    for name, features in wanted.items():
        torch.testing.assert_close(found[name], features, rtol=1e-5, atol=1e-5)


QK = TrunkFacts(attention_heads=2)
NETWORKS = {
    "vit_tiny": (created("vit_tiny_patch16_224"), TrunkFacts(), "cls"),
    "vit_small": (created("vit_small_patch32_224"), TrunkFacts(), "cls"),
    "deit3": (created("deit3_small_patch16_224"), TrunkFacts(), "cls"),
    "dinov2": (created("vit_small_patch14_dinov2", patch_size=16), TrunkFacts(), "cls"),
    "dinov2-registers": (
        created("vit_small_patch14_reg4_dinov2", patch_size=16),
        TrunkFacts(),
        "cls",
    ),
    "gap-registers": (created("vit_little_patch16_reg4_gap_256"), TrunkFacts(), "mean"),
    "no-class-token": (
        created("vit_base_patch16_siglip_gap_224", embed_dim=192, num_heads=3),
        TrunkFacts(),
        "mean",
    ),
    "clip": (clip_like(nn.GELU), TrunkFacts(attention_heads=2, eps=1e-5), "cls"),
    "clip-quick": (
        clip_like(timm.layers.get_act_layer("quick_gelu")),
        TrunkFacts(attention_heads=2, trunk_act="quick_gelu", eps=1e-5),
        "cls",
    ),
    "qk-norm": (plain(qk_norm=True), TrunkFacts(attention_heads={}), "cls"),
    "fc-norm": (plain(global_pool="avg"), QK, "mean"),
    "no-final-norm": (plain(final_norm=False), QK, "cls"),
    "no-biases": (plain(qkv_bias=False, proj_bias=False), QK, "cls"),
    "linear-blocks": (
        plain(act_layer=nn.Identity),
        TrunkFacts(attention_heads=2, trunk_act="none"),
        "cls",
    ),
    "registers-with-positions": (plain(reg_tokens=2), QK, "cls"),
    # 38 · (53 / 38) is 52.999… in floating point.
    "odd-hidden": (plain(embed_dim=38, mlp_ratio=53.5 / 38), QK, "cls"),
    "gated": (plain(mlp_layer=SwiGLUPacked, act_layer=nn.SiLU, mlp_ratio=2.75), QK, "cls"),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_every_cut_equals_timms_own_forward(name):
    network, known, pooling = NETWORKS[name]
    trunk = vit.build(state(network), known)
    assert_same(captured(trunk, images()), expected(network, pooling))
    assert trunk.image_size == SIDE


def test_the_mean_can_be_asked_for_where_there_is_a_class_token():
    network = plain()
    trunk = vit.build(state(network), TrunkFacts(attention_heads=2, pooling="mean"))
    assert_same(captured(trunk, images()), expected(network, "mean"))


class SwiGLU(nn.Module):
    """Shazeer 2020, equation 6, in two matrices of its own."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.gate, self.value = nn.Linear(width, hidden), nn.Linear(width, hidden)
        self.out = nn.Linear(hidden, width)

    def forward(self, x):
        gate = self.gate(x)
        return self.out(gate * torch.sigmoid(gate) * self.value(x))


def test_a_gated_mlp_is_a_swiglu_whose_first_half_is_the_gate():
    network = plain()
    for block in network.blocks:
        block.mlp = randomised(SwiGLU(64, 40), seed=3)
    tensors = Weights(
        {name: value for name, value in network.state_dict().items() if ".mlp." not in name}
    )
    for number, block in enumerate(network.blocks):
        mlp, prefix = block.mlp, f"blocks.{number}.mlp."
        packed = {
            f"{prefix}fc1.weight": torch.cat([mlp.gate.weight, mlp.value.weight]).detach(),
            f"{prefix}fc1.bias": torch.cat([mlp.gate.bias, mlp.value.bias]).detach(),
            f"{prefix}fc2.weight": mlp.out.weight.detach(),
            f"{prefix}fc2.bias": mlp.out.bias.detach(),
        }
        tensors = tensors.joined(Weights(packed))
    trunk = vit.build(tensors, QK)
    assert_same(captured(trunk, images()), expected(network, "cls"))
    assert trunk.details["activation"] == "swiglu"


@pytest.mark.parametrize("side", [48, 96])
@pytest.mark.parametrize("registers", [0, 4])
def test_positions_move_to_another_grid_as_in_timm(side, registers):
    settings = {"reg_tokens": registers, "no_embed_class": registers > 0}
    network = plain(**settings)
    trunk = vit.build(state(network), TrunkFacts(attention_heads=2, image_size=side))
    assert any("interpolated from 4×4" in note for note in trunk.notes)
    found = captured(trunk, images(side))
    network.set_input_size(side)
    assert_same(found, expected(network, "cls", side))


def test_a_familys_own_interpolation_is_used():
    network = plain()
    known = TrunkFacts(attention_heads=2, image_size=96, resample=bicubic(offset=0.1))
    trunk = vit.build(state(network), known)
    old = network.pos_embed.detach()
    moved = nn.functional.interpolate(
        old[:, 1:].reshape(1, 4, 4, 64).permute(0, 3, 1, 2), scale_factor=6.1 / 4, mode="bicubic"
    )
    wanted = torch.cat([old[:, :1], moved.flatten(2).transpose(1, 2)], dim=1)
    torch.testing.assert_close(trunk.weights["pos_embed"], wanted)
    plainly = nn.functional.interpolate(
        old[:, 1:].reshape(1, 4, 4, 64).permute(0, 3, 1, 2), size=(6, 6), mode="bicubic"
    )
    assert not torch.allclose(moved, plainly)


def test_without_positions_the_size_has_to_be_declared():
    network = plain(pos_embed="none")
    with pytest.raises(CheckpointError, match="no position embedding") as caught:
        vit.build(state(network), QK)
    assert "--declare image_size" in caught.value.hint
    trunk = vit.build(state(network), TrunkFacts(attention_heads=2, image_size=SIDE))
    assert_same(captured(trunk, images()), expected(network, "cls"))


def with_changed(name: str, value: torch.Tensor | None) -> Weights:
    tensors = dict(plain(reg_tokens=4, no_embed_class=True).state_dict())
    tensors.pop(name)
    return Weights(tensors if value is None else tensors | {name: value})


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("patch_embed.proj.weight", torch.ones(64, 1, 16, 16), "1 channels"),
        ("patch_embed.proj.weight", torch.ones(64, 3, 16, 8), "16×8 pixels"),
        ("patch_embed.proj.weight", None, "is missing"),
        ("blocks.0.mlp.fc1.weight", torch.ones(7), r"has shape \(7,\)"),
        ("blocks.0.mlp.fc2.weight", None, "is missing"),
        ("cls_token", torch.ones(7, 7, 7), "tokens have 64 features"),
        ("reg_token", torch.ones(1, 4, 63), "tokens have 64 features"),
        ("pos_embed", torch.ones(1, 15, 64), "no square"),
        ("pos_embed", torch.ones(1, 9, 64), "several squares"),
        ("pos_embed", torch.ones(1, 0, 64), r"has shape \(1, 0, 64\)"),
        ("pos_embed", torch.ones(16, 64), r"has shape \(16, 64\)"),
    ],
)
def test_shapes_of_no_plain_transformer_are_refused(name, value, message):
    with pytest.raises(CheckpointError, match=message):
        vit.build(with_changed(name, value), QK)


def test_a_missing_block_is_named():
    tensors = state(plain()).without("blocks.1.")
    with pytest.raises(CheckpointError, match="lacks block 1 of 3"):
        vit.build(tensors, QK)


def test_a_block_of_a_huge_number_is_no_reason_to_count_so_far():
    tensors = state(plain()).renamed(
        [
            (r"^blocks\.2\.", "blocks.99999999999999."),
        ]
    )
    with pytest.raises(CheckpointError, match="lacks block 2 of 100000000000000"):
        vit.build(tensors, QK)


@pytest.mark.parametrize("heads", [3, -1, 0, {192: 3}])
def test_a_number_of_heads_that_cannot_be_is_refused(heads):
    with pytest.raises(CheckpointError, match="attention heads") as caught:
        vit.build(state(plain()), TrunkFacts(attention_heads=heads))
    assert "--declare attention_heads" in caught.value.hint


def test_the_number_of_heads_that_the_weights_tell_is_not_overruled():
    network = plain(qk_norm=True)
    with pytest.raises(CheckpointError, match="tells 2 attention heads, not 4"):
        vit.build(state(network), TrunkFacts(attention_heads=4))


def test_an_activation_that_nobody_knows_has_to_be_declared():
    with pytest.raises(CheckpointError, match="activation") as caught:
        vit.build(state(plain()), TrunkFacts(attention_heads=2, trunk_act=None))
    assert "--declare trunk_act" in caught.value.hint


def test_a_size_that_patches_do_not_divide_is_refused():
    with pytest.raises(CheckpointError, match="100 pixels") as caught:
        vit.build(state(plain()), TrunkFacts(attention_heads=2, image_size=100))
    assert "--declare image_size=96" in caught.value.hint


@pytest.mark.parametrize("rows_first", [True, False])
def test_the_fixed_table_is_recognised_and_its_transpose_is_not(rows_first):
    table = sine_cosine(4, 64, rows_first=rows_first)[None]
    assert is_sine_cosine(table, rows_first=rows_first)
    assert is_sine_cosine(table.half(), rows_first=rows_first)
    assert not is_sine_cosine(table, rows_first=not rows_first)
    assert not is_sine_cosine(table + 0.01, rows_first=rows_first)
    assert not is_sine_cosine(None, rows_first=rows_first)


def test_the_fixed_table_is_the_published_one():
    table = sine_cosine(3, 8, rows_first=False)
    assert table.shape == (10, 8)
    assert not table[0].any()
    column, row = 2.0, 1.0  # of the patch 1 · 3 + 2
    angles = torch.tensor([column, column / 100, row, row / 100], dtype=torch.float64)
    sines, cosines = angles.sin(), angles.cos()
    wanted = torch.stack(
        [sines[0], sines[1], cosines[0], cosines[1], sines[2], sines[3], cosines[2], cosines[3]]
    )
    torch.testing.assert_close(table[1 + 5], wanted.float())
