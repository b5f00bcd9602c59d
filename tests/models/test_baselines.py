"""Baselines: mean colours as numpy has them, and networks that know nothing of a training."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from layerscope.errors import CheckpointError, SettingsError, UnknownNameError
from layerscope.models import baseline_of, load, open_taps
from layerscope.models.baselines import same_features
from layerscope.models.declared import Declared
from layerscope.models.initialisation import draw_weights
from layerscope.types import Baseline
from tests.models.families.truth import randomised, small_resnet
from tests.toy_source import NETWORK

HEADS = Declared(attention_heads=2)
PIXELS, FIRST, SECOND = Baseline("pixels"), Baseline("random", 0), Baseline("random", 1)


class Odd(nn.Module):
    """A network with all that a library may bring along: gains, tokens, slopes, fixed filters."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 4, 4)
        self.norm = nn.BatchNorm2d(8)
        self.slope = nn.PReLU(8)
        self.gain = nn.Parameter(torch.ones(8, 1, 1))
        self.token = nn.Parameter(torch.zeros(1, 1, 8))
        self.mix = nn.MultiheadAttention(8, 2, batch_first=True)
        self.out = nn.utils.parametrizations.weight_norm(nn.Linear(8, 5))
        self.register_buffer("filter", torch.full((8,), 0.25))

    def forward(self, images):
        maps = self.slope(self.norm(self.conv(images))) * self.gain
        rows = maps.flatten(2).mT * self.filter
        rows = torch.cat([self.token.expand(len(rows), -1, -1), rows], 1)
        return self.out(self.mix(rows, rows, rows)[0].mean(1))


def windows(images, grid):
    """Mean colours by loops: a field's window is from its floor to its ceiling."""
    _, _, height, width = images.shape

    def edges(size, place):
        return math.floor(place * size / grid), math.ceil((place + 1) * size / grid)

    means = np.empty((*images.shape[:2], grid, grid))
    for row in range(grid):
        for column in range(grid):
            (top, bottom), (left, right) = edges(height, row), edges(width, column)
            means[:, :, row, column] = images[:, :, top:bottom, left:right].mean((2, 3))
    return means.reshape(len(images), -1)


def saved_vit(path, seed):
    from timm.models.vision_transformer import VisionTransformer

    network = VisionTransformer(
        img_size=32, patch_size=8, embed_dim=64, depth=2, num_heads=2, num_classes=0, init_values=1
    )
    torch.save(randomised(network, seed).state_dict(), path)


def saved_resnet(path, seed):
    network = small_resnet()
    network.to_empty(device="cpu") if any(p.is_meta for p in network.parameters()) else None
    torch.save(randomised(network, seed).state_dict(), path)


@pytest.fixture
def card(tmp_path):
    (tmp_path / "net.toml").write_text(NETWORK)
    return tmp_path / "net.toml"


@pytest.mark.parametrize("size", [(32, 32), (48, 32), (37, 50), (8, 8)])
def test_pixels_are_means_of_the_colours(card, size):
    model = load(f"pixels:{card}")
    images = torch.randn(3, 3, *size)
    with open_taps(model, model.cuts) as taps:
        found = taps.run(images)
    assert [cut.name for cut in model.cuts] == list(found) == ["pixels.4x4", "pixels.16x16"]
    assert [cut.width for cut in model.cuts] == [48, 768]
    for name, grid in (("pixels.4x4", 4), ("pixels.16x16", 16)):
        np.testing.assert_allclose(found[name], windows(images.double().numpy(), grid), atol=1e-6)


def test_pixels_see_what_their_checkpoint_sees_and_have_no_weights(card):
    model = load(card)
    pixels = load(f"pixels:{card}").checkpoint
    assert pixels.preprocessing == model.checkpoint.preprocessing
    assert (pixels.name, pixels.baseline, pixels.baseline_of) == ("net-pixels", "pixels", "net")
    assert (pixels.seed, pixels.weights, pixels.trained) == (None, None, False)


@pytest.mark.parametrize(
    ("save", "declared"), [(saved_vit, HEADS), (saved_resnet, Declared(stem="imagenet"))]
)
def test_random_weights_know_nothing_of_the_trained_ones(tmp_path, save, declared):
    twins = []
    for seed in (1, 2):
        save(tmp_path / "net.pth", seed)
        twins += [load(f"random-{n}:{tmp_path / 'net.pth'}", declared) for n in (0, 1)]
        trained = load(tmp_path / "net.pth", declared).checkpoint
        assert trained.sha256 not in {it.checkpoint.sha256 for it in twins}
    digests = [it.checkpoint.sha256 for it in twins]
    assert digests[0] == digests[2] != digests[1] == digests[3]
    assert twins[0].cuts == load(tmp_path / "net.pth", declared).cuts
    card = twins[1].checkpoint
    assert (card.name, card.seed, card.trained) == ("net-random-1", 1, False)
    assert (card.baseline, card.baseline_of, card.weights) == ("random", "net", None)


def test_every_tensor_of_any_network_is_drawn_anew(tmp_path):
    drawn = []
    for seed in (1, 2):
        network = randomised(Odd(), seed)
        network.filter.fill_(0.25)
        draw_weights(network, 0)
        drawn.append(network)
    first, second = (dict(it.state_dict()) for it in drawn)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert (first["gain"] == 1).all()
    assert (first["slope.weight"] == 0.25).all()
    assert (first["norm.running_var"] == 1).all()
    assert not first["norm.running_mean"].any() and not first["conv.bias"].any()
    assert first["token"].std() < 0.1
    assert (first["filter"] == 0.25).all()  # computed, not trained
    images = torch.randn(4, 3, 16, 16)
    assert drawn[0](images).std(0).min() > 0


def test_layers_keep_the_size_of_what_goes_through_them():
    def conv():  # whose borders are no smaller than the middle
        return nn.Conv2d(64, 64, 3, padding=1, padding_mode="circular")

    layers = [nn.Sequential(conv(), nn.ReLU()) for _ in range(8)]
    network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(8), nn.Flatten(), nn.Linear(4096, 256))
    draw_weights(network, 0)
    with torch.no_grad():
        maps = network[:8](torch.randn(8, 64, 16, 16))
        assert 0.7 < maps.square().mean() < 1.4
        rows = network[8:](maps)
    assert 0.7 < rows.square().mean() / network[8:10](maps).square().mean() < 1.4


def test_the_checkpoints_own_network_is_left_as_it_is(card):
    model = load(card)
    before = {name: tensor.clone() for name, tensor in model.module.state_dict().items()}
    twin = baseline_of(model, FIRST)
    assert all(torch.equal(before[name], it) for name, it in model.module.state_dict().items())
    assert not torch.equal(next(twin.module.parameters()), next(model.module.parameters()))


def test_a_network_that_cannot_be_copied_is_said(card):
    model = load(card)
    head = model.module.head.get_submodule("2.0")
    head.kept = head.weight * 2  # what older hooks on weights leave behind
    with pytest.raises(CheckpointError, match="network of net cannot be copied") as refused:
        baseline_of(model, FIRST)
    assert "random" in refused.value.hint


def test_baselines_are_the_same_where_only_the_weights_differ(tmp_path):
    for seed in (1, 2):
        saved_vit(tmp_path / f"net{seed}.pth", seed)
    one, two = (load(tmp_path / f"net{seed}.pth", HEADS) for seed in (1, 2))
    for baseline in (PIXELS, FIRST):
        assert same_features(one, baseline) == same_features(two, baseline)
    assert same_features(one, FIRST) != same_features(one, SECOND) != same_features(one, PIXELS)
    cropped = replace(one.checkpoint, preprocessing=replace(one.checkpoint.preprocessing, crop=16))
    assert same_features(replace(one, checkpoint=cropped), FIRST) != same_features(two, FIRST)
    assert same_features(replace(one, checkpoint=cropped), PIXELS) != same_features(two, PIXELS)
    other = replace(two.checkpoint, architecture={"activation": "quick_gelu"})
    assert same_features(one, FIRST) != same_features(replace(two, checkpoint=other), FIRST)
    assert same_features(one, PIXELS) == same_features(replace(two, checkpoint=other), PIXELS)


def test_words_name_baselines():
    assert Baseline.parse("pixels, random=2") == (PIXELS, FIRST, SECOND)
    assert [it.seed for it in Baseline.parse("random")] == [0, 1, 2, 3, 4]
    for baseline in (PIXELS, SECOND):
        assert Baseline.split(baseline.of("hf://a/b/c.pth")) == (baseline, "hf://a/b/c.pth")


@pytest.mark.parametrize("words", ["random=0", "random=-1", "random=many", "pixels=3"])
def test_a_number_that_means_nothing_is_refused(words):
    with pytest.raises(SettingsError, match=f"{words!r} does not say how many"):
        Baseline.parse(words)


def test_unknown_and_repeated_words_are_refused():
    with pytest.raises(UnknownNameError, match="no baseline called 'pixel'"):
        Baseline.parse("pixel")
    with pytest.raises(SettingsError, match="name random twice"):
        Baseline.parse("random=3,random=5")
