from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binomtest, norm, t

from layerscope.stats.bounded_interval import positive_interval, share_interval


def of_rows(wrong: int, rows: int):
    share = wrong / rows
    error = math.sqrt(share * (1 - share) / (rows - 1))
    return share_interval(share, error, rows=rows, groups=rows, degrees=rows - 1, level=0.95)


@pytest.mark.parametrize(("wrong", "rows"), [(0, 100), (1, 20), (50, 100), (20, 20)])
def test_of_independent_rows_it_is_wilsons(wrong: int, rows: int):
    share = wrong / rows
    error = math.sqrt(share * (1 - share) / rows)
    found = share_interval(share, error, rows=rows, groups=rows, degrees=math.inf, level=0.95)
    wilson = binomtest(wrong, rows).proportion_ci(0.95, method="wilson")
    assert (found.low, found.high) == pytest.approx((wilson.low, wilson.high))


@pytest.mark.parametrize("rows", [20, 100])
def test_no_error_at_all_is_no_certainty(rows: int):
    found = of_rows(0, rows)
    assert (found.estimate, found.low) == (0.0, 0.0)
    assert 2 / rows < found.high < 6 / rows


@pytest.mark.parametrize("share", [0.002, 0.02, 0.2, 0.5, 0.98])
@pytest.mark.parametrize("rows", [20, 100, 1000])
def test_it_covers_a_share_and_stays_in_its_range(share: float, rows: int):
    drawn, covered = np.random.default_rng(0).binomial(rows, share, 1000), 0
    known = {wrong: of_rows(int(wrong), rows) for wrong in set(drawn.tolist())}
    assert all(0 <= it.low <= it.estimate <= it.high <= 1 for it in known.values())
    covered = sum(known[wrong].low <= share <= known[wrong].high for wrong in drawn.tolist())
    assert covered / 1000 >= 0.93


@pytest.mark.parametrize("share", [0.02, 0.1, 0.5])
def test_it_covers_with_groups_that_agree(share: float):
    rng, covered, groups, size = np.random.default_rng(1), 0, 30, 10
    for _ in range(400):
        shared = rng.standard_normal((groups, 1))
        latent = math.sqrt(0.5) * shared + math.sqrt(0.5) * rng.standard_normal((groups, size))
        by_group = (latent < norm.ppf(share)).mean(1)
        error = float(by_group.std(ddof=1) / math.sqrt(groups))
        found = share_interval(
            float(by_group.mean()),
            error,
            rows=groups * size,
            groups=groups,
            degrees=groups - 1,
            level=0.95,
        )
        covered += found.low <= share <= found.high
    assert covered / 400 >= 0.91


def test_a_positive_mean_has_positive_ends():
    found = positive_interval(1.6, 1.5, degrees=3, level=0.95)
    assert 0 < found.low < 1.6 < found.high
    narrow = positive_interval(1.6, 0.01, degrees=50, level=0.95)
    half = float(t.ppf(0.975, 50)) * 0.01
    assert (narrow.low, narrow.high) == pytest.approx((1.6 - half, 1.6 + half), rel=1e-4)


def test_it_covers_the_mean_of_squares():
    rng, rows = np.random.default_rng(2), 30
    drawn = rng.standard_normal((2000, rows)) ** 2
    errors = drawn.std(1, ddof=1) / math.sqrt(rows)
    found = [
        positive_interval(float(mean), float(error), degrees=rows - 1, level=0.95)
        for mean, error in zip(drawn.mean(1), errors, strict=True)
    ]
    assert np.mean([it.low <= 1 <= it.high for it in found]) >= 0.92


def test_nothing_lost_is_an_interval_without_width():
    found = positive_interval(0.0, 0.0, degrees=9, level=0.95)
    assert (found.low, found.high) == (0.0, 0.0)
