"""No number depends on how many rows are taken at a time, or on the unit of the features."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from layerscope.estimators import class_geometry as class_measures
from layerscope.estimators import coding_rate as rate_measures
from layerscope.estimators import spectral
from layerscope.estimators.naming import make
from layerscope.stats import (
    cka,
    class_geometry,
    coding_rate,
    eigenvalues,
    hypersphere,
    influence,
    intrinsic_dimension,
    moments,
    neighbours,
    partitioned_rate,
)
from layerscope.testing import HeldLayer, planted_layer
from layerscope.types import UNLABELLED
from tests.estimators.test_measures import CASES, TASK, headline, in_memory

THRESHOLDS = (
    (moments, "BLOCK", 7),
    (moments, "PANEL", 5),
    (influence, "BLOCK", 7),
    (spectral, "BLOCK", 7),
    (class_geometry, "BLOCK", 7),
    (class_measures, "BLOCK", 7),
    (neighbours, "BLOCK", 3),
    (intrinsic_dimension, "QUERIES", 7),
    (intrinsic_dimension, "KEYS", 11),
    (intrinsic_dimension, "TOGETHER", 500),
    (hypersphere, "SIDE", 7),
    (partitioned_rate, "BLOCK", 7),
    (partitioned_rate, "HELD", 300),
    (rate_measures, "BLOCK", 7),
    (coding_rate, "SMALL", np.inf),
    (cka, "TILE", 7),
    (cka, "CHUNK", 5),
)
"""Sizes from which something is done in parts, and what they are here."""
SCALES = [2.0**power for power in (-60, -50, -37, -10, 13, 63)]
"""From 9e-19 over 9e-16 and 7e-12 to 9e18; powers of 2, so that not a digit is another."""


def values(name: str, view: HeldLayer, task) -> dict[str, tuple[float, float, float]]:
    return {it.metric: (it.val, it.test, it.stderr) for it in make(name, 0).score(view, [task])}


def planted() -> HeldLayer:
    layer = planted_layer(views=2)
    return replace(layer, targets={**layer.targets, "y": layer.targets["kind"]})


def same(found, expected, rel: float = 1e-9, of_error: float = 1e-4) -> None:
    assert found.keys() == expected.keys()
    for metric, (val, test, error) in expected.items():
        assert found[metric][:2] == pytest.approx((val, test), rel=rel, abs=1e-12), metric
        assert found[metric][2] == pytest.approx(error, rel=of_error, abs=1e-12), metric


@pytest.mark.parametrize(("name", "task"), CASES, ids=lambda it: getattr(it, "name", it))
def test_rows_taken_in_other_parts_give_the_same_numbers(monkeypatch, name: str, task):
    view = planted()
    whole = values(name, view, task)
    for module, threshold, value in THRESHOLDS:
        monkeypatch.setattr(module, threshold, value)
    same(values(name, planted(), task), whole)


@pytest.mark.parametrize("apart", [0.0, np.inf])
def test_the_direction_of_the_mean_apart_or_not_gives_the_same_numbers(monkeypatch, apart: float):
    names, view = ("rankme", "stable-rank", "matrix-entropy"), planted()
    views = [replace(view, rows=view.rows + np.float32(offset)) for offset in (3, 5)]
    usual = [values(name, it, UNLABELLED) for name in names for it in views]
    monkeypatch.setattr(eigenvalues, "APART", apart)
    monkeypatch.setattr(eigenvalues, "STEPS", 100)  # where the mean is not as large it takes more
    found = [values(name, replace(it), UNLABELLED) for name in names for it in views]
    for one, expected in zip(found, usual, strict=True):
        same(one, expected)


SCALE_FREE = [(name, task) for name, task in CASES
              if "scale" in make(name, 0).definition(task).invariances]  # fmt: skip


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize(("name", "task"), SCALE_FREE, ids=lambda it: getattr(it, "name", it))
def test_the_unit_of_the_features_changes_nothing(name: str, task, scale: float):
    view = planted()
    scaled = replace(view, rows=view.rows * np.float32(scale))
    same(values(name, scaled, task), values(name, view, task))


def test_what_depends_on_the_unit_says_so():
    free = {name for name, _ in SCALE_FREE}
    assert {name for name, _ in CASES} - free == {"lidar", "coding-rate(normalisation='none')"}


@pytest.mark.parametrize("scale", SCALES)
def test_layers_are_as_alike_in_any_unit(scale: float):
    rows = torch.from_numpy(planted().rows)
    other = torch.tanh(rows[:, :5])
    usual, scaled = (
        cka.cka([lambda a, b, it=it: it[a:b], lambda a, b: other[a:b]], len(rows))
        for it in (rows, rows * scale)
    )
    torch.testing.assert_close(scaled.biased, usual.biased, rtol=1e-9, atol=0)
    torch.testing.assert_close(scaled.unbiased, usual.unbiased, rtol=1e-9, atol=0)


def test_a_coding_rate_of_features_as_they_are_falls_with_their_squares():
    view = planted()
    name = "coding-rate(normalisation='none')"
    tiny, tinier = (
        headline(name, replace(view, rows=view.rows * np.float32(scale)), UNLABELLED)
        for scale in (2.0**-40, 2.0**-50)
    )
    assert tiny / tinier == pytest.approx(2.0**20, rel=1e-9)
    half = view.rows[view.places("test")].astype(np.float64) * 2.0**-40
    assert tiny == pytest.approx((half**2).sum() / (2 * 0.5 * len(half)) * half.shape[1], rel=1e-9)
    large = headline(name, replace(view, rows=view.rows * np.float32(2.0**63)), UNLABELLED)
    rates = 2 * 12 * 63 * np.log(2) / 2
    assert large == pytest.approx(headline(name, view, UNLABELLED) + rates, rel=1e-2)


# ReLU features with an offset: nearly all of the second moment is in the direction of the mean.


def behind_a_relu(n: int, d: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    mixed = rng.standard_normal((n, d)) @ (rng.standard_normal((d, d)) / d**0.5)
    return (np.maximum(mixed, 0) * np.linspace(1, 0.001, d) + 3).astype(np.float32)


@pytest.mark.parametrize("n", [250, 16_400])
def test_more_rows_lose_no_direction_behind_the_mean(n: int):
    """At 16,400 × 256 products of float32 had found RankMe 3 and rank 40."""
    rows = behind_a_relu(n, 256)
    view = HeldLayer(rows, {}, np.array(["val"] * 100 + ["test"] * (n - 100)), np.arange(n))
    sigma = np.linalg.svd(rows[100:].astype(np.float64), compute_uv=False)
    shares = sigma / sigma.sum() + 1e-7
    assert headline("rankme", view, UNLABELLED) == pytest.approx(
        float(np.exp(-(shares * np.log(shares)).sum())), rel=1e-10
    )
    found = next(iter(make("stable-rank", 0).score(view, [UNLABELLED])))
    assert found.settings["rank"] == min(n - 100, 256)
    assert found.settings["condition"] == pytest.approx(sigma[0] / sigma[-1], rel=1e-6)


def test_the_same_columns_twice_are_the_same_layer():
    rows = behind_a_relu(1500, 200)
    twice = np.concatenate((rows, rows), 1) / np.float32(2)
    # The other half of RankMe's singular values are 0, and ε of the definition is added to each.
    for name, rel in (("rankme", 1e-3), ("effective-rank", 1e-9), ("matrix-entropy", 1e-9)):
        once, doubled = (scores_of(name, it) for it in (rows, twice))
        metric = "matrix-entropy-nats" if "entropy" in name else name
        assert doubled[metric] == pytest.approx(once[metric], rel=rel)


def scores_of(name: str, rows: np.ndarray) -> dict[str, float]:
    return {it.metric: it.test for it in make(name, 0).score(in_memory(rows), [UNLABELLED])}


def test_a_layer_of_tiny_features_has_its_separation():
    """It was 2e-5 at features of 1e-11."""
    view = planted()
    tiny = replace(view, rows=view.rows * np.float32(1e-11))
    usual, found = (headline("class-separation", it, TASK) for it in (view, tiny))
    assert usual > 0.05
    assert found == pytest.approx(usual, rel=1e-5)
