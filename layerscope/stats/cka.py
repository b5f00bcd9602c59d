"""Linear CKA between many layers at once: how alike two layers arrange the same images.

Kornblith, Norouzi, Lee and Hinton (2019), "Similarity of Neural Network Representations Revisited",
eq. 3 and 4. With columns centred, ‖YᵀX‖²_F is the sum over pairs of rows of ⟨x_i, x_j⟩⟨y_i, y_j⟩:
every layer is turned into similarities of rows once, tile by tile, and a tile of all layers gives
its part of every pair of layers in one product. The cost is L times n²d and not L² times nd², and
no more than one tile of each layer is in memory.

The biased estimate tends to 1 for unrelated layers as soon as features outnumber rows. The unbiased
one is HSIC₁ of Song et al. (2012), "Feature Selection via Dependence Maximization", eq. 5, which
Nguyen, Raghu and Kornblith (2021), "Do Wide and Deep Networks Learn the Same Things?", take for
CKA. Because centred similarities sum to zero over each row, HSIC₁ needs of the diagonals only their
sums and products:

    n (n − 3) HSIC₁ = Σ_ij K_ij L_ij − n/(n − 2) Σ_i K_ii L_ii + tr K tr L / ((n − 1)(n − 2)).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from layerscope.errors import EstimatorError

TILE = 1024
"""Rows of a tile on either side: 4 MiB of float32 for each layer."""
CHUNK = 1 << 16
"""Similarities of each layer that are multiplied in float64 at a time."""
LEAST_ROWS = 4
"""Of which HSIC₁ is defined."""
ROUNDED = 64
"""Times float64's rounding of the mean below which rows are all the same."""

Read = Callable[[int, int], Tensor]
"""Returns the (m, d) rows from one place up to another, always the same."""


@dataclass(frozen=True, slots=True)
class Similarity:
    """CKA of every pair of layers; NaN where a layer does not vary."""

    biased: Tensor
    """(L, L) float64 in [0, 1]."""
    unbiased: Tensor
    """(L, L) float64; about 0, and perhaps below it, for unrelated layers."""
    count: int
    """Number of rows n."""


def cka(layers: Sequence[Read], count: int) -> Similarity:
    """Return linear CKA between all pairs of layers, both ways.

    Rows are centred in float64 and brought to a mean squared length of 1, so that products in their
    own type have all its digits at any offset and any scale; they are added up in float64.

    Args:
        layers: Each reads the same rows of one layer.
        count: Number of rows n.

    Raises:
        EstimatorError: Fewer than four rows.

    Examples:
        >>> rows = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
        >>> found = cka([lambda a, b: rows[a:b], lambda a, b: 2 * rows[a:b] + 1], 50)
        >>> round(float(found.biased[0, 1]), 4), round(float(found.unbiased[0, 1]), 4)
        (1.0, 1.0)
    """
    if count < LEAST_ROWS:
        raise EstimatorError(
            f"CKA needs at least {LEAST_ROWS} images, and there are {count}.",
            hint="Give more images, or another split.",
        )
    centred = [_Centred.of(read, count) for read in layers]
    dependence = torch.zeros(len(layers), len(layers), dtype=torch.float64)
    diagonals = torch.zeros(len(layers), count, dtype=torch.float64)
    ends = _ends(count)
    for rows, others in ((own, other) for i, own in enumerate(ends) for other in ends[: i + 1]):
        tiles = [layer.tile(rows, others) for layer in centred]
        dependence += _products(tiles) * (1 if rows == others else 2)
        if rows == others:
            diagonals[:, slice(*rows)] = torch.stack([tile.diagonal() for tile in tiles]).double()
    dead = torch.tensor([layer.dead for layer in centred])
    unbiased = _hsic(dependence, diagonals, count)
    return Similarity(_normalised(dependence, dead), _normalised(unbiased, dead), count)


@dataclass(frozen=True, slots=True)
class _Centred:
    """One layer, less the mean of its rows, in units of their root mean squared length."""

    read: Read
    mean: Tensor
    """(d,) float64."""
    unit: float
    """Root mean squared length of the centred rows; 1 where rounding alone made it."""
    dead: bool
    """Whether the rows are all the same but for rounding."""

    @classmethod
    def of(cls, read: Read, count: int) -> _Centred:
        sizes, means, squares = [], [], []
        for start, stop in _ends(count):
            block = read(start, stop).double()
            sizes.append(stop - start)
            means.append(block.mean(0))
            squares.append((block - means[-1]).square().sum())
        share = torch.tensor(sizes, dtype=torch.float64) / count
        mean = share @ torch.stack(means)
        between = share @ (torch.stack(means) - mean).square().sum(1)
        unit = math.sqrt(float(torch.stack(squares).sum() / count + between))
        rounding = float(mean.norm()) * torch.finfo(mean.dtype).eps * ROUNDED
        return cls(read, mean, unit if unit > rounding else 1.0, unit <= rounding)

    def rows(self, start: int, stop: int) -> Tensor:
        """Return some rows, ready for products, in their own type."""
        read = self.read(start, stop)
        return ((read.double() - self.mean) / self.unit).to(read.dtype)

    def tile(self, rows: tuple[int, int], others: tuple[int, int]) -> Tensor:
        """Return the similarities of some rows with others."""
        left = self.rows(*rows)
        return left @ (left if rows == others else self.rows(*others)).T


def _ends(count: int) -> list[tuple[int, int]]:
    return list(pairwise([*range(0, count, TILE), count]))


def _products(tiles: Sequence[Tensor]) -> Tensor:
    """Return the (L, L) sums of products of similarities over one tile."""
    flat = [tile.reshape(-1) for tile in tiles]
    total = torch.zeros(len(tiles), len(tiles), dtype=torch.float64)
    for start in range(0, len(flat[0]), CHUNK):
        wide = torch.stack([one[start : start + CHUNK] for one in flat]).double()
        total += wide @ wide.T
    return total


def _hsic(dependence: Tensor, diagonals: Tensor, n: int) -> Tensor:
    """Return n(n − 3) times HSIC₁ of every pair."""
    traces = diagonals.sum(1)
    own = diagonals @ diagonals.T
    return dependence - own * (n / (n - 2)) + torch.outer(traces, traces) / ((n - 1) * (n - 2))


def _normalised(dependence: Tensor, dead: Tensor) -> Tensor:
    own = dependence.diagonal()
    unknown = dead | (own <= 0)
    scale = torch.where(unknown, torch.nan, own.clamp(min=0).sqrt())
    return dependence / torch.outer(scale, scale)
