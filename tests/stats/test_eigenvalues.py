from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from layerscope.errors import EstimatorError
from layerscope.stats.eigenvalues import (
    effective_rank,
    largest_entropy,
    matrix_entropy,
    of_covariance,
    of_second_moment,
    participation_ratio,
    power_law,
    rankme,
    stable_rank,
)
from layerscope.stats.influence import Influence
from layerscope.stats.moments import RunningMoments
from tests.stats.golden import fixture, normal


def moments(rows: torch.Tensor):
    running = RunningMoments(rows.shape[1])
    running.update(rows)
    return running.compute()


def test_the_golden_rows_have_the_values_of_the_fixture():
    rows, _ = fixture()
    found = moments(rows)
    second, covariance = of_second_moment(found), of_covariance(found)
    assert float(rankme(second)) == pytest.approx(9.8158661953, abs=1e-8)
    assert float(effective_rank(covariance.values)) == pytest.approx(6.5745433322, abs=1e-8)
    assert float(stable_rank(covariance.values)) == pytest.approx(3.6834273774, abs=1e-8)
    assert float(participation_ratio(covariance.values)) == pytest.approx(5.1512842222, abs=1e-8)
    assert float(power_law(covariance, 2, 9).alpha) == pytest.approx(2.2188917604, abs=1e-8)


@settings(max_examples=30, deadline=None)
@given(n=st.integers(2, 40), d=st.integers(1, 30), seed=st.integers(0, 999))
def test_eigenvalues_are_squared_singular_values(n, d, seed):
    rows = normal(n, d, seed=seed) + 0.5
    for matrix, found in (
        (rows, of_second_moment(moments(rows))),
        (rows - rows.mean(0), of_covariance(moments(rows))),
    ):
        sigma = np.linalg.svd(matrix.numpy(), compute_uv=False)
        expected = np.zeros(d)
        expected[: len(sigma)] = sigma**2 / n
        np.testing.assert_allclose(found.values.numpy(), expected, rtol=1e-7, atol=1e-9)
    assert found.rank == min(n - 1, d)


@settings(max_examples=30, deadline=None)
@given(n=st.integers(2, 40), d=st.integers(2, 30), seed=st.integers(0, 999))
def test_measures_of_rank_keep_their_order_and_their_bounds(n, d, seed):
    found = of_covariance(moments(normal(n, d, seed=seed) * torch.linspace(0.1, 2, d).double()))
    values, rank = found.values, found.rank
    sizes = [float(f(values)) for f in (stable_rank, participation_ratio, effective_rank)]
    assert sizes == sorted(sizes)
    assert 1 - 1e-9 <= sizes[0] <= sizes[-1] <= rank * (1 + 1e-9)
    assert float(matrix_entropy(found, 2)) <= float(matrix_entropy(found)) + 1e-12
    assert math.exp(float(matrix_entropy(found, 2))) == pytest.approx(sizes[1])


@pytest.mark.parametrize("k", [1, 3, 7])
def test_k_equal_directions_are_k(k):
    rows = torch.zeros(4 * k, 9, dtype=torch.float64)
    for place in range(4 * k):
        rows[place, place % k] = 5.0 * (-1) ** (place // k)
    found = moments(rows)
    second, covariance = of_second_moment(found), of_covariance(found)
    assert second.rank == covariance.rank == k
    assert float(rankme(second)) == pytest.approx(k, rel=1e-4)
    for measure in (effective_rank, participation_ratio, stable_rank):
        assert float(measure(covariance.values)) == pytest.approx(k, rel=1e-12)
    assert float(matrix_entropy(second)) == pytest.approx(math.log(k), abs=1e-12)


def test_nesum_is_the_stable_rank_of_the_centred_matrix():
    rows = normal(50, 8) * torch.linspace(1, 3, 8) + 7
    centred = rows - rows.mean(0)
    direct = centred.norm().square() / torch.linalg.matrix_norm(centred, 2).square()
    assert float(stable_rank(of_covariance(moments(rows)).values)) == pytest.approx(float(direct))
    assert float(stable_rank(of_second_moment(moments(rows)).values)) < float(direct)


def test_a_collapsed_layer_has_rank_one():
    rows = normal(60, 1) @ normal(1, 12, seed=1)
    found = moments(rows)
    assert of_covariance(found).rank == 1
    assert float(rankme(of_second_moment(found))) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.5])
def test_a_planted_power_law_is_found(alpha):
    turn, _ = torch.linalg.qr(normal(200, 100))
    scale = torch.arange(1, 101).double().pow(-alpha / 2)
    rows = torch.cat((turn * scale, -turn * scale))  # centred, with exactly these eigenvalues
    found = power_law(of_covariance(moments(rows)))
    assert (found.first, found.last) == (11, 99)
    assert float(found.alpha) == pytest.approx(alpha, rel=1e-9)
    assert found.r_squared == pytest.approx(1, abs=1e-12)


def test_a_window_ends_with_the_positive_eigenvalues_and_a_short_one_is_refused():
    found = of_covariance(moments(normal(40, 60)))
    assert power_law(found).last == 38
    with pytest.raises(EstimatorError, match="wants 5 positive eigenvalues from place 36 on"):
        power_law(found, first=36)


def test_float32_rows_give_no_eigenvalues_of_rounding():
    rows = (normal(200, 3) @ normal(3, 40, seed=1) + 1000).float()
    assert of_covariance(moments(rows)).rank == 3
    constant = torch.full((30, 4), 0.1)
    assert of_covariance(moments(constant)).rank == 0
    assert of_second_moment(moments(constant)).rank == 1


def test_the_entropy_is_at_most_that_of_all_directions():
    rows = normal(500, 6)
    assert float(matrix_entropy(of_second_moment(moments(rows)))) < largest_entropy(500, 6)
    assert largest_entropy(500, 6) == math.log(6)


MEASURES = {
    "rankme": rankme,
    "effective": lambda found: effective_rank(found.values),
    "participation": lambda found: participation_ratio(found.values),
    "stable": lambda found: stable_rank(found.values),
    "entropy": lambda found: matrix_entropy(found, 2),
    "alpha": lambda found: power_law(found, 0, 9).alpha,
}


@pytest.mark.parametrize("centred", [True, False])
def test_standard_errors_are_the_spread_over_samples(centred):
    of = of_covariance if centred else of_second_moment
    scale = torch.linspace(2, 0.3, 10).double()

    def values(found):
        return torch.stack([measure(found) for measure in MEASURES.values()])

    drawn, errors = [], []
    for seed in range(400):
        rows = torch.repeat_interleave(normal(800, 10, seed=seed) * scale + 0.5, 2, dim=0)
        found = moments(rows)
        drawn.append(values(of(found)))
        if seed < 30:
            groups = torch.arange(1600) // 2
            decomposed = of(found, vectors=True)
            known = Influence.of(decomposed, rows, found.mean, groups, about_zero=not centred)
            errors.append(known.errors(values))
    ratio = torch.stack(errors).mean(0) / torch.stack(drawn).std(0)
    assert ratio.tolist() == pytest.approx([1] * len(MEASURES), abs=0.12)


def test_errors_want_eigenvectors():
    found = of_covariance(moments(normal(10, 3)))
    with pytest.raises(ValueError, match="eigenvectors"):
        Influence.of(found, normal(10, 3), torch.zeros(3), torch.arange(10))
