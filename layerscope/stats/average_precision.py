"""Average precision, with each row's influence on it, so that its standard error needs no draws.

With A_i and B_i the number of relevant rows and of all rows whose score is at least that of row i,
AP = (1/P) Σ_i y_i A_i/B_i over the P relevant rows: the sum over thresholds of the precision times
the step in recall, as scikit-learn's ``average_precision_score`` has it. Were row j to weigh 1 + w,
AP would move by w times

    (1/P) [ y_j A_j/B_j − y_j AP + Σ_i y_i 1[s_i ≤ s_j] (y_j/B_i − A_i/B_i²) ],

the row's influence (Hampel 1974, "The influence curve and its role in robust estimation"). Since AP
stays the same when all weights grow alike, the influences sum to zero.
"""

from __future__ import annotations

import torch
from torch import Tensor

from layerscope.stats.ties import mean_over_labels, tie_ends


def average_precision(scores: Tensor, relevant: Tensor) -> Tensor:
    """Return values of which the average precision is the mean over the rows.

    Args:
        scores: (n, ...) higher is more likely to be relevant; every column is a problem of its own.
        relevant: 0 or 1, of that shape or one that is broadcast to it.

    Returns:
        (n, ...) float64: the average precision plus n times each row's influence on it; NaN in a
        column without a relevant row or with a score that is not a number.

    Examples:
        >>> rows = average_precision(torch.tensor([3.0, 2.0, 1.0]), torch.tensor([1, 0, 1]))
        >>> round(float(rows.mean()), 4)
        0.8333
    """
    order = scores.argsort(0, descending=True)
    y = relevant.double().expand_as(scores).gather(0, order)
    first, last = tie_ends(scores.gather(0, order))
    hits, rows = y.cumsum(0).gather(0, last), (last + 1).double()
    precision = hits / rows
    total = y.sum(0)
    value = (y * precision).sum(0) / total
    # Sums over the relevant rows whose score is at most that of a row: from its tie to the end.
    reach = _from_here_on(y / rows).gather(0, first)
    loss = _from_here_on(y * precision / rows).gather(0, first)
    influence = (y * (precision - value + reach) - loss) / total
    values = torch.empty_like(influence).scatter_(0, order, value + len(y) * influence)
    return values.masked_fill_(scores.isnan().any(0), torch.nan)


def mean_average_precision(scores: Tensor, relevant: Tensor) -> Tensor:
    """Return values whose mean is the mean over labels of their average precision.

    Labels that no row has are left out; where no label has any, all values are NaN.

    Args:
        scores: (n, k) higher is more likely.
        relevant: (n, k) 0 or 1.

    Returns:
        (n,) float64.
    """
    return mean_over_labels(average_precision, scores, relevant, relevant.bool().any(0))


def _from_here_on(values: Tensor) -> Tensor:
    return values.flip(0).cumsum(0).flip(0)
