"""Which of two paired quantities varies more from run to run, and by how much.

For pairs (x, y) from a bivariate normal, x + y and x − y are correlated exactly if the variances
differ, which turns a comparison of two spreads into a test of one correlation (Pitman 1939, "A note
on normal correlation", section 2; Morgan 1939). Inverted, it bounds the ratio of the variances:

    σ_y² / σ_x² lies in  w · (K ± √(K² − 1)),   K = 1 + 2 (1 − r²) t² / (n − 2)

with w the ratio of the sample variances, r the sample correlation of x and y, and t the quantile of
Student's t with n − 2 degrees of freedom.
"""

from __future__ import annotations

import math

import scipy.stats
import torch
from torch import Tensor

from layerscope.types import Interval

FEWEST = 4
"""Pairs below which no interval is given."""


def spread_ratio(first: Tensor, second: Tensor, *, level: float = 0.95) -> Interval:
    """Return the standard deviation of the second quantity over that of the first.

    Args:
        first: (n,) values, one for each run.
        second: (n,) values of the same runs.
        level: Coverage of the interval, exact for normal pairs.

    Returns:
        Ends that are no numbers for fewer than :data:`FEWEST` runs; no number at all where the
        first does not vary.
    """
    both = torch.stack((first, second)).double()
    count = both.shape[1]
    deviations = both.std(1) if count > 1 else torch.zeros(2)
    if not float(deviations[0]) > 0:
        return Interval(math.nan, math.nan, math.nan)
    ratio = float(deviations[1] / deviations[0])
    if count < FEWEST or ratio == 0:
        return Interval(ratio, math.nan, math.nan)
    r = float(torch.corrcoef(both)[0, 1])
    t = float(scipy.stats.t.ppf((1 + level) / 2, count - 2))
    k = 1 + 2 * max(1 - r**2, 0.0) * t**2 / (count - 2)
    root = math.sqrt(k**2 - 1)
    return Interval(ratio, ratio / math.sqrt(k + root), ratio * math.sqrt(k + root))
