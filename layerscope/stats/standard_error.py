"""Standard errors of means over rows that come in groups, without resampling.

The mean of n rows in G groups is a ratio of two sums over groups; its variance is, to first order,
that of the groups' sums of offsets from the mean: the "linearisation" estimator of a ratio (Cochran
1977, "Sampling Techniques", section 2.11), with G/(G − 1) for few groups. It is what the bootstrap
over whole groups tends to, without its noise.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from layerscope.errors import EstimatorError


def standard_errors(rows: Tensor, groups: Tensor) -> Tensor:
    """Return the standard errors of means over rows whose groups alone are independent.

    Args:
        rows: (n, m) values.
        groups: (n,) int64 that name each row's group.

    Returns:
        (m,) float64.

    Raises:
        EstimatorError: Fewer than two groups.

    Examples:
        >>> rows = torch.tensor([[0.0], [1.0], [1.0], [0.0]])
        >>> round(float(standard_errors(rows, torch.arange(4))), 4)
        0.2887
    """
    place, count = number_groups(groups)
    offsets = rows.double() - rows.double().mean(0)
    sums = offsets.new_zeros(count, rows.shape[1]).index_add_(0, place, offsets)
    return sums.square().sum(0).sqrt() * math.sqrt(count / (count - 1)) / len(rows)


def number_groups(groups: Tensor, which: Literal["test ", ""] = "test ") -> tuple[Tensor, int]:
    """Return the (n,) numbers of the rows' groups from 0, and how many groups there are.

    Raises:
        EstimatorError: Fewer than two; ``which`` says of which rows.
    """
    _, place = torch.unique(groups, return_inverse=True)
    count = int(place.max()) + 1 if len(place) else 0
    if count < 2:
        raise EstimatorError(
            f"An interval needs at least 2 independent groups of {which}rows, and there are "
            f"{count}.",
            hint="Put more objects, or more images without a shared object, into the "
            f"{which}split.",
        )
    return place, count
