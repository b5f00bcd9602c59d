from __future__ import annotations

import pytest
import scipy.stats
import torch

from layerscope.stats.bootstrap import p_values_against, resample
from layerscope.stats.paired import FEW, holm, mcnemar


def pair(first_alone: int, second_alone: int, both: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    """Errors of two layers: on some rows only one is wrong, on some both."""
    first = torch.tensor([1] * first_alone + [0] * second_alone + [1] * both)
    second = torch.tensor([0] * first_alone + [1] * second_alone + [1] * both)
    return first, second


@pytest.mark.parametrize(("one", "other"), [(1, 9), (9, 1), (0, 6), (5, 5), (3, 20)])
def test_of_few_pairs_the_p_value_is_the_exact_binomial_one(one, other):
    expected = scipy.stats.binomtest(one, one + other).pvalue
    assert mcnemar(*pair(one, other)) == pytest.approx(expected)


def test_of_many_pairs_half_of_what_was_observed_counts():
    exact = scipy.stats.binomtest(10, 40).pvalue
    observed = float(scipy.stats.binom.pmf(10, 40, 0.5))
    assert mcnemar(*pair(10, 30)) == pytest.approx(exact - observed)
    assert mcnemar(*pair(20, 20)) <= 1


def test_rows_on_which_both_agree_do_not_matter():
    assert mcnemar(*pair(4, 9, both=0)) == mcnemar(*pair(4, 9, both=500))
    assert mcnemar(*pair(0, 0)) == 1.0


def test_equal_layers_are_rejected_as_often_as_the_level_says():
    draws = scipy.stats.binom(80, 0.5).rvs(2000, random_state=0)
    rejected = [mcnemar(*pair(int(b), 80 - int(b))) <= 0.05 for b in draws]
    assert 0.035 <= sum(rejected) / 2000 <= 0.065
    assert FEW < 80


def test_holm_multiplies_step_by_step_and_never_falls():
    # By hand: 4 × 0.005, 3 × 0.01, 2 × 0.03, 1 × 0.04 raised to 0.06.
    p = torch.tensor([0.01, 0.04, 0.03, 0.005], dtype=torch.float64)
    expected = torch.tensor([0.03, 0.06, 0.06, 0.02], dtype=torch.float64)
    torch.testing.assert_close(holm(p), expected)


def test_holm_of_none_one_and_many_large():
    assert holm(torch.tensor([])).tolist() == []
    assert holm(torch.tensor([0.5])).tolist() == [0.5]
    assert holm(torch.tensor([0.9, 0.8, 0.7])).tolist() == [1.0, 1.0, 1.0]


def test_against_the_chosen_layer_only_worse_ones_are_rejected():
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(400, 4, generator=generator, dtype=torch.float64)
    rows = noise + torch.tensor([0.0, 0.5, 0.0, -0.5])
    p = p_values_against(resample(rows, torch.arange(400), resamples=2000), 0)
    assert float(p[0]) == 1.0
    assert float(p[1]) < 0.01
    assert float(p[2]) > 0.05
    assert float(p[3]) > 0.99
