"""Paired tests of two layers, and Holm's correction for having made several.

McNemar's test looks only at the images on which exactly one of two layers is right. Of n such
images the number b that speak for the first is binomial with probability one half if both are
equally often right. Its p-value is the exact conditional one where n is small, and the mid-p
elsewhere, which counts half the probability of what was observed: the exact one is needlessly
cautious (Fagerland, Lydersen and Laake 2013, "The McNemar test for binary matched-pairs data:
mid-p and asymptotic are better than exact conditional", equations 2 and 3).
"""

from __future__ import annotations

import scipy.stats
import torch
from torch import Tensor

FEW = 25
"""Discordant pairs below which the exact p-value is taken."""


def mcnemar(first: Tensor, second: Tensor) -> float:
    """Return the two-sided p-value of "both are equally often wrong".

    Args:
        first: (n,) 0 where the first layer is right, 1 where it is wrong; rows are independent.
        second: (n,) the same for the second layer on the same rows.
    """
    only_first = int((first > second).sum())
    only_second = int((second > first).sum())
    discordant, fewer = only_first + only_second, min(only_first, only_second)
    if discordant == 0:
        return 1.0
    tail = float(scipy.stats.binom.cdf(fewer, discordant, 0.5))
    if discordant >= FEW:
        tail -= 0.5 * float(scipy.stats.binom.pmf(fewer, discordant, 0.5))
    return min(1.0, 2 * tail)


def holm(p: Tensor) -> Tensor:
    """Return (k,) p-values corrected for k tests, whichever hypotheses are true (Holm 1979).

    Args:
        p: (k,) p-values, one for each test.

    Examples:
        >>> holm(torch.tensor([0.5, 0.125, 0.25])).tolist()
        [0.5, 0.375, 0.5]
    """
    order = p.argsort()
    steps = torch.arange(len(p), 0, -1, dtype=p.dtype)
    raised = (steps * p[order]).cummax(0).values.clamp(max=1)
    return torch.empty_like(p).scatter_(0, order, raised)
