"""The group bootstrap: how sure a mean is, and which layers cannot be told from the best.

Rows of one group (the views of one object) are not independent, so whole groups are drawn. A
resample is a vector of multinomial weights over the G groups, and every statistic here is a
function of weighted sums, so that all resamples of all layers are one matrix product. Groups with
the same sums (images that the same layers get right) are counted together.

The spread of resamples is that of a sample of G with divisor G; it is widened by √(G/(G − 1)), and
intervals and tests also by Student's t over the normal quantile: the "expanded percentile" of
Hesterberg (2015), "What Teachers Should Know About the Bootstrap", section 5.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import scipy.stats
import torch
from torch import Tensor

from layerscope.stats.multinomial import alike, counts
from layerscope.stats.standard_error import number_groups

RESAMPLES = 10_000
CHUNK = 1 << 22
"""Weights held at a time."""
ALIKE = 0.75
"""Largest share of distinct groups at which it pays to draw kinds of group instead of groups."""
RESOLUTION = 1e-6
"""Share of the worst layer's mean loss below which no difference is claimed: float32 features carry
no more."""

Statistic = Callable[[Tensor, Tensor], Tensor]
"""Maps (r, m) weighted sums and (r,) weighted row counts to (r, k) statistics."""


@dataclass(frozen=True, slots=True)
class Resampled:
    """A vector of statistics on all rows and on every resample of the groups."""

    estimate: Tensor
    """(k,) float64 on all rows."""
    draws: Tensor
    """(r, k) float64 on the resamples."""
    groups: int
    """Number of independent groups G."""

    def standard_error(self) -> Tensor:
        """Return the (k,) standard errors of the estimate."""
        spread = (self.draws - self.draws.mean(0)).square().mean(0).sqrt()
        return spread * math.sqrt(self.groups / (self.groups - 1))

    def with_noise(self, deviation: Tensor, seed: int) -> Resampled:
        """Return the same with independent normal noise in every draw.

        For what resampling the rows at hand cannot show, such as another training sample.

        Args:
            deviation: (k,) standard deviations, in the units of the statistics.
            seed: Of the noise.
        """
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(self.draws.shape, generator=generator, dtype=torch.float64)
        return Resampled(self.estimate, self.draws + noise * deviation, self.groups)

    def interval(self, level: float) -> tuple[Tensor, Tensor]:
        """Return the (k,) ends of the expanded percentile interval that covers ``level``."""
        tail = (1 - level) / 2
        ends = torch.quantile(
            self.draws, torch.tensor([tail, 1 - tail], dtype=torch.float64), dim=0
        )
        widened = self.estimate + (ends - self.estimate) * _expansion(self.groups, 1 - tail)
        return widened[0], widened[1]


def means(sums: Tensor, counts: Tensor) -> Tensor:
    """Return (r, m) means over rows: the default statistic."""
    return sums / counts[:, None]


def resample(
    rows: Tensor,
    groups: Tensor,
    statistic: Statistic = means,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Resampled:
    """Bootstrap a function of weighted sums over rows, drawing whole groups.

    Args:
        rows: (n, m) values that are summed, such as the loss of every row under m layers.
        groups: (n,) integers that name each row's group.
        statistic: What is computed of the sums; by default their means over rows.
        resamples: Number of draws.
        seed: Of the draws; the same seed gives the same weights whatever ``rows`` holds.

    Raises:
        EstimatorError: Fewer than two groups.
    """
    membership, count = number_groups(groups)
    wide = torch.cat((rows.double(), torch.ones(len(rows), 1, dtype=torch.float64)), dim=1)
    sums = torch.zeros(count, wide.shape[1], dtype=torch.float64).index_add_(0, membership, wide)
    total = sums.sum(0, keepdim=True)
    drawn = _weighted_sums(sums, resamples, seed)
    return Resampled(
        estimate=statistic(total[:, :-1], total[:, -1])[0],
        draws=statistic(drawn[:, :-1], drawn[:, -1]),
        groups=count,
    )


def difference(resampled: Resampled, first: int, second: int) -> Resampled:
    """Return the paired difference of two statistics, the first minus the second."""
    return Resampled(
        (resampled.estimate[first] - resampled.estimate[second])[None],
        (resampled.draws[:, first] - resampled.draws[:, second])[:, None],
        resampled.groups,
    )


def probability_best(losses: Resampled) -> Tensor:
    """Return (k,) shares of the resamples in which each layer's mean loss is the lowest.

    Layers that share the lowest loss share the resample.
    """
    slack = RESOLUTION * losses.estimate.abs().max()
    lowest = losses.draws <= losses.draws.min(1, keepdim=True).values + slack
    return (lowest / lowest.sum(1, keepdim=True)).double().mean(0)


def p_values(losses: Resampled) -> Tensor:
    """Return (k,) p-values of "no layer is better than this one", corrected for all layers.

    Multiple comparisons with the best (Hsu 1981; Hansen, Lunde and Nason 2011 for the bootstrap
    form). For layer l the statistic is max over j of (mean_l − mean_j)/se_lj, and its distribution
    is that of the centred maximum, max over j of (d*_lj − d_lj)/se_lj, with d* the paired
    differences in the resamples.

    Why it covers: let l be truly the best, so that every true difference δ_lj is at most 0. Then
    max (d_lj)/se_lj is at most max (d_lj − δ_lj)/se_lj, whose distribution the centred resamples
    estimate. A test at level α therefore rejects the best layer with probability at most α, and
    the set of layers that are not rejected contains it with probability at least 1 − α, however
    many layers there are (for many groups; the t factor serves few).

    Two layers whose losses are equal up to rounding never reject each other; a layer that is worse
    by the same amount in every group has the least p-value there is, 1/(1 + resamples).

    Args:
        losses: Resampled mean losses of k layers on the same rows; lower is better.
    """
    spread = _Spread.of(losses)
    everyone = list(range(len(losses.estimate)))
    return torch.stack([spread.p_value(layer, everyone) for layer in everyone])


def p_values_against(losses: Resampled, chosen: int) -> Tensor:
    """Return (k,) one-sided p-values of "this layer is not worse than the chosen one".

    Each is about one pair, corrected for nothing; the chosen layer's own is 1. They are honest only
    if other rows than these chose it.

    Args:
        losses: Resampled mean losses of k layers on the same rows; lower is better.
        chosen: Place of the layer that all are compared with.
    """
    spread = _Spread.of(losses)
    return torch.stack([spread.p_value(i, [chosen]) for i in range(len(losses.estimate))])


@dataclass(frozen=True, slots=True)
class _Spread:
    """How much the differences of any two layers vary from resample to resample."""

    estimate: Tensor
    """(k,) mean losses."""
    centred: Tensor
    """(k, r) resampled minus estimated means, one layer after the other in memory."""
    deviation: Tensor
    """(k, k) root mean square of the centred differences."""
    slack: float
    """What is rounding."""
    groups: int

    @classmethod
    def of(cls, losses: Resampled) -> _Spread:
        centred = (losses.draws - losses.estimate).T.contiguous()
        products = centred @ centred.T / centred.shape[1]
        own = products.diagonal()
        # Rounding leaves 1e-8 of a layer's spread in place of nought, far below any slack.
        deviation = (own[:, None] + own - 2 * products).clamp(min=0).sqrt()
        slack = float(RESOLUTION * losses.estimate.abs().max())
        return cls(losses.estimate, centred, deviation, slack, losses.groups)

    def p_value(self, layer: int, rivals: Sequence[int]) -> Tensor:
        """Return the p-value of "no rival is better than this layer"."""
        gaps = self.estimate[layer] - self.estimate
        told = (gaps.abs() > self.slack) | (self.deviation[layer] > self.slack)
        known = [rival for rival in rivals if bool(told[rival])]
        if not known:
            return torch.ones((), dtype=torch.float64)
        widening = math.sqrt(self.groups / (self.groups - 1))
        unit = self.deviation[layer, known] * widening
        unit = unit.clamp(min=torch.finfo(torch.float64).tiny)
        observed = (gaps[known] / unit).max()
        factor = _expansion(self.groups, 0.95) / unit
        differences = (self.centred[layer] - self.centred[known]) * factor[:, None]
        return (1 + (differences.amax(0) >= observed).sum()).double() / (1 + len(differences[0]))


def _expansion(groups: int, quantile: float) -> float:
    student = float(scipy.stats.t.ppf(quantile, groups - 1) / scipy.stats.norm.ppf(quantile))
    return student * math.sqrt(groups / (groups - 1))


def _weighted_sums(sums: Tensor, resamples: int, seed: int) -> Tensor:
    kinds, cells = alike(sums)
    if len(kinds) > ALIKE * len(sums):
        kinds, cells = sums, torch.arange(len(sums))
    size = max(1, CHUNK // len(kinds))
    blocks = (range(resamples)[start : start + size] for start in range(0, resamples, size))
    return torch.cat([counts(cells, len(kinds), block, seed) @ kinds for block in blocks])
