"""Intervals of a mean that is known to lie in a range, by its standard error.

A symmetric interval about a mean near the end of its range reaches beyond it, and has no width
where all rows agree. Two that do neither:

* Of a share in [0, 1]: that of Wilson (1927), "Probable inference, the law of succession, and
  statistical inference", with the effective number of rows p(1 − p)/se² in place of their number
  and Student's t in place of the normal quantile (Korn and Graubard 1998, "Confidence intervals for
  proportions with small expected number of positive counts").
* Of a positive mean: symmetric on the log scale.
"""

from __future__ import annotations

import math

import scipy.stats

from layerscope.types import Interval


def share_interval(
    share: float, error: float, *, rows: int, groups: int, degrees: float, level: float
) -> Interval:
    """Return the interval of a share.

    Args:
        share: The mean, in [0, 1].
        error: Its standard error, groups and all other noise included.
        rows: How many it is a mean over: it is never surer than of so many.
        groups: How many of them are independent, which counts where all rows agree.
        degrees: Of freedom of the standard error.
        level: Coverage.

    Examples:
        >>> share_interval(1.0, 0.0, rows=100, groups=100, degrees=99, level=0.95).low
        0.9621...
    """
    t = float(scipy.stats.t.ppf((1 + level) / 2, degrees))
    share = min(max(share, 0.0), 1.0)
    variance = share * (1 - share)
    count = float(groups)
    if error > 0 and variance > 0:
        count = min(max(variance / error**2, 1.0), rows)
    middle = (share + t**2 / (2 * count)) / (1 + t**2 / count)
    half = t / (1 + t**2 / count) * math.sqrt(variance / count + t**2 / (4 * count**2))
    return Interval(share, max(middle - half, 0.0), min(middle + half, 1.0))


def positive_interval(mean: float, error: float, *, degrees: float, level: float) -> Interval:
    """Return the interval of a mean that cannot be negative.

    Args:
        mean: At least 0; at 0 exactly the interval has no width.
        error: Its standard error.
        degrees: Of freedom of the standard error.
        level: Coverage.
    """
    if mean <= 0:
        return Interval(mean, mean, mean)
    factor = math.exp(float(scipy.stats.t.ppf((1 + level) / 2, degrees)) * error / mean)
    return Interval(mean, mean / factor, mean * factor)
