"""Which cut points a comma list chooses, and in which poolings."""

import pytest
import torch
from timm.models.convnext import ConvNeXt
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torchvision.models import resnet18

from layerscope.errors import CheckpointError, UnknownNameError
from layerscope.models import LoadedModel, open_taps, select_cuts
from layerscope.models.cuts import Stop, cut_points, numbered, trace
from layerscope.models.heads import Head, L2Norm, TrunkAndHead
from layerscope.models.trunks.resnet import stops as resnet_stops

SIDE = 64


def loaded(network: nn.Module, stops: list[Stop], side: int = SIDE) -> LoadedModel:
    network.eval()
    calls = tuple(trace(network, side))
    points = cut_points(calls, stops)
    off = {stop.name for stop in stops if not stop.canonical}
    return LoadedModel(
        checkpoint=None,
        module=network,
        cuts=numbered([point for point in points if point.name not in off]),
        more=tuple(point for point in points if point.name in off),
        reason="",
        keys={},
        ignored={},
        calls=calls,
        side=side,
    )


def within(stops):
    return [Stop(s.name, f"trunk.{s.module}", s.part) for s in stops]


@pytest.fixture(scope="module")
def model():
    trunk = resnet18()
    shapes = {key: tuple(value.shape) for key, value in trunk.state_dict().items()}
    trunk.fc = nn.Identity()
    layers = [nn.Sequential(), nn.Sequential()]
    for layer, width in zip(layers, (512, 16), strict=True):
        layer.add_module("linear", nn.Linear(width, 16))
        layer.add_module("act", nn.ReLU(inplace=True))
    head = Head(layers)
    head.add_module("2n", L2Norm())
    predictor = Head([nn.Linear(16, 8), nn.Linear(8, 16)])
    network = TrunkAndHead(trunk, head, None, predictor, {"Q": Head([nn.Linear(16, 30)])})
    stops = [
        *within(resnet_stops(shapes)),
        Stop("head.1", "head.1", "head"),
        Stop("head.2", "head.2", "head"),
        Stop("head.2n", "head.2n", "head", canonical=False),
        Stop("P1", "predictor.1", "head", canonical=False),
        Stop("P2", "predictor.2", "head", canonical=False),
        Stop("Q", "logits.Q.1", "head", canonical=False),
    ]
    return loaded(network, stops)


def names(model, patterns, poolings=None):
    return [cut.name for cut in select_cuts(model, patterns, poolings)]


CANONICAL = ["stem", *(f"layer{s}.{b}" for s in range(1, 5) for b in range(2)), "trunk"]
CANONICAL += ["head.1", "head.2"]


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (None, CANONICAL),
        ("*", CANONICAL),
        ("trunk", ["trunk"]),
        ("head.2, stem", ["stem", "head.2"]),
        ("layer3*", ["layer3.0", "layer3.1"]),
        ("head.*", ["head.1", "head.2"]),
        ("-4:", CANONICAL[-4:]),
        ("2:5", CANONICAL[2:5]),
        (":3", CANONICAL[:3]),
        ("::4", CANONICAL[::4]),
        ("-2:,stem", ["stem", "head.1", "head.2"]),
        ("P1", ["P1"]),
        ("P*", ["P1", "P2"]),
        ("Q,trunk", ["trunk", "Q"]),
        ("head.2n", ["head.2n"]),
        ("layer1.0.relu#2", ["layer1.0.relu#2"]),
        ("trunk.layer1.0.relu#2", ["layer1.0.relu#2"]),
        ("layer3.*.conv2", ["layer3.0.conv2", "layer3.1.conv2"]),
        ("trunk.layer3.*.conv2", ["layer3.0.conv2", "layer3.1.conv2"]),
        ("head.1.linear", ["head.1.linear"]),
        ("head.*.act", ["head.1.act", "head.2.act"]),
        ("trunk.layer2.1", ["layer2.1"]),
        ("predictor.1", ["P1"]),
    ],
)
def test_patterns_choose_in_call_order(model, patterns, expected):
    assert names(model, patterns) == expected


def test_canonical_cuts_keep_their_place_whichever_are_chosen(model):
    chosen = select_cuts(model, "layer2.0,head.*")
    assert chosen == tuple(cut for cut in model.cuts if cut in chosen)
    assert select_cuts(model) == model.cuts


def test_with_others_among_them_all_are_numbered_in_call_order(model):
    inner, block, query = select_cuts(model, "layer1.0.relu,layer1.0,Q")
    # Over 12 canonical cuts and two more: the inner ReLU returns before its block.
    assert [cut.index for cut in (inner, block, query)] == [1, 2, 13]
    assert [cut.depth for cut in (inner, block, query)] == pytest.approx([1 / 13, 2 / 13, 1])
    assert [cut.part for cut in (inner, block, query)] == ["trunk", "trunk", "head"]
    assert [cut.width for cut in (inner, block, query)] == [64, 64, 30]
    (act,) = select_cuts(model, "head.1.act")
    assert (act.part, act.layout, act.pooling, act.width) == ("head", "vector", "none", 16)


@pytest.mark.parametrize(
    ("pattern", "near"),
    [
        ("strem", "stem"),
        ("layr3.0", "layer3.0"),
        ("P3", "P2"),
        ("layer1.0.conv9", "layer1.0.conv2"),
    ],
)
def test_a_miss_names_the_nearest_three(model, pattern, near):
    with pytest.raises(UnknownNameError, match="no layer called") as caught:
        select_cuts(model, f"trunk,{pattern}")
    assert near in caught.value.near
    assert len(caught.value.near) == 3


@pytest.mark.parametrize("pattern", ["5:2", "", "40:"])
def test_what_chooses_nothing_is_a_miss(model, pattern):
    with pytest.raises(UnknownNameError, match="no layer called"):
        select_cuts(model, pattern)


def test_each_cut_is_chosen_once_for_every_pooling_that_fits(model):
    chosen = select_cuts(model, "stem,trunk,head.1", "mean,max,flat:9k")
    assert [(cut.key, cut.width) for cut in chosen] == [
        ("stem@mean", 64),
        ("stem@max", 64),
        ("stem@flat:9k", 64 * 12 * 12),
        ("trunk@mean", 512),  # pooled already: each pooling would be the same
        ("head.1@none", 16),
    ]
    assert {(cut.index, cut.depth) for cut in chosen if cut.name == "stem"} == {(0, 0.0)}


@pytest.mark.parametrize(
    ("patterns", "poolings", "match"),
    [
        (None, "cls", r"'cls' fits none of the chosen cuts: stem to trunk \(maps\), head\.1"),
        (None, "mean,cls", "'cls' fits none"),
        ("head.*", "mean", r"'mean' fits none of the chosen cuts: head\.1, head\.2 \(vectors\)"),
    ],
)
def test_a_pooling_that_fits_nothing_is_refused_with_the_kinds_of_cuts(
    model, patterns, poolings, match
):
    with pytest.raises(CheckpointError, match=match):
        select_cuts(model, patterns, poolings)


def test_an_unknown_pooling_shows_the_known(model):
    with pytest.raises(UnknownNameError, match="no pooling called 'average'"):
        select_cuts(model, None, "average")


# Outputs whose axes are to be told: transformers, ConvNeXt, Swin.


def vit(**options):
    torch.manual_seed(0)
    settings = {"img_size": SIDE, "patch_size": 16, "embed_dim": 48, "depth": 2, "num_heads": 3}
    network = VisionTransformer(**(settings | {"num_classes": 0} | options))
    prefix = network.num_prefix_tokens
    stops = [
        Stop(f"blocks.{i}", f"blocks.{i}", "trunk", tokens=prefix, pooling="cls") for i in range(2)
    ]
    return loaded(network, [*stops, Stop("trunk", "norm", "trunk", tokens=prefix)])


def captured(model, cuts, images):
    with torch.no_grad(), open_taps(model, cuts) as taps:
        return taps.run_poolings(images)


@pytest.mark.parametrize("registers", [0, 4])
def test_points_within_a_transformer_block_have_its_tokens(registers):
    model = vit(reg_tokens=registers)
    network, images = model.module, torch.randn(2, 3, SIDE, SIDE)
    cuts = select_cuts(model, "blocks.0.attn.proj,blocks.1.mlp.act", "mean,cls")
    assert {(cut.layout, cut.prefix_tokens) for cut in cuts} == {("tokens", 1 + registers)}
    found = captured(model, cuts, images)
    with torch.no_grad():
        x = network.norm_pre(network._pos_embed(network.patch_embed(images)))
        attended = network.blocks[0].attn(network.blocks[0].norm1(x))
        x = network.blocks[0](x)
        block = network.blocks[1]
        middle = x + block.attn(block.norm1(x))
        act = block.mlp.act(block.mlp.fc1(block.norm2(middle)))
    first = 1 + registers
    torch.testing.assert_close(found["blocks.0.attn.proj@cls"], attended[:, 0])
    torch.testing.assert_close(found["blocks.0.attn.proj@mean"], attended[:, first:].mean(1))
    torch.testing.assert_close(found["blocks.1.mlp.act@mean"], act[:, first:].mean(1))


def test_patches_before_the_class_token_joins_them_are_all_patches():
    model = vit()
    (cut,) = select_cuts(model, "patch_embed")
    assert (cut.layout, cut.prefix_tokens, cut.pooling) == ("tokens", 0, "mean")
    (conv,) = select_cuts(model, "patch_embed.proj")
    assert (conv.layout, conv.width) == ("map", 48)


def test_queries_and_other_squares_among_tokens_are_no_maps():
    # 16 patches and heads of 16 features: (b, heads, 16, 16) looks like a map and is none.
    model = vit(class_token=False, qk_norm=True, global_pool="avg", no_embed_class=True)
    for pattern in ("blocks.0.attn.q_norm", "blocks.1.attn.*"):
        with pytest.raises(CheckpointError, match="which axes are height and width"):
            select_cuts(model, pattern)


def test_registers_without_a_class_token_have_no_cls():
    network = VisionTransformer(
        img_size=SIDE, patch_size=16, embed_dim=48, depth=1, num_heads=3, num_classes=0,
        class_token=False, reg_tokens=4, global_pool="avg",
    )  # fmt: skip
    stop = Stop("trunk", "norm", "trunk", tokens=4, class_token=False)
    model = loaded(network, [stop])
    with pytest.raises(CheckpointError, match=r"trunk \(tokens without a class token\)"):
        select_cuts(model, None, "cls")
    (inner,) = select_cuts(model, "blocks.0.mlp.fc1")
    assert (inner.prefix_tokens, inner.class_token, inner.pooling) == (4, False, "mean")


def test_a_convnext_block_is_channels_last_within_and_first_without():
    torch.manual_seed(0)
    network = ConvNeXt(depths=(1, 1, 1, 1), dims=(8, 12, 16, 20), num_classes=0)
    stops = [Stop(f"stages.{i}", f"stages.{i}", "trunk") for i in range(2)]
    model = loaded(network, stops)
    inner = select_cuts(model, "stages.1.blocks.0.mlp.fc1,stages.1.blocks.0.conv_dw,stages.1")
    assert [cut.layout for cut in inner] == ["map", "map-last", "map"]
    assert [cut.width for cut in inner] == [12, 48, 12]
    images = torch.randn(2, 3, SIDE, SIDE)
    outputs = {}
    for name in ("fc1", "act"):
        network.stages[1].blocks[0].mlp.get_submodule(name).register_forward_hook(
            lambda _m, _i, output, name=name: outputs.setdefault(name, output.clone())
        )
    found = captured(model, inner, images)
    torch.testing.assert_close(found["stages.1.blocks.0.mlp.fc1@mean"], outputs["fc1"].mean((1, 2)))


def test_swin_windows_are_no_images_and_its_maps_are_channels_last():
    network = SwinTransformer(
        img_size=SIDE, patch_size=4, embed_dim=12, depths=(1, 1), num_heads=(2, 2), window_size=4,
        num_classes=0,
    )  # fmt: skip
    stops = [Stop(f"layers.{i}", f"layers.{i}", "trunk", channels_last=True) for i in range(2)]
    model = loaded(network, stops)
    (norm,) = select_cuts(model, "layers.0.blocks.0.norm1")
    assert (norm.layout, norm.width) == ("map-last", 12)
    with pytest.raises(CheckpointError, match="first axis does not count the images"):
        select_cuts(model, "layers.0.blocks.0.attn.proj")


def test_a_square_that_could_be_either_is_refused():
    class Odd(nn.Module):
        """Takes images of one size only and gives (b, 4, 4, 4)."""

        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 4, 4)
            self.mystery = nn.Hardswish()
            self.flat = nn.Flatten()
            self.last = nn.Linear(64, 5)

        def forward(self, images):
            assert images.shape[3] == 16
            return self.last(self.flat(self.mystery(self.conv(images))))

    model = loaded(Odd(), [Stop("trunk", "last", "trunk")], 16)
    assert select_cuts(model, "conv")[0].layout == "map"
    with pytest.raises(CheckpointError, match="mystery cannot be a cut"):
        select_cuts(model, "mystery")


def test_the_class_token_is_no_pooling_before_it_has_seen_an_image():
    model = vit()
    stops = [
        Stop("embed", "norm_pre", "trunk", tokens=1, pooling="mean", class_token=False),
        Stop("blocks.0", "blocks.0", "trunk", tokens=1, pooling="cls"),
    ]
    model = loaded(model.module, stops)
    chosen = {(cut.name, cut.pooling) for cut in select_cuts(model, None, "cls")}
    assert chosen == {("embed", "mean"), ("blocks.0", "cls")}
