"""Standard errors from halves of the rows, for statistics of rows that share their neighbours.

What a row contributes to a dimension depends on where its neighbours are, and they contribute as
well: neither the spread of the contributions is the standard error, which is larger, nor what
leaving rows out gives, which counts a row once for itself and once more for each row whose
neighbour it is. Two halves of the rows share nothing. A statistic of nearest neighbours varies over
samples of n/2 rows twice as much as over samples of n, so that (a − b)²/4 of the two halves has the
variance of the whole's as its mean; it is averaged over several divisions of whole groups (McCarthy
1969, "Pseudo-replication: Half samples"; Politis and Romano 1994, "Large Sample Confidence Regions
Based on Subsamples under Minimal Assumptions"). With g divisions the standard error itself is
uncertain by 1/√(2g).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from layerscope.stats.standard_error import number_groups

DIVISIONS = 20
"""Enough for one digit and a half of the standard error: 16 %."""


def halves_of(groups: Tensor, seed: int, divisions: int = DIVISIONS) -> Iterator[Tensor]:
    """Yield divisions of the rows into halves by whole groups.

    Args:
        groups: (n,) int64 that name each row's group.
        seed: Of the draw: the same groups are divided alike for every layer.
        divisions: How many.

    Yields:
        (n,) bool, which rows are the first half.

    Raises:
        EstimatorError: Fewer than two groups.
    """
    place, count = number_groups(groups)
    draw = torch.Generator().manual_seed(seed)
    for _ in range(divisions):
        yield (torch.randperm(count, generator=draw) < (count + 1) // 2)[place]


def standard_error_of_halves(halves: Tensor) -> Tensor:
    """Return the (m,) standard errors of statistics of all rows from those of halves.

    Args:
        halves: (g, 2, m) float64, of either half of each division.

    Examples:
        >>> rows = torch.randn(4000, generator=torch.Generator().manual_seed(0))
        >>> known = [rows[it].mean() for half in halves_of(torch.arange(4000), 0, 400)
        ...          for it in (half, ~half)]
        >>> found = standard_error_of_halves(torch.stack(known).view(400, 2, 1))
        >>> round(float(found * 4000**0.5 / rows.std()), 1)
        1.0
    """
    return (halves[:, 0] - halves[:, 1]).square().mean(0).sqrt() / 2
