"""The promises of a verdict on a few studies with known truth; the benchmark runs a thousand."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "verdict_coverage.py"


@pytest.fixture(scope="module")
def coverage():
    spec = importlib.util.spec_from_file_location("verdict_coverage", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["verdict_coverage"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules["verdict_coverage"]


@pytest.fixture(scope="module")
def found(coverage):
    return coverage.outcomes(90, resamples=400)


def test_the_studies_have_the_losses_that_they_claim(coverage):
    rng = np.random.default_rng(0)
    means = np.array([0.1, 0.3, 0.45])
    for classes in (True, False):
        rows = coverage.losses(means, 200_000, 4, classes, rng)
        np.testing.assert_allclose(rows.mean(0), means, rtol=0.02)


def test_layers_of_a_study_err_together(coverage):
    rows = coverage.losses(np.full(4, 0.3), 5000, 1, True, np.random.default_rng(0))
    assert np.corrcoef(rows.T).min() > 0.3


def test_the_tied_set_holds_the_best_layer(coverage, found):
    # 60 studies have one: at 95 % seven misses or more have a chance of 3 %, at 80 % of 96 %.
    assert coverage.share(found, "holds_best")[0] >= 0.9
    assert coverage.share(found, "holds_best_holm")[0] >= 0.9


def test_the_tied_set_is_no_list_of_all_layers(coverage, found):
    one_best = [one for one in found if one.shape == "one best"]
    assert coverage.share(one_best, "size")[0] <= 0.6


def test_each_of_equal_layers_is_tied_as_often_as_the_level_says(coverage, found):
    equal = [one for one in found if one.shape == "equal"]
    assert 0.88 <= coverage.share(equal, "size")[0] <= 0.99


def test_equal_layers_have_no_single_winner(coverage, found):
    assert coverage.share(found, "single")[0] <= 0.07


def test_the_gains_interval_covers_the_difference_of_the_layers(coverage, found):
    covered, _, studies = coverage.share(found, "layer_gain")
    assert studies >= 60  # studies whose choice is the trunk do not count
    assert covered >= 0.87
    assert coverage.share(found, "width")[0] <= 0.3


def test_the_best_of_the_reported_split_is_optimistic_and_the_choice_is_not(coverage, found):
    naive, error, _ = coverage.share(found, "naive_bias")
    assert naive < -3 * error
    chosen, error, _ = coverage.share(found, "chosen_bias")
    assert abs(chosen) < 4 * error
