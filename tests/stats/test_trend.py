from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from layerscope.stats.trend import (
    FEWEST,
    Run,
    decline,
    lowest_average,
    moving_average,
    pseudo_residuals,
)
from layerscope.types import Interval

GROUPS = 400


def run_of(losses: np.ndarray, deviation: float = 0.0) -> Run:
    """Layers whose rows err independently, by that deviation of a mean."""
    layers, count = losses.shape
    covariance = deviation**2 * torch.eye(layers * count, dtype=torch.float64)
    shape = (layers, count, layers, count)
    places = tuple(float(i) for i in range(count))
    return Run(torch.from_numpy(losses), covariance.reshape(shape), places, GROUPS)


def judged(truth: np.ndarray, noise: float, rows: float, studies: int, seed: int) -> np.ndarray:
    """Share of alarms, and of intervals that hold the truth, over studies of (k, T) losses."""
    rng = np.random.default_rng(seed)
    average = moving_average(truth.shape[1]).numpy() @ truth.T
    sign = np.array([1.0, -1.0])[: len(truth)]
    found = []
    for study in range(studies):
        moved = truth + noise * rng.standard_normal(truth.shape)
        val, test = moved + rows * rng.standard_normal((2, *truth.shape))
        peaks = [lowest_average(torch.from_numpy(one)) for one in val]
        it = decline(run_of(test, rows), peaks, draws=100, seed=study)
        true = sum(sign[i] * (average[-1, i] - average[peak, i]) for i, peak in enumerate(peaks))
        found.append((it.low > 0, it.low - 1e-12 <= true <= it.high + 1e-12))
    return np.mean(found, axis=0)


def test_the_average_is_that_of_a_loop():
    values = np.random.default_rng(0).standard_normal(23)
    looped = [values[max(0, i - 2) : i + 3].mean() for i in range(23)]
    found = moving_average(23) @ torch.from_numpy(values)
    np.testing.assert_allclose(found, looped, atol=1e-12)


def test_few_snapshots_are_not_averaged():
    assert torch.equal(moving_average(9), torch.eye(9, dtype=torch.float64))


def test_the_first_of_equal_averages_is_lowest_however_they_round():
    assert lowest_average(torch.full((30,), 0.1)) == 0


def test_pseudo_residuals_are_what_neighbours_do_not_interpolate():
    places = np.array([1.0, 2.0, 5.0, 6.0, 10.0, 20.0])
    values = np.random.default_rng(1).standard_normal(6)
    found = pseudo_residuals(places.tolist())
    for i in range(1, 5):
        x, y = places[[i - 1, i + 1]], values[[i - 1, i + 1]]
        share = (places[i] - x[0]) / (x[1] - x[0])
        norm = math.sqrt(1 + share**2 + (1 - share) ** 2)
        expected = (values[i] - np.interp(places[i], x, y)) / norm
        assert float(found[i - 1] @ torch.from_numpy(values)) == pytest.approx(expected)
    np.testing.assert_allclose(found @ torch.from_numpy(3 - 2 * places), 0, atol=1e-12)


def test_the_noise_is_that_of_the_quietest_stretch_less_what_rows_explain():
    losses = 0.01 * np.random.default_rng(2).standard_normal((1, 40))
    losses[0, :8] += np.linspace(2, 0, 8) ** 2
    found = run_of(losses, 0.004).noise([30])
    # Second differences over √6 are pseudo-residuals at equal distances.
    squares = (np.diff(losses[0], 2) ** 2 / 6)[::-1].cumsum() / np.arange(1, 39)
    assert float(found.covariance) == pytest.approx(squares[17:].min() - 0.004**2)
    assert float(found.bound) > squares[-1]
    assert 0.005 < math.sqrt(found.covariance) < 0.015
    # A stretch holds the peak and the four snapshots on its left that its average has.
    early = run_of(losses, 0.004).noise([6])
    assert float(early.covariance) == pytest.approx(squares[35:].min() - 0.004**2)


def test_noise_below_what_rows_explain_is_nought():
    assert float(run_of(np.full((1, 12), 0.3), 0.01).noise([11]).covariance) == 0.0


def test_two_layers_have_the_noise_of_each_and_what_they_share():
    common, own = np.random.default_rng(3).standard_normal((2, 60))
    both = run_of(np.stack([common, common + own]), 0.1).noise([50, 40])
    first, second = np.diff(common, 2), np.diff(common + own, 2)
    products = np.array([[a * b for a in (first, second)] for b in (first, second)]) / 6
    means = products[:, :, ::-1].cumsum(2) / np.arange(1, 59)
    quietest = means[:, :, 28:].trace().argmin()
    # Rows explain 0.01 of each layer, and nothing of what the two share.
    expected = means[:, :, 28 + quietest] - 0.01 * np.eye(2)
    np.testing.assert_allclose(both.covariance, expected, atol=1e-9)


def test_the_last_snapshot_is_not_worse_than_itself():
    losses = np.random.default_rng(4).standard_normal((1, 12))
    assert decline(run_of(losses, 0.1), [11]) == Interval(0.0, 0.0, 0.0)


def test_too_few_snapshots_have_no_interval():
    found = decline(run_of(np.array([[0.3, 0.2, 0.3, 0.5]]), 0.01), [1])
    assert found.estimate == pytest.approx(0.3)
    assert math.isnan(found.low)
    assert FEWEST == 5


def test_a_decline_without_any_noise_is_exact():
    found = decline(run_of(0.3 + np.arange(20.0)[None] / 100), [0])
    # The mean of the last three minus that of the first three.
    assert found.estimate == pytest.approx(0.17)
    assert found.low == pytest.approx(0.17, abs=1e-6)


def test_the_interval_scales_with_the_losses():
    losses = np.random.default_rng(5).standard_normal((1, 15))
    plain, scaled = (decline(run_of(by * losses, by * 0.5), [3], draws=200) for by in (1.0, 1e-3))
    for end in ("estimate", "low", "high"):
        assert getattr(scaled, end) == pytest.approx(1e-3 * getattr(plain, end))


@pytest.mark.parametrize(("noise", "rows"), [(0.01, 0.003), (0.0, 0.01)])
@pytest.mark.parametrize("count", [5, 12, 24])
def test_runs_without_trend_alarm_in_five_percent(count, noise, rows):
    alarms, held = judged(np.full((1, count), 0.3), noise, rows, 80, seed=count)
    # Three standard errors of 80 studies.
    assert alarms <= 0.05 + 0.075
    assert held >= 0.95 - 0.075


@pytest.mark.parametrize("layers", [1, 2])
def test_runs_that_rise_and_stay_alarm_in_five_percent(layers):
    truth = 0.3 + 0.2 * np.exp(-np.arange(20) / 3)
    alarms, held = judged(np.stack([truth] * layers), 0.01, 0.003, 80, seed=layers)
    assert alarms <= 0.05 + 0.075
    assert held >= 0.95 - 0.075


def test_a_slow_decline_of_five_standard_deviations_is_found():
    truth = 0.3 + 0.2 * np.exp(-np.arange(30) / 3)
    truth[15:] += np.linspace(0, 0.05, 15)
    alarms, held = judged(truth[None], 0.01, 0.003, 40, seed=0)
    assert alarms >= 0.9
    assert held >= 0.85
    # Both layers decline alike, which is no difference.
    alarms, _ = judged(np.stack([truth, truth]), 0.01, 0.003, 60, seed=1)
    assert alarms <= 0.05 + 0.085
