"""Equal scores among ordered ones, and means over the labels that a statistic is defined for."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

TOGETHER = 1 << 20
"""Scores that are ordered at a time: a statistic of ranks holds some ten tensors of their size."""


def tie_ends(ordered: Tensor) -> tuple[Tensor, Tensor]:
    """Return the first and the last place of the scores that are equal to each.

    Args:
        ordered: (n, ...) ordered along the first axis, either way.

    Returns:
        Two (n, ...) int64.

    Examples:
        >>> [it.tolist() for it in tie_ends(torch.tensor([5.0, 3.0, 3.0, 1.0]))]
        [[0, 1, 1, 3], [0, 2, 2, 3]]
    """
    count = len(ordered)
    places = torch.arange(count).view(-1, *[1] * (ordered.dim() - 1)).expand_as(ordered)
    edge = ordered[1:] != ordered[:-1]
    always = torch.ones_like(ordered[:1], dtype=torch.bool)
    first = torch.where(torch.cat((always, edge)), places, 0).cummax(0).values
    last = torch.where(torch.cat((edge, always)), places, count - 1)
    return first, last.flip(0).cummin(0).values.flip(0)


def mean_over_labels(
    statistic: Callable[[Tensor, Tensor], Tensor], scores: Tensor, relevant: Tensor, known: Tensor
) -> Tensor:
    """Return the (n,) mean over some labels of the rows of a statistic; NaN where there are none.

    Args:
        statistic: Returns (n, m) values of (n, m) scores and labels.
        scores: (n, k).
        relevant: (n, k) 0 or 1.
        known: (k,) bool, the labels that count.
    """
    total = torch.zeros(len(scores), dtype=torch.float64)
    places = known.nonzero()[:, 0]
    if not len(places):
        return total.fill_(torch.nan)
    for some in torch.split(places, max(1, TOGETHER // len(scores))):
        total += statistic(scores[:, some], relevant[:, some]).sum(1)
    return total / len(places)
