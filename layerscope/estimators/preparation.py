"""What every probe does to features first: a layer's size is divided out, rare ones are held."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

ENOUGH_ROWS = 10
"""Effective rows behind a feature's variance below which its range is held."""
SMALL_SHARE = 20
"""With few training rows: one in so many is enough."""
USUAL = 10
"""Powers of two by which a layer's root mean square may differ from 1 and be left as it is."""
LARGEST = 126
"""Powers of two that float32 has in both directions."""


@dataclass(frozen=True, slots=True)
class Preparation:
    """How the features of one layer are prepared, as its training rows ask for it.

    A ReLU that fired for one training image says little of an image that fires it a hundred times
    harder: once standardised, that image would lie thousands of deviations out and alone decide the
    test error. So a feature that few training rows vary is held within the range that it has there.
    For rows within that range it is the feature as it is: units that fire for a single class, of
    which training has a few images, lose nothing.
    """

    exponent: int
    """Of the power of two that is divided out, 0 for layers of usual size. It costs no digit."""
    low: Tensor
    """(d,) float32, the least that a feature may be: −∞ for one that is not held."""
    high: Tensor
    """(d,) float32, the most, likewise."""

    @property
    def rare(self) -> Tensor:
        """(d,) bool, features that few training rows vary, whose range is held."""
        return self.low.isfinite()

    def __call__(self, rows: Tensor) -> Tensor:
        """Return (n, d) stored rows prepared; the rows themselves where there is nothing to do."""
        if bool(self.rare.any()):
            rows = rows.clamp(self.low, self.high)
        return rows * 2.0**-self.exponent if self.exponent else rows


@dataclass(frozen=True, slots=True)
class TrainingRange:
    """What one pass over the training rows tells of every feature."""

    count: int
    """Number of rows n."""
    total: Tensor
    """(d,) float64 sums."""
    square: float
    """Sum of all squares."""
    low: Tensor
    """(d,) float32 least values."""
    high: Tensor
    """(d,) float32 largest ones."""

    @property
    def varies(self) -> Tensor:
        """(d,) bool."""
        return self.high > self.low

    @property
    def exponent(self) -> int:
        """The power of two nearest to the root mean square, or 0 where that is of usual size."""
        root = math.sqrt(self.square / (self.count * len(self.total)))
        power = round(math.log2(root)) if root else 0
        return max(-LARGEST, min(power, LARGEST)) if abs(power) > USUAL else 0


def prepare(read: Callable[[], Iterable[Tensor]]) -> tuple[Preparation, TrainingRange]:
    """Return how a layer is to be prepared, and the range of its training rows.

    Args:
        read: Returns blocks of the training rows, which are (m, d) float32, anew each time.
    """
    known = _training_range(read())
    rare = _vary_rarely(read(), known)
    low = torch.where(rare, known.low, -torch.inf)
    high = torch.where(rare, known.high, torch.inf)
    return Preparation(known.exponent, low, high), known


def _training_range(blocks: Iterable[Tensor]) -> TrainingRange:
    # In blocks, because all rows in float64 would be the largest thing in memory.
    count, square, total = 0, 0.0, torch.zeros((), dtype=torch.float64)
    low, high = torch.tensor(torch.inf), torch.tensor(-torch.inf)
    for block in blocks:
        count, total = count + len(block), total + block.sum(0, dtype=torch.float64)
        square += float(torch.linalg.vector_norm(block, dtype=torch.float64)) ** 2
        low, high = torch.minimum(low, block.amin(0)), torch.maximum(high, block.amax(0))
    return TrainingRange(count, total, square, low, high)


def _vary_rarely(blocks: Iterable[Tensor], known: TrainingRange) -> Tensor:
    """Return (d,) bool, which features owe their variance to a handful of training rows.

    The measure is the effective number of rows behind a variance, (Σ x²)² / Σ x⁴ of the centred
    feature: n/3 for a normal one, about k for one that is active in k rows. Scale and offset of a
    feature do not matter. A constant feature is no concern here.
    """
    mean = known.total / known.count
    second, fourth = torch.zeros_like(mean), torch.zeros_like(mean)
    for block in blocks:
        squares = (block.double() - mean).square()
        second += squares.sum(0)
        fourth += squares.square().sum(0)
    effective = second.square() / fourth.clamp(min=torch.finfo(fourth.dtype).tiny)
    return known.varies & (effective < min(ENOUGH_ROWS, known.count / SMALL_SHARE))
