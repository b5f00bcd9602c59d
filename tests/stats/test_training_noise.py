from __future__ import annotations

import numpy as np
import pytest
import torch

from layerscope.errors import EstimatorError
from layerscope.stats.training_noise import (
    TrainingNoise,
    averaged,
    choices,
    jackknife,
    mean_of_independent,
    spread,
    training_noise,
)

RNG = np.random.default_rng


def noise_of(layers, groups):
    """One source of noise for each layer."""
    return training_noise([(it,) for it in layers], groups)


def test_without_noise_of_the_test_rows_it_is_the_jackknife():
    # Rows that are all alike leave nothing to subtract.
    means = RNG(0).standard_normal((8, 3))
    layers = [jackknife(np.repeat(means[:, [i]], 40, 1)) for i in range(3)]
    found = noise_of(layers, torch.arange(40))
    centred = means - means.mean(0)
    np.testing.assert_allclose(found.raw, 7 / 8 * centred.T @ centred, rtol=1e-12)
    np.testing.assert_allclose(found.covariance, found.raw, atol=1e-12)
    assert found.degrees == pytest.approx(7)


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_the_jackknife_of_a_mean_is_its_variance(share: float):
    rows = RNG(1).standard_normal(80)
    blocks = np.arange(80) % 8
    weights = [np.where(blocks == k, 1 - share, 1.0) for k in range(8)]
    without = np.array([np.average(rows, weights=weight) for weight in weights])
    made = jackknife(np.repeat(without[:, None], 10, 1), share=share)
    found = noise_of([made], torch.arange(10))
    of_blocks = np.array([rows[blocks == k].mean() for k in range(8)])
    assert float(found.covariance) == pytest.approx(of_blocks.var(ddof=1) / 8)


@pytest.mark.parametrize("size", [1, 5])
def test_what_a_few_test_rows_make_of_equal_probes_is_taken_off(size: int):
    # Probes that are equally good, and disagree on rows by chance alone: the true noise is nought.
    raw, corrected = [], []
    groups = torch.arange(40).repeat_interleave(size)
    for study in range(200):
        shared = RNG(study).standard_normal((8, 40)).repeat(size, 1)
        found = noise_of([jackknife(shared)], groups)
        raw.append(float(found.raw))
        corrected.append(float(found.raw) - _taken_off(shared, groups))
        assert float(found.covariance) == pytest.approx(max(corrected[-1], 0.0), abs=1e-12)
    error = np.std(corrected) / np.sqrt(len(corrected))
    assert abs(np.mean(corrected)) < 3 * error
    assert np.mean(raw) > 10 * abs(np.mean(corrected))


def _taken_off(rows: np.ndarray, groups: torch.Tensor) -> float:
    """Variance of each probe's offset over independent groups, by numpy alone."""
    offsets = rows - rows.mean(0)
    by_group = np.stack([offsets[:, groups.numpy() == g].mean(1) for g in range(40)], 1)
    return float(7 / 8 * (by_group.var(1, ddof=1) / 40).sum())


def test_luck_that_layers_share_cancels_in_their_difference():
    shared = RNG(2).standard_normal((8, 1)).repeat(30, 1)
    layers = [jackknife(shared), jackknife(shared + 0.2)]
    noise = noise_of(layers, torch.arange(30))
    gap = noise.of(torch.tensor([[1.0], [-1.0]], dtype=torch.float64))
    assert float(noise.covariance[0, 0]) > 0.1
    assert float(gap.covariance) == pytest.approx(0, abs=1e-12)


def test_the_mean_of_independent_draws_is_surer_by_their_number():
    rows = RNG(3).standard_normal((8, 1)).repeat(30, 1)
    found = noise_of([spread(rows, share=0.0)], torch.arange(30))
    assert float(found.covariance) == pytest.approx(rows[:, 0].var(ddof=1) / 8)
    assert found.degrees == pytest.approx(7)


def test_draws_from_one_pool_share_what_the_pool_is():
    # Means of draws without replacement from a pool, over pools.
    rng, share, pool = RNG(4), 0.5, 40
    estimates, truth = [], []
    for _ in range(2000):
        rows = rng.standard_normal(pool)
        draws = [rng.choice(rows, int(share * pool), replace=False).mean() for _ in range(8)]
        truth.append(np.mean(draws))
        made = spread(np.repeat(np.array(draws)[:, None], 2, 1), share)
        offsets = made.losses[:, 0] - made.losses[:, 0].mean()
        estimates.append(made.factor * (offsets**2).sum())
    assert np.mean(estimates) == pytest.approx(np.var(truth), rel=0.08)


def test_several_fits_of_their_own_blocks_average_their_noise():
    rows = RNG(5).standard_normal((8, 1)).repeat(30, 1)
    one = noise_of([jackknife(rows)], torch.arange(30))
    both = noise_of([averaged([jackknife(rows), jackknife(-rows)])], torch.arange(30))
    assert float(both.covariance) == pytest.approx(float(one.covariance) / 2)
    assert both.degrees == pytest.approx(14)


def test_draws_have_the_covariance_and_are_the_same_for_a_seed():
    root = torch.tensor([[1.0, 0.0], [0.8, 0.6]], dtype=torch.float64)
    noise = TrainingNoise(root @ root.T, root @ root.T, 7.0)
    drawn = noise.draws(40_000, seed=1)
    torch.testing.assert_close(drawn.T @ drawn / len(drawn), root @ root.T, rtol=0.03, atol=0.02)
    assert torch.equal(drawn, noise.draws(40_000, seed=1))


def test_noise_of_tasks_that_share_nothing_averages():
    noise = TrainingNoise.assumed(torch.tensor([2.0]))
    found = mean_of_independent([noise, noise])
    assert found is not None
    assert float(found.covariance) == pytest.approx(2.0)
    assert mean_of_independent([]) is None


def test_a_single_group_of_test_rows_is_refused():
    with pytest.raises(EstimatorError, match="at least 2"):
        noise_of([jackknife(np.zeros((8, 5)))], torch.zeros(5, dtype=torch.int64))


def test_what_other_validation_rows_choose_adds_its_spread():
    rows = RNG(6).standard_normal((8, 1)).repeat(30, 1)
    fits = RNG(7).standard_normal((8, 1)).repeat(30, 1)
    groups = torch.arange(30)
    both = training_noise([(jackknife(rows), choices(fits))], groups)
    parts = [noise_of([it], groups) for it in (jackknife(rows), choices(fits))]
    assert float(parts[1].covariance) == pytest.approx(fits[:, 0].var(ddof=1))
    assert float(both.covariance) == pytest.approx(sum(float(it.covariance) for it in parts))
    assert 7 <= both.degrees <= 14


def test_draws_that_the_same_rows_chose_share_that_choice():
    fits = RNG(8).standard_normal((8, 1)).repeat(30, 1)
    assert averaged([choices(fits), choices(fits)]).factor == choices(fits).factor


def test_layers_that_lack_other_shares_of_the_blocks_have_their_own_variance():
    rows = RNG(9).standard_normal((8, 1)).repeat(30, 1)
    groups = torch.arange(30)
    both = noise_of([jackknife(rows), jackknife(rows, share=0.5)], groups)
    alone = [noise_of([jackknife(rows, share=share)], groups) for share in (1.0, 0.5)]
    torch.testing.assert_close(
        both.covariance.diagonal(), torch.cat([it.covariance[0] for it in alone])
    )
