"""The group bootstrap: how sure a mean is, and which layers cannot be told from the best.

Rows of one group (the views of one object) are not independent, so whole groups are drawn. A
resample is a vector of multinomial weights over the G groups, and every statistic here is a
function of weighted sums, so that all resamples of all layers are one matrix product. Groups with
the same sums (images that the same layers get right) are counted together.

The spread of resamples is that of a sample of G with divisor G; it is widened by √(G/(G − 1)), and
intervals also by Student's t over the normal quantile: the "expanded percentile" of Hesterberg
(2015), "What Teachers Should Know About the Bootstrap", section 5. Tests draw the standard errors
anew together with the means, so that few groups are heeded in the maximum over layers as well.

Where draws carry the noise of another training sample too, the degrees of freedom are those of a
sum of two variances (Satterthwaite 1946, "An approximate distribution of estimates of variance
components").
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.stats
import torch
from torch import Tensor

from layerscope.stats.multinomial import alike, counts
from layerscope.stats.standard_error import number_groups
from layerscope.stats.training_noise import TrainingNoise

RESAMPLES = 10_000
CHUNK = 1 << 22
"""Weights held at a time."""
ALIKE = 0.75
"""Largest share of distinct groups at which it pays to draw kinds of group instead of groups."""
FEW = 20
"""Degrees of freedom below which the correlation of layers is not known well enough to be used."""
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
    """(r, k) float64 on the resamples, another training sample included where it is known."""
    groups: int
    """Number of independent groups G."""
    training: TrainingNoise | None = None
    """What of the draws' spread is that of another training sample."""

    def standard_error(self) -> Tensor:
        """Return the (k,) standard errors of the estimate."""
        of_rows, of_training, _ = self._variances()
        return (of_rows + of_training).sqrt()

    def degrees(self) -> Tensor:
        """Return the (k,) degrees of freedom of the standard errors."""
        freedom = math.inf if self.training is None else self.training.degrees
        return satterthwaite(*self._variances(), self.groups - 1, freedom)

    def with_noise(self, noise: TrainingNoise, seed: int) -> Resampled:
        """Return the same with normal noise in every draw.

        For what resampling the rows at hand cannot show: another training sample.

        Args:
            noise: Of the k statistics.
            seed: Of the noise.
        """
        drawn = self.draws + noise.draws(len(self.draws), seed)
        return Resampled(self.estimate, drawn, self.groups, noise)

    def combined(self, weights: Tensor) -> Resampled:
        """Return (c,) linear combinations of the statistics, by (k, c) weights."""
        return Resampled(
            self.estimate @ weights,
            self.draws @ weights,
            self.groups,
            None if self.training is None else self.training.of(weights),
        )

    def interval(self, level: float) -> tuple[Tensor, Tensor]:
        """Return the (k,) ends of the expanded percentile interval that covers ``level``."""
        tail = (1 - level) / 2
        ends = torch.quantile(
            self.draws, torch.tensor([tail, 1 - tail], dtype=torch.float64), dim=0
        )
        drawn = (self.draws - self.draws.mean(0)).square().mean(0).sqrt()
        widening = self.standard_error() / drawn.clamp(min=torch.finfo(torch.float64).tiny)
        student = torch.from_numpy(scipy.stats.t.ppf(1 - tail, self.degrees().numpy()))
        student /= float(scipy.stats.norm.ppf(1 - tail))
        widened = self.estimate + (ends - self.estimate) * widening * student
        return widened[0], widened[1]

    def _variances(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the (k,) variances by rows and by training, and the latter as it was measured."""
        drawn = (self.draws - self.draws.mean(0)).square().mean(0)
        nothing = torch.zeros_like(drawn)
        noise = self.training
        of_training = nothing if noise is None else noise.covariance.diagonal()
        raw = nothing if noise is None else noise.raw.diagonal()
        of_rows = (drawn - of_training).clamp(min=0) * self.groups / (self.groups - 1)
        return of_rows, of_training, raw


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
    weights = torch.zeros(len(resampled.estimate), 1, dtype=torch.float64)
    weights[first] += 1
    weights[second] -= 1
    return resampled.combined(weights)


def resamples_won(losses: Resampled) -> Tensor:
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
    """How much the differences of any two layers vary, and how sure that is."""

    estimate: Tensor
    """(k,) mean losses."""
    centred: Tensor
    """(k, r) resampled minus estimated means, one layer after the other in memory."""
    drawn: Tensor
    """(k, k) variance of the resampled differences."""
    of_rows: Tensor
    """(k, k) variance of the differences over samples of rows."""
    of_training: Tensor
    """(k, k) the same over training samples."""
    raw: Tensor
    """(k, k) the same as it was measured."""
    degrees: tuple[float, float]
    """Of freedom: of the variances over rows, and over training samples."""
    ratios: Tensor
    """(2, r) draws of either measured variance over the true one."""
    slack: float
    """What is rounding."""

    @classmethod
    def of(cls, losses: Resampled) -> _Spread:
        centred = (losses.draws - losses.estimate).T.contiguous()
        # Rounding leaves 1e-8 of a layer's spread in place of nought, far below any slack.
        drawn = _of_differences(centred @ centred.T / centred.shape[1])
        nothing, noise, freedom = torch.zeros_like(drawn), losses.training, losses.groups - 1
        of_training = nothing if noise is None else _of_differences(noise.covariance)
        of_rows = (drawn - of_training).clamp(min=0) * losses.groups / freedom
        degrees = float(freedom), math.inf if noise is None else noise.degrees
        return cls(
            losses.estimate,
            centred,
            drawn,
            of_rows,
            of_training,
            nothing if noise is None else _of_differences(noise.raw),
            degrees,
            torch.stack(
                [_variance_ratios(it, centred.shape[1], i) for i, it in enumerate(degrees)]
            ),
            float(RESOLUTION * losses.estimate.abs().max()),
        )

    def p_value(self, layer: int, rivals: Sequence[int]) -> Tensor:
        """Return the p-value of "no rival is better than this layer"."""
        gaps = self.estimate[layer] - self.estimate
        variance = self.of_rows[layer] + self.of_training[layer]
        told = (gaps.abs() > self.slack) | (variance.sqrt() > self.slack)
        known = [rival for rival in rivals if bool(told[rival])]
        if not known:
            return torch.ones((), dtype=torch.float64)
        tiny = torch.finfo(torch.float64).tiny
        observed = (gaps[known] / variance[known].sqrt().clamp(min=tiny)).max()
        draws = self._studentised(layer, known)
        found = (1 + (draws.amax(0) >= observed).sum()).double() / (1 + draws.shape[1])
        if self.degrees[0] >= FEW:
            return found
        # So few groups do not tell how layers go together: a bound that holds however they do.
        tails = torch.from_numpy(
            scipy.stats.t.sf(float(observed), self._degrees(layer, known).numpy())
        )
        return torch.maximum(found, tails.sum().clamp(max=1.0))

    def _studentised(self, layer: int, known: Sequence[int]) -> Tensor:
        """Return (j, r) differences over the standard errors that their resample would give."""
        tiny = torch.finfo(torch.float64).tiny
        rows, training, raw = (
            it[layer, known, None] for it in (self.of_rows, self.of_training, self.raw)
        )
        drawn = rows * self.ratios[0] + (training + raw * (self.ratios[1] - 1)).clamp(min=0)
        scale = (drawn / (rows + training).clamp(min=tiny)).clamp(min=tiny).sqrt()
        unit = self.drawn[layer, known, None].sqrt().clamp(min=tiny)
        return (self.centred[layer] - self.centred[known]) / unit / scale

    def _degrees(self, layer: int, known: Sequence[int]) -> Tensor:
        rows, training, raw = (
            it[layer, known] for it in (self.of_rows, self.of_training, self.raw)
        )
        return satterthwaite(rows, training, raw, *self.degrees)


def satterthwaite(
    rows: Tensor, training: Tensor, raw: Tensor, of_rows: float, of_training: float
) -> Tensor:
    """Return the degrees of freedom of the sum of two variances, of which the second was corrected.

    Args:
        rows: (k,) the first variance.
        training: (k,) the second.
        raw: (k,) the second before something was subtracted from it that is known.
        of_rows: Degrees of freedom of the first.
        of_training: Of the second.
    """
    unsure = rows.square() / of_rows + raw.square() / of_training
    total = (rows + training).square()
    return torch.where(unsure > 0, total / unsure.clamp(min=1e-300), of_rows).clamp(min=1.0)


def _of_differences(covariance: Tensor) -> Tensor:
    """Return the (k, k) variances of all differences, by the covariance of k statistics."""
    own = covariance.diagonal()
    return (own[:, None] + own - 2 * covariance).clamp(min=0)


def _variance_ratios(degrees: float, count: int, seed: int) -> Tensor:
    """Return (count,) draws of a normal sample's variance over the true one."""
    if math.isinf(degrees):
        return torch.ones(count, dtype=torch.float64)
    generator = np.random.default_rng(seed)
    return torch.from_numpy(generator.chisquare(degrees, count) / degrees)


def _weighted_sums(sums: Tensor, resamples: int, seed: int) -> Tensor:
    kinds, cells = alike(sums)
    if len(kinds) > ALIKE * len(sums):
        kinds, cells = sums, torch.arange(len(sums))
    size = max(1, CHUNK // len(kinds))
    blocks = (range(resamples)[start : start + size] for start in range(0, resamples, size))
    return torch.cat([counts(cells, len(kinds), block, seed) @ kinds for block in blocks])
