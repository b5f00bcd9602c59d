"""Probes that are trained step by step: published protocols, and the perceptron."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from layerscope.errors import EstimatorError
from layerscope.estimators import estimators
from layerscope.estimators.mlp import TRAINING, Mlp
from layerscope.estimators.presets import PREFIX, PRESETS
from layerscope.stats.perceptron import PerceptronTraining
from layerscope.types import Task
from tests.estimators.blobs import UNFIT, N, blobs

TASK = Task("y", "memory", "classes", "top-1", "maximise")
LATENT = Task("z", "memory", "latents", "mse", "minimise", encoding="raw")
SMALL = PerceptronTraining(hidden=(32, 32), batch=64, rate=3e-3)
QUICK = ("barlow", "moco", "solo", "swav", "vissl-in1k")


def scores(estimator, view, *tasks: Task):
    return {(it.task, it.metric): it for it in estimator.score(view, tasks or [TASK])}


# Presets.


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_a_preset_says_what_it_is_and_learning_rates_grow_with_the_batch_or_not(name):
    preset = PRESETS[name]
    made = estimators[PREFIX + name]
    assert made(0).name == PREFIX + name
    assert preset.title in made.__doc__
    assert preset.citation
    grown = [2 * rate for rate in preset.rates_for(256)]
    assert (preset.rates_for(512) == grown) == preset.scaled
    assert preset.rates_for(256) == list(preset.rates)
    assert preset.schedule(0.0, preset.epochs) == (0.0 if name == "mae" else 1.0)


@pytest.mark.parametrize("name", QUICK)
def test_a_protocol_learns_separated_classes_and_says_what_it_cannot_repeat(name, view):
    rows, labels = blobs(4, 0.1)
    row = scores(estimators[PREFIX + name](0), view(rows, y=labels))["y", "top-1"]
    assert row.test > 0.95
    assert "augments" in row.note
    assert "cached features cannot repeat" in row.note
    assert row.settings["citation"] == PRESETS[name].citation


def test_the_seed_decides_everything(view):
    data = view(*blobs(3, 1.0)[:1], y=blobs(3, 1.0)[1])
    one, same, other = (
        list(estimators["sgd:vissl-in1k"](seed).score(data, [TASK])) for seed in (0, 0, 1)
    )
    assert one == same
    assert [it.val for it in one] != [it.val for it in other]


def test_of_a_grid_validation_chooses(view):
    rows, labels = blobs(3, 1.0)
    row = scores(estimators["sgd:solo"](0), view(rows, y=labels))["y", "top-1"]
    assert row.settings["rates"] == [0.1, 0.3, 1.0]
    assert row.settings["rate"] in row.settings["rates"]
    assert row.settings["steps"] == 100  # of 300 rows 44 are left out of every epoch


def test_the_rates_of_a_grid_shrink_with_a_smaller_batch(view):
    rows, labels = blobs(3, 1.0)
    chosen = np.r_[:96, 300:N]
    layer = view(rows[chosen], y=labels[chosen])
    row = scores(estimators["sgd:solo"](0), layer)["y", "top-1"]
    batch = row.settings["batch"]
    assert batch < 256
    assert row.settings["rates"] == pytest.approx([it * batch / 256 for it in (0.1, 0.3, 1.0)])


def test_the_grid_of_dinov2_counts_steps_and_not_epochs(view, monkeypatch):
    short = replace(PRESETS["dinov2"], steps=200)
    monkeypatch.setitem(PRESETS, "dinov2", short)
    rows, labels = blobs(3, 0.5)
    row = scores(estimators["sgd:dinov2"](0), view(rows, y=labels))["y", "top-1"]
    assert len(row.settings["rates"]) == 13
    assert row.settings["steps"] == 200
    assert row.settings["batch"] == 300
    assert "Its batch has 1024 rows, of which there are 300" in row.note
    assert row.test > 0.8


def test_rates_that_diverge_are_named_and_fail_the_cell_only_where_none_is_left(view, monkeypatch):
    rows, labels = blobs(3, 1.0)
    for name, rates in (("solo", (0.1, 1e38)), ("moco", (1e38,))):
        monkeypatch.setitem(PRESETS, name, replace(PRESETS[name], rates=rates))
    row = scores(estimators["sgd:solo"](0), view(rows, y=labels))["y", "top-1"]
    assert row.settings["diverged"] == [1e38]
    assert row.settings["rate"] == 0.1
    with pytest.raises(EstimatorError, match=r"sgd:moco diverges on 'stem'") as caught:
        scores(estimators["sgd:moco"](0), view(rows, y=labels))
    assert "use logistic" in caught.value.hint


# The perceptron.


def test_it_is_the_perceptron_of_the_paper():
    assert TRAINING.hidden == (2048, 2048)
    assert estimators["mlp"] is Mlp


def test_few_rows_are_enough_for_it(view):
    rows, labels = blobs(2, 0.1, width=3)
    row = scores(estimators["mlp"](0), view(rows[:60], y=labels[:60]))["y", "top-1"]
    assert row.test == 1.0
    assert row.settings["hidden"] == [2048, 2048]


def test_a_ring_is_learned_that_no_linear_probe_learns(view):
    rows = np.random.default_rng(0).standard_normal((N, 2))
    data = view(rows, y=(np.linalg.norm(rows, axis=1) > 1.2).astype(int))
    row = scores(Mlp(0, SMALL), data)["y", "top-1"]
    assert row.test > 0.9
    assert row.test > scores(estimators["logistic"](0), data)["y", "top-1"].test + 0.2


def test_it_stops_early_and_says_when(view):
    rows, labels = blobs(3, 2.0)
    row = scores(Mlp(0, SMALL), view(rows, y=labels))["y", "top-1"]
    assert row.settings["stopped_early"]
    assert row.settings["epochs"] == row.settings["best_epoch"] + SMALL.patience < SMALL.epochs


def test_the_same_seed_gives_the_same_scores(view):
    rows, labels = blobs(3, 1.0)
    one, same, other = (list(Mlp(s, SMALL).score(view(rows, y=labels), [TASK])) for s in (0, 0, 1))
    assert one == same
    assert [it.val for it in one] != [it.val for it in other]


def test_latents_are_learned_in_their_own_units(view):
    rows = np.random.default_rng(0).standard_normal((N, 2))
    squares = 1000 + 50 * np.square(rows[:, 0])
    data = view(rows, z=squares, y=(rows[:, 0] > 0).astype(int))
    found = scores(Mlp(0, SMALL), data, TASK, LATENT)
    assert found["y", "top-1"].test > 0.9
    assert found["z", "r2"].test > 0.8
    assert (
        found["z", "r2"].test > scores(estimators["ridge"](0), data, LATENT)["z", "r2"].test + 0.5
    )
    assert 1 - found["z", "mse"].test / squares[400:].var() == pytest.approx(found["z", "r2"].test)
    assert found["z", "mse"].settings["best_epoch"] > 0


def test_it_handles_classes_and_latents():
    assert Mlp().handles(TASK)
    assert Mlp().handles(LATENT)
    assert not Mlp().handles(Task("m", "m", "multilabel", "mse", "minimise"))


def test_a_perceptron_that_diverges_fails_its_cell(view):
    rows, labels = blobs(3, 1.0)
    wild = PerceptronTraining(hidden=(8,), rate=1e36, patience=2)
    with pytest.raises(EstimatorError, match="diverged in its first 2 epochs"):
        scores(Mlp(0, wild), view(rows, y=labels))


@pytest.mark.parametrize("made", [lambda: Mlp(0, SMALL), lambda: estimators["sgd:barlow"](0)])
@UNFIT
def test_what_cannot_be_computed_is_refused_before_training(made, change, message, view):
    torch.manual_seed(0)
    rows, labels = change(*blobs(3, 1.0))
    with pytest.raises(EstimatorError, match=message) as caught:
        scores(made(), view(rows, y=labels))
    assert caught.value.hint


@pytest.mark.parametrize("made", [lambda: Mlp(0, SMALL), lambda: estimators["sgd:swav"](0)])
def test_a_class_that_val_and_test_lack_is_fine(made, view):
    rng = np.random.default_rng(0)
    labels = np.arange(N) % 3
    labels[300:] %= 2
    rows = 5 * np.eye(3)[labels] + rng.standard_normal((N, 3))
    assert scores(made(), view(rows, y=labels))["y", "top-1"].test > 0.9
