"""The jackknife that leaves out blocks: how sure a statistic is that is no mean over rows.

Drawing rows with replacement repeats some, and a repeated row spans no direction of its own: ranks,
log-determinants and distances to neighbours of such a resample are those of fewer rows, far from
the estimate. Leaving out does not repeat. The groups are dealt to g blocks of nearly the same size,
the statistic is computed without each, and its variance is (g − 1)/g Σ (θ₋ᵦ − θ̄)² (Shao and Wu
1989, "A General Theory for Jackknife Variance Estimation", section 2; Kott 2001, "The
Delete-a-Group Jackknife"). With g blocks the standard error itself is uncertain by 1/√(2(g − 1)).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from layerscope.stats.standard_error import number_groups

BLOCKS = 20
"""Enough for one digit and a half of the standard error: 16 %."""


def blocks_of(groups: Tensor, seed: int, blocks: int = BLOCKS) -> Tensor:
    """Deal whole groups to blocks at random.

    Args:
        groups: (n,) int64 that name each row's group.
        seed: Of the dealing: the same groups are dealt alike for every layer.
        blocks: How many, and no more than there are groups.

    Returns:
        (n,) int64 block of each row, from 0.

    Raises:
        EstimatorError: Fewer than two groups.
    """
    place, count = number_groups(groups, "")
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    return order[place] % min(blocks, count)


def standard_error(without: Tensor) -> Tensor:
    """Return the (m,) standard errors of statistics from their values without each block.

    Args:
        without: (g, m) float64, g > 1.

    Examples:
        >>> rows = torch.tensor([1.0, 2.0, 4.0, 9.0])
        >>> without = torch.stack([(rows.sum() - row) / 3 for row in rows])[:, None]
        >>> round(float(standard_error(without) / (rows.std() / 2)), 6)  # that of a mean
        1.0
    """
    blocks = len(without)
    spread = (without - without.mean(0)).square().sum(0)
    return spread.sqrt() * math.sqrt((blocks - 1) / blocks)
