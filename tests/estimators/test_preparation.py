"""What probes do to features first: one size is divided out, and rare features are held."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from layerscope.estimators import estimators
from layerscope.estimators.linear import probe_from
from layerscope.estimators.logistic import fit_probe
from layerscope.estimators.mlp import Mlp
from layerscope.estimators.preparation import Preparation, prepare
from layerscope.estimators.presets import PRESETS
from layerscope.stats.perceptron import PerceptronTraining
from layerscope.testing import HeldLayer
from layerscope.types import SPLITS, Estimator, Measure, Task
from tests.estimators.blobs import blobs

TASK = Task("y", "memory", "classes", "top-1", "maximise")
LATENT = Task("z", "memory", "latents", "mse", "minimise", encoding="raw")


def relu_active_in(rows: int, active: int) -> torch.Tensor:
    feature = torch.zeros(rows)
    feature[:active] = 1 + torch.rand(active)
    return feature


def preparation(rows: torch.Tensor, size: int = 1000) -> Preparation:
    return prepare(lambda: torch.split(rows, size))[0]


def test_a_unit_that_fired_for_a_few_images_is_rare_and_others_are_not():
    torch.manual_seed(0)
    columns = [torch.randn(1000), *(relu_active_in(1000, active) for active in (1, 5, 50, 500))]
    rows = torch.stack(columns, dim=1)
    assert preparation(rows).rare.tolist() == [False, True, True, False, False]


@pytest.mark.parametrize("size", [1e-30, 1e-11, 1.0, 1e19])
def test_size_and_offset_change_nothing_and_a_constant_is_no_concern(size):
    torch.manual_seed(0)
    rows = torch.stack([torch.randn(200), relu_active_in(200, 2), torch.full((200,), 3.0)], dim=1)
    moved = size * (rows * torch.tensor([1e-6, 1e5, 2.0]) - 7e-6)
    assert preparation(moved).rare.tolist() == [False, True, False]


def test_with_few_rows_nothing_but_a_lone_row_is_rare():
    generator = np.random.default_rng(0)
    rows = torch.from_numpy(np.float32(generator.normal(size=(24, 6))))
    rows[:, 5] = 0
    rows[3, 5] = 1.0
    assert preparation(rows).rare.tolist() == [False] * 5 + [True]


def test_rows_within_the_range_of_training_are_untouched_and_others_are_at_its_ends():
    torch.manual_seed(0)
    rows = torch.stack([torch.randn(1000), relu_active_in(1000, 3)], dim=1)
    rule = preparation(rows)
    assert torch.equal(rule(rows), rows)
    new = torch.tensor([[99.0, 1000.0], [-99.0, -1000.0], [99.0, 0.5]])
    top = float(rows[:, 1].max())
    assert rule(new).tolist() == [[99.0, pytest.approx(top)], [-99.0, 0.0], [99.0, 0.5]]


@pytest.mark.parametrize("size", [1, 7, 999])
def test_blocks_of_any_size_tell_the_same(size):
    torch.manual_seed(0)
    rows = 2.0**40 * torch.stack([torch.randn(1000), relu_active_in(1000, 3)], dim=1)
    whole, parts = preparation(rows), preparation(rows, size)
    assert parts.exponent == whole.exponent
    assert torch.equal(parts.low, whole.low)
    assert torch.equal(parts.high, whole.high)


@pytest.mark.parametrize("power", [-126, -60, -11, 0, 11, 63])
def test_a_size_that_is_divided_out_costs_no_digit(power):
    torch.manual_seed(0)
    rows = torch.randn(500, 8)
    rows /= rows.square().mean().sqrt()
    moved = rows * 2.0**power
    rule = preparation(moved)
    assert rule.exponent == power
    if power > -100:  # below, float32 itself has fewer digits
        assert torch.equal(rule(moved), rows)


@pytest.mark.parametrize("root", [2e-3, 0.3, 1.0, 40.0, 900.0])
def test_layers_of_usual_size_are_left_as_they_are(root):
    torch.manual_seed(0)
    assert preparation(root * torch.randn(500, 8)).exponent == 0


# Whatever the size of a layer, its scores are the same.

PROBES = [name for name in sorted(estimators) if not isinstance(estimators[name](0), Measure)]
SIZES = (2.0**-60, 2.0**-37, 2.0**63)


@pytest.fixture
def quick(monkeypatch):
    """Protocols of few steps, and a small perceptron."""
    for name, preset in PRESETS.items():
        monkeypatch.setitem(PRESETS, name, replace(preset, steps=10))

    def make(name: str) -> Estimator:
        if name == "mlp":
            return Mlp(0, PerceptronTraining(hidden=(16,), epochs=3))
        return estimators[name](0)

    return make


def sized(size: float) -> HeldLayer:
    rows, labels = blobs(4, 0.5)
    rows /= np.sqrt(np.square(rows[:300]).mean())
    rows = np.concatenate((rows, np.zeros((len(rows), 1))), 1)
    rows[[5, 350, 450], -1] = 1.0, 2.0, 30.0  # one that is rare
    latents = np.float64(rows[:, :2]).sum(1)
    return HeldLayer.of(np.float32(rows) * np.float32(size), y=labels, z=latents)


@pytest.mark.parametrize("name", PROBES)
def test_every_probe_gives_the_same_scores_at_every_size(name, quick):
    estimator = quick(name)
    tasks = [task for task in (TASK, LATENT) if estimator.handles(task)]
    found = [
        [(it.metric, it.val, it.test, it.stderr) for it in estimator.score(sized(size), tasks)]
        for size in (1.0, *SIZES)
    ]
    assert found[0]
    for others in found[1:]:
        assert others == found[0]


@pytest.mark.parametrize("size", [7.6e-16, 1e-11, 1e19])
@pytest.mark.parametrize("name", ["knn", "lda", "logistic", "ncm", "ridge-classifier"])
def test_separated_classes_are_told_apart_at_every_size(name, size):
    rows, labels = blobs(4, 0.05)
    view = HeldLayer.of(rows * np.float32(size), y=labels)
    scores = {it.metric: it for it in estimators[name](0).score(view, [TASK])}
    assert scores["top-1"].test == 1.0


def test_a_raw_protocol_says_that_a_size_was_divided_out():
    notes = [
        next(iter(estimators["sgd:barlow"](0).score(sized(size), [TASK]))).note
        for size in (1.0, 2.0**-60)
    ]
    assert "divided out" not in notes[0]
    assert "size 2^-60, which is divided out" in notes[1]


# Units that few images fire are kept, and an outlier of them decides nothing.


def layer(rows: np.ndarray, labels: np.ndarray, sizes: tuple[int, ...]) -> HeldLayer:
    splits = np.repeat(np.array(SPLITS), sizes)
    return HeldLayer(np.float32(rows), {"y": labels}, splits, np.arange(len(rows)))


def selective(each: int, units: int, classes: int = 100) -> HeldLayer:
    """64 weak features, and units that fire for one class each, with so many images to a class."""
    rng = np.random.default_rng(0)
    counts = each, 3, 3
    labels = np.concatenate([np.repeat(np.arange(classes), count) for count in counts])
    weak = 0.15 * rng.standard_normal((classes, 64))[labels] + rng.standard_normal(
        (len(labels), 64)
    )
    fired = (1 + rng.random((len(labels), units))) * (labels[:, None] == np.arange(units))
    rows = np.concatenate((weak, fired), 1)
    return layer(rows, labels, tuple(count * classes for count in counts))


def top_1(name: str, view: HeldLayer) -> float:
    return next(it.test for it in estimators[name](0).score(view, [TASK]) if it.primary)


@pytest.mark.parametrize("each", [3, 5, 9, 20])
@pytest.mark.parametrize("name", ["logistic", "ridge-classifier", "ncm"])
def test_units_that_fire_for_one_class_each_are_kept(name, each):
    right = 0.85 if each == 3 else 0.95  # of so few rows the 64 weak features cost something
    assert top_1(name, selective(each, units=20, classes=20)) > right


@pytest.mark.parametrize("name", ["ridge-classifier", "ncm"])
@pytest.mark.parametrize(("each", "rare"), [(3, 100), (5, 100), (9, 100), (20, 0)])
def test_a_hundred_classes_are_told_apart_by_a_hundred_units(name, each, rare):
    (score, *_) = estimators[name](0).score(selective(each, units=100), [TASK])
    assert score.test > 0.95
    assert score.settings["rare_features"] == rare


@pytest.mark.parametrize("units", [10, 40])
def test_of_fewer_units_each_tells_its_own_class(units):
    view = selective(5, units, classes=40)
    (score, *_) = estimators["ridge-classifier"](0).score(view, [TASK])
    right, labels = 1 - score.losses.test, view.target("y", "test")
    assert right[labels < units].mean() > 0.95


@pytest.mark.parametrize("name", ["logistic", "ridge-classifier", "ncm", "knn"])
@pytest.mark.parametrize(("classes", "each"), [(20, 3), (20, 9), (60, 5)])
def test_a_layer_of_one_unit_a_class_is_not_dead(name, classes, each):
    labels = np.concatenate([np.repeat(np.arange(classes), count) for count in (each, 2, 2)])
    view = layer(np.eye(classes)[labels], labels, (each * classes, 2 * classes, 2 * classes))
    assert top_1(name, view) == 1.0


def test_the_long_tail_keeps_its_units():
    rng = np.random.default_rng(0)
    counts = np.array([60] * 4 + [6] * 12)
    labels = np.concatenate([np.repeat(np.arange(16), many) for many in (counts, 3, 8)])
    centres = np.where(np.arange(16)[:, None] < 4, rng.standard_normal((16, 32)), 0)
    weak = centres[labels] + 0.7 * rng.standard_normal((len(labels), 32))
    fired = (1 + rng.random((len(labels), 12))) * (labels[:, None] == np.arange(4, 16))
    view = layer(np.concatenate((weak, fired), 1), labels, (counts.sum(), 48, 128))
    for name in ("logistic", "ridge-classifier"):
        scores = {it.metric: it for it in estimators[name](0).score(view, [TASK])}
        assert scores["mean-per-class"].test > 0.97
        assert scores["mean-per-class"].settings["rare_features"] == 12


def with_lone_units(many: int, harder: float) -> tuple[HeldLayer, HeldLayer]:
    """A layer with ReLUs that fired for one training row each and far harder later, and without."""
    rng = np.random.default_rng(0)
    sizes = 600, 200, 200
    labels = rng.integers(0, 3, sum(sizes))
    rows = rng.standard_normal((3, 16))[labels] + rng.standard_normal((len(labels), 16))
    latents = rows @ rng.standard_normal(16) + rng.standard_normal(len(labels))
    lone = np.zeros((len(labels), many))
    for unit in range(many):
        lone[rng.integers(0, 600), unit] = 1 + rng.random()
        lone[600 + rng.integers(0, 400), unit] = harder
    made = [layer(it, labels, sizes) for it in (np.concatenate((rows, lone), 1), rows)]
    with_units, without = (it.with_targets(z=latents) for it in made)
    return with_units, without


@pytest.mark.parametrize(("many", "harder"), [(1, 100.0), (20, 1e6)])
@pytest.mark.parametrize("name", ["logistic", "ridge-classifier", "ncm", "ridge", "knn"])
def test_a_unit_that_fired_once_decides_no_error(name, many, harder):
    task = LATENT if name == "ridge" else TASK
    noted, plain = (
        {it.metric: it for it in estimators[name](0).score(view, [task])}
        for view in with_lone_units(many, harder)
    )
    score, other = noted[task.metric], plain[task.metric]
    assert score.settings["rare_features"] == many
    assert f"{many} of {16 + many} features vary in few training rows" in score.note
    assert "vary in few" not in other.note
    if name == "ridge":
        assert score.test == pytest.approx(other.test, rel=0.1)
    else:
        assert score.test >= other.test - 0.03


# What is fitted, and kept, is of features as the network gives them.


@pytest.mark.parametrize("size", [1.0, 2.0**-60, 2.0**63])
def test_a_kept_probe_gives_the_same_numbers_of_raw_features(size, tmp_path):
    view = sized(size)
    probe = fit_probe(view, TASK)
    np.savez(tmp_path / "probe.npz", **probe.arrays())
    with np.load(tmp_path / "probe.npz", allow_pickle=False) as stored:
        kept = probe_from(dict(stored))
    assert kept is not None
    test = torch.from_numpy(view.features("test"))
    assert torch.equal(kept.logits(test), probe.logits(test))
    right = kept.predict(test) == view.target("y", "test")
    assert right.mean() == pytest.approx(top_1("logistic", view))
    assert kept.preparation.rare.sum() == 1
    outlier = test.clone()
    outlier[:, -1] = 1e6 * size
    held = test.clone()
    held[:, -1] = float(kept.preparation.high[-1])
    assert torch.equal(kept.logits(outlier), kept.logits(held))


def test_a_probe_of_another_version_is_none():
    arrays = fit_probe(sized(1.0), TASK).arrays()
    assert probe_from({**arrays, "format": np.array("layerscope-probe/1")}) is None
    assert probe_from({name: arrays[name] for name in ("mean", "scale", "weights")}) is None
