from __future__ import annotations

import pytest
import torch

from layerscope.errors import EstimatorError
from layerscope.stats.jackknife import blocks_of, standard_error
from layerscope.stats.standard_error import standard_errors


def test_groups_are_dealt_whole_and_evenly():
    groups = torch.arange(90) // 3
    blocks = blocks_of(groups, 0, 7)
    assert all(len(blocks[groups == group].unique()) == 1 for group in range(30))
    counts = torch.bincount(blocks[::3])
    assert len(counts) == 7
    assert counts.max() - counts.min() <= 1
    assert not torch.equal(blocks, blocks_of(groups, 1, 7))


def test_there_are_no_more_blocks_than_groups():
    assert sorted(blocks_of(torch.tensor([5, 5, 9, 2]), 0).unique().tolist()) == [0, 1, 2]


def test_one_group_is_no_sample():
    with pytest.raises(EstimatorError, match="at least 2 independent groups"):
        blocks_of(torch.zeros(5, dtype=torch.int64), 0)


def test_leaving_out_rows_one_by_one_is_exact_for_a_mean():
    rows = torch.randn(40, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    without = (rows.sum(0) - rows) / 39
    torch.testing.assert_close(standard_error(without), standard_errors(rows, torch.arange(40)))


def test_blocks_have_the_spread_of_repeated_samples():
    generator = torch.Generator().manual_seed(0)
    samples = torch.randn(400, 200, generator=generator, dtype=torch.float64).exp()
    spread = samples.log().mean(1).exp().std()  # of the geometric mean, from sample to sample
    blocks = blocks_of(torch.arange(200), 0)
    found = []
    for sample in samples[:100]:
        without = [sample[blocks != b].log().mean().exp() for b in range(20)]
        found.append(standard_error(torch.stack(without)[:, None]))
    assert float(torch.cat(found).mean() / spread) == pytest.approx(1, abs=0.1)
