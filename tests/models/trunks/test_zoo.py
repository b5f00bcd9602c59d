"""Architectures found by names and shapes, and cut where no skip connection crosses."""

import json

import pytest
import timm
import torch
from torch import nn

from layerscope.errors import CheckpointError, UnknownNameError
from layerscope.models.contents import Weights
from layerscope.models.declared import Declared
from layerscope.models.trunks import TrunkFacts, build_trunk, chain, zoo, zoo_index
from layerscope.models.trunks.architectures import (
    Architecture,
    all_names,
    by_name,
    digest,
    forms,
    shapes_of,
    split_classifier,
    versions,
)
from layerscope.models.trunks.likeness import same_features, signature
from tests.models.families.truth import randomised
from tests.models.families.zoo_truth import TOLERANCE, gap


class Crossed(nn.Module):
    """A stem, a block with a skip connection of its own, and one that crosses a layer."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True))
        self.blocks = nn.Sequential(*(Residual() for _ in range(2)))
        self.crossed = nn.Conv2d(4, 4, 1)
        self.after = nn.Conv2d(4, 4, 1)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(4, 2)

    def forward(self, x):
        x = self.blocks(self.stem(x))
        x = self.after(x + self.crossed(x))
        return self.fc(self.pool(x).flatten(1))


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)

    def forward(self, x):
        return x + self.second(self.first(x))


def test_no_layer_is_crossed_and_a_block_is_one():
    with torch.device("meta"):
        network = Crossed()
    traced = chain.trace_shapes(network, 16)
    names = [layer.name for layer in chain.layers(network, traced)]
    assert names == ["stem", "blocks.0", "blocks.1", "after"]
    assert chain.last_affine(network, traced) == "fc"


def test_of_two_halves_of_one_tensor_neither_is_all_of_it():
    class Halves(nn.Module):
        def __init__(self):
            super().__init__()
            self.both, self.left = nn.Conv2d(3, 8, 1), nn.Identity()
            self.join = nn.Conv2d(4, 4, 1)

        def forward(self, x):
            left, right = self.both(x).chunk(2, 1)
            return self.join(self.left(left) * right).mean((2, 3))

    with torch.device("meta"):
        network = Halves()
    traced = chain.trace_shapes(network, 8)
    through = {call: traced.is_bottleneck(vertex) for call, _, vertex in traced.calls}
    assert through == {"both": True, "left": False, "join": True}


def test_a_network_that_returns_several_tensors_is_refused():
    class Two(nn.Module):
        def forward(self, x):
            return x, x

    with pytest.raises(CheckpointError, match="returns a tuple"):
        chain.trace_shapes(Two(), 8)


SAMPLE = [
    Architecture("timm", name)
    for name in ("test_vit", "test_convnext", "test_nfnet", "xcit_nano_12_p16_224")
] + [Architecture("torchvision", name) for name in ("regnet_y_400mf", "squeezenet1_0", "vgg11")]


@pytest.mark.parametrize("architecture", SAMPLE, ids=str)
def test_the_index_has_what_its_script_would_write(architecture):
    index = json.loads(zoo_index.PATH.read_text())
    written = zoo_index.indexed([architecture])
    assert not written["left_out"]
    short = f"{architecture.library}:{architecture.name}"
    for key, names in written["names"].items():
        assert names == [short]
        assert short in index["names"][key]
    known = [list(names) for names in written["classifiers"]]
    assert all(names in index["classifiers"] for names in known)


@pytest.mark.parametrize("library", ["timm", "torchvision"])
def test_the_index_is_of_everything_that_its_library_had(library):
    index = json.loads(zoo_index.PATH.read_text())
    found = {name for names in index["names"].values() for name in names}
    assert index["left_out"] == {}
    if index["versions"][library] == versions()[library]:
        assert {f"{library}:{name}" for name in all_names(library)} <= found
    assert zoo_index.PATH.stat().st_size < 200_000


def test_the_script_writes_what_zoo_reads(tmp_path, monkeypatch):
    monkeypatch.setattr(zoo_index, "PATH", tmp_path / "zoo.json")
    monkeypatch.setattr(zoo_index, "all_names", lambda library: all_names(library)[-1:])
    zoo_index.main()
    written = json.loads(zoo_index.PATH.read_text())
    assert written["versions"] == versions()
    assert sum(map(len, written["names"].values())) >= 2


@pytest.mark.parametrize("name", ["test_convnext", "test_nfnet"])
@pytest.mark.parametrize("bare", [True, False])
def test_a_trunk_without_classifier_is_found(name, bare):
    settings = {"num_classes": 0} if bare else {}
    network = randomised(timm.create_model(name, **settings))
    parts = split_classifier(timm.create_model(name).to("meta"), 160)
    state = {k: v for k, v in network.state_dict().items() if not parts.owns(k)}
    trunk = build_trunk(Weights(state), TrunkFacts(), Declared())
    assert trunk.name == name
    assert trunk.stops[-1].name == "trunk"
    trunk.module.load_state_dict(state)
    images = torch.randn(2, 3, 160, 160)
    network.reset_classifier(0)
    with torch.no_grad():
        assert gap(trunk.module.eval()(images), network.eval()(images)) <= TOLERANCE


def test_an_unknown_state_dict_is_refused_with_what_it_holds():
    with pytest.raises(CheckpointError, match=r"has these 1 tensors.*strange\.weight") as error:
        zoo.build(Weights({"strange.weight": torch.zeros(3, 4)}), Declared())
    assert "--declare arch" in error.value.hint


def test_a_tensor_too_many_is_named():
    state = dict(timm.create_model("test_convnext").state_dict())
    named = Architecture("timm", "test_convnext")
    with pytest.raises(CheckpointError, match=r"projector\.0\.weight has no place"):
        zoo.find_network(
            Weights(state | {"projector.0.weight": torch.zeros(2)}), Declared(), named=named
        )
    del state["stem.0.weight"]
    with pytest.raises(CheckpointError, match=r"lacks stem\.0\.weight"):
        zoo.find_network(Weights(state), Declared(), named=named)


def test_names_are_known_without_their_tags():
    assert by_name("timm", "resnet18.a1_in1k").name == "resnet18"
    with pytest.raises(UnknownNameError):
        by_name("timm", "resnet1800")


def test_module_trees_are_compared_by_what_matters():
    def of(name, **settings):
        return signature(Architecture("timm", name, settings).outline())

    assert of("test_vit") == of("test_vit", drop_path_rate=0.2, proj_drop_rate=0.1)
    assert of("test_vit") != of("test_vit", num_heads=1)
    assert of("test_vit") != of("test_vit", act_layer="relu")
    assert of("test_vit") != of("test_vit", norm_layer="rmsnorm")
    assert of("efficientnet_b0") != of("tf_efficientnet_b0")
    assert of("efficientnet_b0") != of("efficientnet_b0", bn_eps=1e-3)


def test_networks_that_compute_something_else_are_told_by_their_features():
    plain = randomised(timm.create_model("test_vit", num_classes=0))
    same = timm.create_model("test_vit", num_classes=0).eval()
    other = timm.create_model("test_vit", num_classes=0, act_layer="relu").eval()
    for network in (same, other):
        network.load_state_dict(plain.state_dict())
    assert same_features([(plain, ()), (same, ())], 160)
    assert not same_features([(plain, ()), (other, ())], 160)


def test_position_embeddings_of_another_grid_leave_the_digest_alone():
    small, large = (
        shapes_of(Architecture("timm", "test_vit").outline(side=side)) for side in (64, 96)
    )
    assert small != large
    assert digest(small) == digest(large)


def test_a_network_without_classifier_may_be_a_form_of_its_own():
    found = list(forms(Architecture("timm", "vgg11")))
    assert found[0][0] == ("head.fc",)


def cuts_of(name: str) -> tuple[list[str], str]:
    """Return the cuts of an architecture of timm, found without any values, and the notes."""
    architecture = Architecture("timm", name)
    plan, difference = zoo._plan(architecture, shapes_of(architecture.outline()))
    assert plan is not None, difference
    stops, notes = zoo._stops(plan)
    return [stop.name for stop in stops], " ".join(notes)


def test_layers_within_a_trunk_s_own_head_are_told_from_those_behind_the_trunk():
    names, _ = cuts_of("selecsls42")
    assert names[-4:] == ["trunk.head.0", "trunk.head.1", "trunk.head.2", "trunk"]


def test_a_network_whose_layers_are_all_crossed_can_be_cut_at_its_end_alone():
    names, notes = cuts_of("pit_ti_224")
    assert names == ["trunk"]
    assert "only at its end" in notes


def test_a_stage_whose_blocks_are_crossed_is_one_layer():
    names, _ = cuts_of("cs3darknet_s")
    assert names == ["stem", "stages.0", "stages.1", "stages.2", "stages.3", "trunk"]


@pytest.mark.skipif(not timm.is_model("efficientvim_m1"), reason="this timm has no EfficientViM")
def test_classifiers_of_several_widths_cannot_be_joined():
    with pytest.raises(CheckpointError, match="cannot be run without its classifier"):
        cuts_of("efficientvim_m1")


def test_a_class_token_that_joins_late_is_no_patch_before():
    architecture = Architecture("timm", "xcit_nano_12_p16_224")
    plan, _ = zoo._plan(architecture, shapes_of(architecture.outline()))
    tokens = {stop.name: (stop.tokens, stop.pooling) for stop in zoo._stops(plan)[0]}
    assert tokens["blocks.11"] == (0, "mean")
    assert tokens["cls_attn_blocks.0"] == (1, "cls")
