"""How far two numbers put the same things in the same order: Kendall's τ-b and Spearman's ρ.

Both are the cosine of two matrices that say of every pair (i, j) how i and j compare, the general
coefficient of Daniels (1944), "The relation between measures of correlation in the universe of
sample permutations", equation 1: Γ = Σ a_ij b_ij / √(Σ a_ij² Σ b_ij²). With a_ij = sign(x_i − x_j)
it is τ-b, in which a tied pair counts neither for nor against (Kendall 1945, "The treatment of ties
in ranking problems"). The sums of that matrix's rows are 2 · rank − (k + 1), with mid-ranks for
ties, and their cosine is ρ. Where all values of one side are equal there is no order and the
coefficient is not a number.

What an interval covers depends on what is drawn anew, and there are two answers here:

* :func:`over_rows`: the things are given (the layers of one network, the epochs of one run: they
  are neither independent nor exchangeable) and what varies is the rows that they were measured on.
* :func:`over_pairs`: the things themselves are a sample (the runs of a grid) and are drawn with
  replacement.

A resample in which one side has no order ranks nothing, and counts as nought. How often either
interval covers the truth is measured by ``benchmarks/rank_intervals.py``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import permutations

import torch
from torch import Tensor

from layerscope.stats.bootstrap import Resampled
from layerscope.types import Interval

FEWEST = 4
"""Things below which no interval is given: of three there are six orders in all."""
DRAWS = 2_000
"""Resamples of a coefficient."""
EXACT = 7
"""Things up to which every order is tried: 5,040 of them."""
CHUNK = 1 << 22
"""Comparisons held at a time."""
ROUNDING = 1e-9

Coefficient = Callable[[Tensor, Tensor], Tensor]
"""Maps two (…, k) batches of values to (…,) coefficients."""


def kendall(first: Tensor, second: Tensor) -> Tensor:
    """Return Kendall's τ-b.

    Args:
        first: (…, k) values.
        second: (…, k) values of the same things; batches are broadcast.

    Returns:
        (…,) float64 from −1 to 1, NaN where all values of one side are equal.

    Examples:
        >>> float(kendall(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([10.0, 30.0, 20.0])))
        0.3333333333333333
    """
    return _cosine(_signs(first).flatten(-2), _signs(second).flatten(-2))


def spearman(first: Tensor, second: Tensor) -> Tensor:
    """Return Spearman's ρ, with mid-ranks for ties, of and as for :func:`kendall`.

    Examples:
        >>> float(spearman(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([10.0, 30.0, 20.0])))
        0.5
    """
    return _cosine(_signs(first).sum(-1), _signs(second).sum(-1))


def over_rows(
    values: Tensor,
    deviations: Tensor,
    losses: Resampled,
    coefficient: Coefficient,
    *,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Return how well given things are ranked, drawing anew the rows that their losses come from.

    Noise in the losses pulls a coefficient towards nought: once in the estimate and once more in
    each draw. So the interval is the percentile one together with its mirror image about the
    estimate, which undoes the second pull.

    Args:
        values: (k,) what ranks the things; more is meant to be better.
        deviations: (k,) standard errors of the values. Every draw adds independent normal noise of
            that size, so that things whose values are noisy are not told apart by them.
        losses: Resampled mean losses of the k things; lower is better.
        coefficient: :func:`kendall` or :func:`spearman`.
        level: Coverage of the interval.
        seed: Of the noise.

    Returns:
        Ends that are no numbers where there are fewer than :data:`FEWEST` things, and no number at
        all where one side has no order.
    """
    estimate = float(coefficient(values, -losses.estimate))
    if len(values) < FEWEST or math.isnan(estimate):
        return Interval(estimate, math.nan, math.nan)
    generator = torch.Generator().manual_seed(seed)
    drawn = losses.draws[:DRAWS]
    noise = torch.randn(drawn.shape, generator=generator, dtype=torch.float64)
    noisy = values.double() + noise * deviations.double()
    found = _resampled(estimate, _in_chunks(coefficient, noisy, -drawn), losses.groups)
    low, high = (float(end) for end in found.interval(level))
    return _within(Interval(estimate, min(low, 2 * estimate - high), max(high, 2 * estimate - low)))


def over_pairs(
    first: Tensor,
    second: Tensor,
    coefficient: Coefficient,
    *,
    level: float = 0.95,
    draws: int = DRAWS,
    seed: int = 0,
) -> Interval:
    """Return a coefficient of k independent pairs, drawing whole pairs with replacement.

    Args:
        first: (k,) values.
        second: (k,) values of the same things.
        coefficient: :func:`kendall` or :func:`spearman`.
        level: Coverage of the interval.
        draws: Number of resamples.
        seed: Of the draws.

    Returns:
        Ends that are no numbers where there are fewer than :data:`FEWEST` pairs, or where all of
        them are in one order: no resample can disagree with that, and an interval of no width
        would be a claim that a handful of pairs does not support.
    """
    estimate = float(coefficient(first, second))
    if len(first) < FEWEST or math.isnan(estimate) or abs(estimate) > 1 - ROUNDING:
        return Interval(estimate, math.nan, math.nan)
    generator = torch.Generator().manual_seed(seed)
    places = torch.randint(len(first), (draws, len(first)), generator=generator)
    drawn = _in_chunks(coefficient, first.double()[places], second.double()[places])
    low, high = _resampled(estimate, drawn, len(first)).interval(level)
    return _within(Interval(estimate, float(low), float(high)))


def independence(first: Tensor, second: Tensor, *, draws: int = 10_000, seed: int = 0) -> float:
    """Return the two-sided p-value of "the order of one says nothing of the other's", by τ-b.

    Every order of the second side is equally likely then. Up to :data:`EXACT` things all of them
    are tried, and above it a sample, in which the observed one counts (so that p is never nought).

    Args:
        first: (k,) values.
        second: (k,) values of the same things.
        draws: Orders in the sample.
        seed: Of the sample.
    """
    observed = float(kendall(first, second).abs())
    if math.isnan(observed):
        return math.nan
    count = len(first)
    if count <= EXACT:
        orders = torch.tensor(list(permutations(range(count))))
    else:
        generator = torch.Generator().manual_seed(seed)
        orders = torch.rand(draws, count, generator=generator).argsort(1)
    tried = _in_chunks(kendall, first.double().expand(len(orders), -1), second.double()[orders])
    as_far = int((tried.abs() >= observed - ROUNDING).sum())
    return as_far / len(orders) if count <= EXACT else (1 + as_far) / (1 + len(orders))


def _signs(values: Tensor) -> Tensor:
    """Return the (…, k, k) signs of all differences."""
    wide = values.double()
    return (wide[..., :, None] - wide[..., None, :]).sign()


def _cosine(first: Tensor, second: Tensor) -> Tensor:
    # Counts below 2⁵³ are exact in float64, so that a perfect order gives 1 and not nearly 1.
    product = first.square().sum(-1) * second.square().sum(-1)
    return (first * second).sum(-1) / product.sqrt()


def _in_chunks(coefficient: Coefficient, first: Tensor, second: Tensor) -> Tensor:
    size = max(1, CHUNK // first.shape[-1] ** 2)
    starts = range(0, len(first), size)
    parts = [coefficient(first[i : i + size], second[i : i + size]) for i in starts]
    return torch.cat(parts).nan_to_num(0.0)


def _resampled(estimate: float, draws: Tensor, groups: int) -> Resampled:
    return Resampled(torch.tensor([estimate], dtype=torch.float64), draws[:, None], groups)


def _within(found: Interval) -> Interval:
    """Return an interval whose ends stay within −1 to 1, as every coefficient does."""
    return Interval(found.estimate, max(found.low, -1.0), min(found.high, 1.0))
