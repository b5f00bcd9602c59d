from __future__ import annotations

import torch

from layerscope.stats.moments import RunningMoments
from layerscope.stats.spectrum import spectrum, standardiser


def data(n: int, d: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(d, d, generator=generator, dtype=torch.float64)
    return torch.randn(n, d, generator=generator, dtype=torch.float64) @ mixing + 3


def moments(rows: torch.Tensor):
    running = RunningMoments(rows.shape[1])
    running.update(rows)
    return running.compute()


def test_it_rebuilds_the_correlation_matrix():
    rows = data(300, 6)
    result = spectrum(moments(rows))
    rebuilt = result.vectors * result.values @ result.vectors.T
    torch.testing.assert_close(rebuilt, torch.corrcoef(rows.T))
    assert bool((result.values.diff() <= 0).all())
    assert result.rank == 6


def test_rotated_rows_are_uncorrelated_with_the_eigenvalues_as_variances():
    rows = data(300, 6)
    result = spectrum(moments(rows))
    rotated = torch.cov(result.rotate(rows).T, correction=0)
    torch.testing.assert_close(rotated, result.values.diag(), atol=1e-10, rtol=1e-10)


def test_a_constant_feature_becomes_zeros_and_never_nan():
    for constant in (0.0, 0.1, 1e6, -3.3e-9):
        rows = data(5000, 3)
        rows[:, 1] = constant
        for precise in (rows, rows.float()):
            rule = standardiser(moments(precise))
            assert not bool(rule(precise)[:, 1].any())
            assert bool(rule(precise).isfinite().all())


def test_directions_that_do_not_vary_are_left_out():
    rows = data(300, 4)
    doubled = torch.cat((rows, rows[:, :2] * 5 + 1), 1)
    assert spectrum(moments(doubled)).rank == 4


def test_fewer_rows_than_features_leave_at_most_n_minus_one_directions():
    assert spectrum(moments(data(10, 30))).rank == 9


def test_scale_and_offset_of_a_feature_do_not_matter():
    rows = data(300, 4)
    moved = rows * torch.tensor([1.0, 1e-4, 1e5, 3.0]) + torch.tensor([0.0, 1.0, -7.0, 2.0])
    torch.testing.assert_close(spectrum(moments(rows)).values, spectrum(moments(moved)).values)
