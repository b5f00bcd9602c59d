from __future__ import annotations

import math

import pytest
import scipy.stats
import torch

from layerscope.stats.spread import spread_ratio


def pairs(seed: int, count: int = 10, ratio: float = 3.0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    first, other = torch.randn(2, count, generator=generator, dtype=torch.float64)
    return first, ratio * (0.6 * first + 0.8 * other)


def test_the_ends_are_where_pitmans_test_has_the_level_as_its_p_value():
    first, second = pairs(0)
    found = spread_ratio(first, second)
    for end in (found.low, found.high):
        scaled = second / end
        p = scipy.stats.pearsonr((first + scaled).numpy(), (first - scaled).numpy()).pvalue
        assert p == pytest.approx(0.05)


def test_units_and_sides_can_be_exchanged():
    first, second = pairs(1)
    found, turned = spread_ratio(first, second), spread_ratio(second, first)
    assert turned.estimate == pytest.approx(1 / found.estimate)
    assert (turned.low, turned.high) == pytest.approx((1 / found.high, 1 / found.low))
    assert spread_ratio(first + 5, 10 * second).low == pytest.approx(10 * found.low)


def test_the_interval_holds_the_true_ratio():
    found = [spread_ratio(*pairs(study)) for study in range(400)]
    covered = sum(it.low <= 3.0 <= it.high for it in found)
    assert 0.92 <= covered / 400 <= 0.98


def test_three_runs_have_no_interval_and_what_does_not_vary_no_ratio():
    three = spread_ratio(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.0, 4.0, 6.0]))
    assert three.estimate == pytest.approx(2.0)
    assert math.isnan(three.low)
    assert math.isnan(spread_ratio(torch.ones(6), torch.arange(6.0)).estimate)
    flat = spread_ratio(torch.arange(6.0), torch.ones(6))
    assert flat.estimate == 0.0
    assert math.isnan(flat.high)
    assert math.isnan(spread_ratio(torch.ones(1), torch.ones(1)).estimate)
