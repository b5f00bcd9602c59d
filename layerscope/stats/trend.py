"""Whether a curve along training has fallen since its peak, where its snapshots are noisy.

The metric of snapshot t is y_t = m(t) + s_t + e_t: the layer's underlying curve m, the noise s_t of
the snapshot, and the noise e_t of the rows that it was measured on. Validation and test rows share
s_t, because it is the same network. So the best of T snapshots was lucky on both, and a comparison
of two snapshots over the test rows alone calls a run without any trend over-fitted. Here the claim
is about m, averaged over neighbours:

* **Curve.** A moving average over 2h + 1 snapshots, h a tenth of their number rounded down, cut off
  at the ends. The **decline** is the average at the end minus that at the peak, which the
  validation rows chose.
* **Snapshot noise.** Each snapshot minus what its two neighbours interpolate, in units of one
  snapshot's deviation: the pseudo-residuals of Gasser, Sroka and Jennen-Steinmetz (1986), "Residual
  variance and residual patterns in nonlinear regression", equation 2.2. Straight lines leave none,
  curvature makes them larger. So that the steep start of a training does not count as noise, their
  mean square is taken over the quietest of the stretches that reach from the peak, or from before
  it, to the last snapshot and hold at least half of the run. What the rows explain of it is
  subtracted, down to nought.
* **Interval.** Estimate ± q standard errors. q is the quantile of |decline| over its standard error
  in simulated runs without any trend, each with its own peak, quietest stretch and noise estimate
  (the parametric bootstrap-t: Davison and Hinkley 1997, section 5.2). There the peak is chosen by
  the snapshots' noise alone, as if validation rows had none, which is the most luck there can be.

How large the snapshots' noise is beside that of the rows is known badly from few snapshots, and q
grows with it. It is taken at the upper end of a one-sided interval, with all that the rows explain
counted in (a bound for a nuisance, after Berger and Boos 1994).

Noise is taken to be independent from snapshot to snapshot and alike along the run. How often runs
without trend alarm, and which declines are found, ``benchmarks/series_alarms.py`` measures; there
too, what noise that lasts over several snapshots does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.stats
import torch
from torch import Tensor

from layerscope.stats.symmetric import positive_part, square_root
from layerscope.types import Interval

FEWEST = 5
"""Snapshots below which nothing can be said of their noise."""
DRAWS = 2_000
"""Simulated runs."""
WINDOW = 10
"""Snapshots of a run for each one that the moving average takes from either side."""
QUIET = 0.5
"""Least share of the snapshots that the noise is estimated from."""
BOUND = 0.75
"""Level of the one-sided interval of the noise that q is computed with."""
TIED = 1e-9
"""Relative difference of two averages that is rounding."""


def moving_average(count: int) -> Tensor:
    """Return the (T, T) matrix that averages T snapshots over their neighbours.

    Examples:
        >>> moving_average(5)[0].tolist()
        [1.0, 0.0, 0.0, 0.0, 0.0]
        >>> moving_average(10)[0, :3].tolist()
        [0.5, 0.5, 0.0]
    """
    places = torch.arange(count)
    near = ((places[:, None] - places).abs() <= _half(count)).double()
    return near / near.sum(1, keepdim=True)


def _half(count: int) -> int:
    return count // WINDOW


def lowest_average(losses: Tensor) -> int:
    """Return the snapshot at which the moving average of (T,) losses is least, the first of equal.

    Examples:
        >>> lowest_average(torch.tensor([0.5, 0.2, 0.3, 0.3]))
        1
    """
    smooth = moving_average(len(losses)) @ losses.double()
    least = smooth.min()
    return int((smooth <= least + TIED * least.abs()).nonzero()[0])


def pseudo_residuals(places: Sequence[float]) -> Tensor:
    """Return the (T − 2, T) matrix from a curve to its pseudo-residuals.

    Every row is orthogonal to straight lines over the places and has norm 1, so that independent
    noise of variance σ² has pseudo-residuals of variance σ².

    Args:
        places: T increasing places on the axis, such as epochs.

    Examples:
        >>> (pseudo_residuals([1, 2, 4]) * 14**0.5).round(decimals=9).tolist()
        [[-2.0, 3.0, -1.0]]
    """
    x = torch.tensor(places, dtype=torch.float64)
    count = len(x)
    left = (x[2:] - x[1:-1]) / (x[2:] - x[:-2])
    found = torch.zeros(count - 2, count, dtype=torch.float64)
    row = torch.arange(count - 2)
    found[row, row], found[row, row + 1], found[row, row + 2] = (
        -left,
        torch.ones_like(left),
        left - 1,
    )
    unit: Tensor = found / found.norm(dim=1, keepdim=True)
    return unit


@dataclass(frozen=True, slots=True)
class SnapshotNoise:
    """The noise of the snapshots of k layers, and what it is told from."""

    covariance: Tensor
    """(k, k) of one snapshot beyond what the rows explain, positive semidefinite."""
    bound: Tensor
    """(k, k) upper bound, what the rows explain counted in."""


@dataclass(frozen=True, slots=True)
class Run:
    """The mean losses of k layers along T snapshots of one training, measured on the same rows."""

    losses: Tensor
    """(k, T) float64; lower is better."""
    covariance: Tensor
    """(k, T, k, T) float64 of their errors over other rows (and training samples of the probe)."""
    places: tuple[float, ...]
    """T increasing places on the axis."""
    groups: int
    """Independent groups of rows that the covariance was estimated from, at least two."""

    def noise(self, peaks: Sequence[int]) -> SnapshotNoise:
        """Return the noise of the snapshots, of which there are :data:`FEWEST` or more.

        Args:
            peaks: The snapshots that the stretch holds, with those averaged over.
        """
        residuals = pseudo_residuals(self.places)
        squares = _squares(self.losses[None], residuals)
        half = _half(self.losses.shape[1])
        quiet, stretch = _quietest(squares, torch.tensor([list(peaks)]), half)
        found = positive_part(quiet - self._explained(residuals)[stretch])
        return SnapshotNoise(found[0], squares[0, 0] * _upper(residuals))

    def _explained(self, residuals: Tensor) -> Tensor:
        """Return the (stretches, k, k) squares of pseudo-residuals that the rows' noise makes."""
        products = torch.einsum("st,ktlu,su->skl", residuals, self.covariance, residuals)
        return _over_stretches(products[None])[0]


def decline(
    run: Run, peaks: Sequence[int], *, level: float = 0.95, draws: int = DRAWS, seed: int = 0
) -> Interval:
    """Return by how much the averaged loss has risen from the peak to the last snapshot.

    Of two layers the first one's decline minus the second one's, each from its own peak.

    Args:
        run: One layer or two.
        peaks: The snapshot of each layer from which it is counted, chosen by
            :func:`lowest_average` on other rows.
        level: Coverage of the interval.
        draws: Number of simulated runs.
        seed: Of the simulated runs.

    Returns:
        Nought without width where every peak is the last snapshot, which cannot be worse than
        itself. Ends that are no numbers for fewer than :data:`FEWEST` snapshots.
    """
    count = run.losses.shape[1]
    contrasts = _Contrasts.of(run)
    places = torch.tensor([list(peaks)])
    estimate = float(contrasts.value(run.losses[None], places))
    if all(peak == count - 1 for peak in peaks):
        return Interval(0.0, 0.0, 0.0)
    if count < FEWEST:
        return Interval(estimate, math.nan, math.nan)
    noise = run.noise(peaks)
    variance = contrasts.variance(places, noise.covariance[None], torch.ones(1).double())
    statistic = _simulated(run, contrasts, noise.bound, draws, seed)
    half = float(variance.clamp(min=0).sqrt()) * _quantile(statistic, level)
    return Interval(estimate, estimate - half, estimate + half)


@dataclass(frozen=True, slots=True)
class _Contrasts:
    """The decline from every snapshot, as weights of the snapshots, with its variances."""

    weights: Tensor
    """(T, T) average at the end minus that at each snapshot."""
    signs: Tensor
    """(k,) of the layers."""
    of_rows: Tensor
    """(k, T, k, T) signed covariances of the layers' declines over other rows."""
    of_snapshots: Tensor
    """(T, T) the same per unit of snapshot noise, without sign."""

    @classmethod
    def of(cls, run: Run) -> _Contrasts:
        layers, count = run.losses.shape
        average = moving_average(count)
        weights = average[-1] - average
        signs = torch.tensor([1.0, -1.0], dtype=torch.float64)[:layers]
        rows = torch.einsum("pt,ktlu,qu->kplq", weights, run.covariance, weights)
        signed = signs[:, None, None, None] * signs[:, None] * rows
        return cls(weights, signs, signed, weights @ weights.T)

    def value(self, curves: Tensor, peaks: Tensor) -> Tensor:
        """Return the (r,) declines of (r, k, T) curves from (r, k) peaks."""
        return ((self.weights[peaks] * curves).sum(2) * self.signs).sum(1)

    def variance(self, peaks: Tensor, noise: Tensor, of_rows: Tensor) -> Tensor:
        """Return their (r,) variances under (r, k, k) noise and (r,) factors of the rows' own."""
        found = torch.zeros(len(peaks), dtype=torch.float64)
        for i in range(peaks.shape[1]):
            for j in range(peaks.shape[1]):
                first, second = peaks[:, i], peaks[:, j]
                own = self.signs[i] * self.signs[j] * noise[:, i, j]
                found += self.of_rows[i, first, j, second] * of_rows
                found += own * self.of_snapshots[first, second]
        return found


def _simulated(run: Run, contrasts: _Contrasts, noise: Tensor, draws: int, seed: int) -> Tensor:
    """Return |decline| over its standard error in runs without trend, where the peak is no end."""
    layers, count = run.losses.shape
    generator = torch.Generator().manual_seed(seed)
    normal = torch.randn(draws, layers, count, generator=generator, dtype=torch.float64)
    snapshots = torch.einsum("kl,rlt->rkt", square_root(noise), normal)
    normal = torch.randn(draws, layers * count, generator=generator, dtype=torch.float64)
    root = square_root(run.covariance.reshape(layers * count, -1))
    curves = snapshots + (normal @ root).reshape(draws, layers, count)
    peaks = (snapshots @ moving_average(count).T).argmin(2)
    factor = _factors(run.groups, draws, seed)
    residuals = pseudo_residuals(run.places)
    quiet, stretch = _quietest(_squares(curves, residuals), peaks, _half(count))
    found = positive_part(quiet - run._explained(residuals)[stretch] * factor[:, None, None])
    variance = contrasts.variance(peaks, found, factor)
    asked = (peaks != count - 1).any(1) & (variance > 0)
    value = contrasts.value(curves, peaks).abs()[asked] / variance[asked].sqrt()
    return value if len(value) else torch.zeros(1, dtype=torch.float64)


def _quantile(simulated: Tensor, level: float) -> float:
    """Return the least simulated value that one more would exceed in at most 1 − level."""
    place = math.ceil(level * (len(simulated) + 1))
    return float(simulated.sort().values[min(place, len(simulated)) - 1])


def _factors(groups: int, draws: int, seed: int) -> Tensor:
    """Return (r,) values of χ²/(G − 1): how far a variance from G groups is off."""
    degrees = groups - 1
    return torch.from_numpy(np.random.default_rng(seed).chisquare(degrees, draws) / degrees)


def _squares(curves: Tensor, residuals: Tensor) -> Tensor:
    """Return the mean products of pseudo-residuals over every stretch: (r, stretches, k, k)."""
    found = curves @ residuals.T
    return _over_stretches(torch.einsum("rks,rls->rskl", found, found))


def _over_stretches(products: Tensor) -> Tensor:
    """Return means of (r, T − 2, k, k) products over the stretches that end at the last snapshot.

    The first stretch is the whole run.
    """
    count = products.shape[1]
    sums = products.flip(1).cumsum(1).flip(1)
    means = sums / torch.arange(count, 0, -1, dtype=torch.float64)[:, None, None]
    snapshots = count + 2
    shortest = max(FEWEST, math.ceil(QUIET * snapshots))
    return means[:, : max(1, snapshots - shortest + 1)]


def _quietest(squares: Tensor, peaks: Tensor, half: int) -> tuple[Tensor, Tensor]:
    """Return the (r, k, k) products of the stretch of least total variance, and which it is.

    A stretch that begins after the (r, k) peaks, or what they are averaged over, would not show
    that a peak is one lucky snapshot.
    """
    total = squares.diagonal(dim1=2, dim2=3).sum(2)
    first = (peaks.amin(1) - half).clamp(min=0)
    after = torch.arange(total.shape[1]) > first[:, None]
    stretch = total.masked_fill(after, math.inf).argmin(1)
    return squares[torch.arange(len(squares)), stretch], stretch


def _upper(residuals: Tensor) -> float:
    """Return what a variance from all pseudo-residuals is multiplied by for its upper bound."""
    products = residuals @ residuals.T
    # Satterthwaite's degrees of freedom: neighbouring pseudo-residuals are correlated.
    degrees = float(products.trace() ** 2 / products.square().sum())
    return degrees / float(scipy.stats.chi2.ppf(1 - BOUND, degrees))
