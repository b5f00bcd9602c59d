from __future__ import annotations

import pytest
import torch

from layerscope.stats import bootstrap, multinomial
from layerscope.stats.bootstrap import resample
from layerscope.stats.multinomial import alike, counts


def patterns(rows: int, layers: int) -> torch.Tensor:
    """Right and wrong under layers of growing strength: few distinct rows among many."""
    generator = torch.Generator().manual_seed(0)
    difficulty = torch.rand(rows, 1, generator=generator, dtype=torch.float64)
    return (difficulty > torch.linspace(0.2, 0.8, layers, dtype=torch.float64)).double()


def test_every_resample_draws_as_many_as_there_are():
    drawn = counts(torch.arange(7), 7, range(500), seed=0)
    assert drawn.shape == (500, 7)
    assert bool((drawn.sum(1) == 7).all())
    assert bool((drawn >= 0).all())


def test_counts_have_the_moments_of_a_multinomial():
    # Mean n·p and covariance n·(diag p − p pᵀ), of cells with 1, 2 and 5 of 8 units.
    cells = torch.tensor([0, 1, 1, 2, 2, 2, 2, 2])
    drawn = counts(cells, 3, range(200_000), seed=1)
    share = torch.tensor([1.0, 2.0, 5.0], dtype=torch.float64) / 8
    torch.testing.assert_close(drawn.mean(0), 8 * share, rtol=0, atol=0.01)
    covariance = 8 * (share.diag() - share[:, None] * share)
    torch.testing.assert_close(drawn.T.cov(), covariance, rtol=0, atol=0.015)


def test_draws_of_one_resample_are_independent_of_each_other_and_of_the_next():
    drawn = counts(torch.arange(2), 2, range(100_000), seed=2)[:, 0]
    shares = torch.bincount(drawn.long(), minlength=3) / len(drawn)
    torch.testing.assert_close(shares, torch.tensor([0.25, 0.5, 0.25]), rtol=0, atol=0.006)
    pair = torch.stack((drawn[:-1], drawn[1:]))
    assert abs(float(pair.corrcoef()[0, 1])) < 0.015


def test_an_odd_number_of_units_has_no_favourite():
    drawn = counts(torch.arange(3), 3, range(60_000), seed=3)
    torch.testing.assert_close(drawn.mean(0), torch.ones(3).double(), rtol=0, atol=0.015)


def test_a_resample_is_a_function_of_its_number_and_the_seed(monkeypatch):
    cells = torch.arange(50) % 6
    whole = counts(cells, 6, range(40), seed=4)
    torch.testing.assert_close(counts(cells, 6, range(11, 23), seed=4), whole[11:23])
    monkeypatch.setattr(multinomial, "processors", lambda: [0, 1, 2, 3, 4])
    torch.testing.assert_close(counts(cells, 6, range(40), seed=4), whole)
    assert not torch.equal(counts(cells, 6, range(40), seed=5), whole)


def test_more_threads_than_resamples_are_no_trouble(monkeypatch):
    monkeypatch.setattr(multinomial, "processors", lambda: list(range(8)))
    assert counts(torch.arange(4), 4, range(3), seed=0).shape == (3, 4)


def test_rows_that_are_alike_are_found():
    rows = patterns(200, 4)
    kinds, places = alike(rows)
    assert len(kinds) == len(torch.unique(rows, dim=0))
    torch.testing.assert_close(kinds[places], rows)


@pytest.mark.parametrize("size", [1, 4])
def test_drawing_cells_is_drawing_groups(monkeypatch, size):
    # The very same resamples, with and without putting groups that are alike together.
    rows, groups = patterns(400, 6), torch.arange(400) // size
    together = resample(rows, groups, resamples=300)
    monkeypatch.setattr(bootstrap, "ALIKE", 0.0)
    apart = resample(rows, groups, resamples=300)
    torch.testing.assert_close(together.draws, apart.draws)
    torch.testing.assert_close(together.estimate, apart.estimate)


def test_it_agrees_with_a_bootstrap_that_gathers_rows():
    rows = patterns(300, 5)
    generator = torch.Generator().manual_seed(0)
    picked = torch.randint(300, (20_000, 300), generator=generator)
    gathered = torch.stack([rows[draw].mean(0) for draw in picked])
    ours = resample(rows, torch.arange(300), resamples=20_000).draws
    torch.testing.assert_close(ours.mean(0), gathered.mean(0), rtol=0, atol=0.001)
    torch.testing.assert_close(ours.T.cov(), gathered.T.cov(), rtol=0.06, atol=2e-6)


def test_blocks_bound_the_memory_and_change_nothing(monkeypatch):
    rows = patterns(100, 3)
    whole = resample(rows, torch.arange(100), resamples=64).draws
    monkeypatch.setattr(bootstrap, "CHUNK", 10)
    torch.testing.assert_close(resample(rows, torch.arange(100), resamples=64).draws, whole)
