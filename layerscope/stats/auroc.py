"""The area under the ROC curve, with each row's part in it, so that its variance needs no draws.

The area is the probability that a positive row has a higher score than a negative one, ties
counting half: the Mann-Whitney statistic over their m n pairs (Hanley and McNeil 1982). With V_i
the share of the rows of the other kind on whose right side row i is,

    Var(AUROC) = Σ_positive (V_i − AUROC)² / (m (m − 1)) + Σ_negative (V_i − AUROC)² / (n (n − 1))

(DeLong, DeLong and Clarke-Pearson 1988, "Comparing the areas under two or more correlated receiver
operating characteristic curves", eqs. 4 to 7). The rows' values below have that variance of their
mean, and differences of two scores' values that of the difference of their areas.
"""

from __future__ import annotations

import torch
from torch import Tensor

from layerscope.stats.ties import mean_over_labels, tie_ends


def auroc(scores: Tensor, positive: Tensor) -> Tensor:
    """Return values of which the area under the ROC curve is the mean over the rows.

    Their standard error as of independent rows is DeLong's. One positive row alone does not tell
    how far positive rows spread, so that only the negative ones count in it then.

    Args:
        scores: (n, ...) higher is more likely positive; every column is a problem of its own.
        positive: 0 or 1, of that shape or one that is broadcast to it.

    Returns:
        (n, ...) float64; NaN in a column whose rows are all of one kind, or with a score that is
        not a number.

    Examples:
        >>> rows = auroc(torch.tensor([3.0, 2.0, 2.0, 1.0]), torch.tensor([1, 1, 0, 0]))
        >>> float(rows.mean())
        0.875
    """
    order = scores.argsort(0)
    y = positive.double().expand_as(scores).gather(0, order)
    first, last = tie_ends(scores.gather(0, order))
    of_positive, of_negative = y.sum(0), (1 - y).sum(0)
    below_negative = _at_most(1 - y, first, last) / of_negative
    below_positive = _at_most(y, first, last) / of_positive
    share = torch.where(y > 0, below_negative, 1 - below_positive)
    area = (y * share).sum(0) / of_positive
    weight = torch.where(y > 0, _weight(of_positive, len(y)), _weight(of_negative, len(y)))
    values = torch.empty_like(share).scatter_(0, order, area + weight * (share - area))
    return values.masked_fill_(scores.isnan().any(0), torch.nan)


def mean_auroc(scores: Tensor, positive: Tensor) -> Tensor:
    """Return values whose mean is the mean over labels of their area under the ROC curve.

    Labels that no row or every row has are left out; where none is left, all values are NaN.

    Args:
        scores: (n, k) higher is more likely.
        positive: (n, k) 0 or 1.

    Returns:
        (n,) float64.
    """
    some = positive.bool()
    return mean_over_labels(auroc, scores, positive, some.any(0) & ~some.all(0))


def log_odds(scores: Tensor) -> Tensor:
    """Return the logarithm of p / (1 − p) of every class, p being the softmax of the scores.

    It orders rows as the probability does, but does not round to 1 what is nearly certain.

    Args:
        scores: (..., c) log-probabilities up to a constant of the row.

    Returns:
        (..., c) of the scores' type.
    """
    wide = torch.log_softmax(scores.double(), -1)
    odds = wide - torch.log1p(-wide.exp())
    best, place = wide.max(-1, keepdim=True)
    others = wide.scatter(-1, place, -torch.inf).logsumexp(-1, keepdim=True)
    return odds.scatter(-1, place, best - others).to(scores)


def _at_most(kind: Tensor, first: Tensor, last: Tensor) -> Tensor:
    """Return how many rows of a kind have a lower score than each row, and half of the equal."""
    upto = kind.cumsum(0)
    return (upto.gather(0, last) + (upto - kind).gather(0, first)) / 2


def _weight(kind: Tensor, rows: int) -> Tensor:
    """Return what a row of a kind counts, so that the variance divides by m (m − 1)."""
    unbiased = (kind / (kind - 1) * ((rows - 1) / rows)).sqrt()
    return rows / kind * torch.where(kind > 1, unbiased, 1.0)
