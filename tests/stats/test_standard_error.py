import math

import pytest
import torch

from layerscope.errors import EstimatorError
from layerscope.stats.bootstrap import resample
from layerscope.stats.standard_error import standard_errors

DRAW = torch.Generator().manual_seed(0)


@pytest.fixture(autouse=True)
def from_the_start(monkeypatch):
    """No test's numbers depend on which others ran before it."""
    monkeypatch.setitem(globals(), "DRAW", torch.Generator().manual_seed(0))


def test_of_rows_alone_it_is_the_textbooks():
    rows = torch.randn(50, 3, generator=DRAW, dtype=torch.float64)
    expected = rows.std(0) / math.sqrt(50)
    torch.testing.assert_close(standard_errors(rows, torch.arange(50)), expected)


def test_copies_within_a_group_say_nothing_new():
    rows = torch.randn(40, 2, generator=DRAW, dtype=torch.float64)
    once = standard_errors(rows, torch.arange(40))
    thrice = standard_errors(rows.repeat_interleave(3, 0), torch.arange(40).repeat_interleave(3))
    torch.testing.assert_close(once, thrice)


def test_it_is_what_the_bootstrap_over_groups_tends_to():
    groups = torch.randint(0, 60, (400,), generator=DRAW)
    effect = torch.randn(60, 2, generator=DRAW, dtype=torch.float64)
    rows = effect[groups] + torch.randn(400, 2, generator=DRAW, dtype=torch.float64)
    drawn = resample(rows, groups, resamples=20_000).standard_error()
    torch.testing.assert_close(standard_errors(rows, groups), drawn, rtol=0.03, atol=0)


def test_a_single_group_has_no_spread():
    with pytest.raises(EstimatorError, match="at least 2 independent groups"):
        standard_errors(torch.ones(4, 1), torch.zeros(4))
