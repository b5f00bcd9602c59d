"""Standardised rows for solvers that pass over them often: held in memory, or read each time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from layerscope.stats.spectrum import Standardiser

BLOCK = 1024
"""Least rows of a block: enough that products, and not calls, take the time."""
LARGEST = 1 << 15
"""Most rows of a block."""
COMPUTED = 1 << 22
"""Numbers computed of a block: oneDNN's products are the quicker the larger they are, and more
would count beside the features in memory."""


def standardised(rows: Tensor, standardiser: Standardiser, dtype: torch.dtype) -> HeldRows:
    """Return (n, d) rows standardised, in the type of the products."""
    held = torch.empty(rows.shape, dtype=dtype)
    for place, block in StreamedRows(lambda: [rows], standardiser, dtype).blocks():
        held[place] = block
    return HeldRows(held)


def rows_for(width: int) -> int:
    """Return how many rows a block is to have when so many numbers are computed of each."""
    return min(LARGEST, max(BLOCK, COMPUTED // max(width, 1)))


class Rows(Protocol):
    """The same rows in the same order, whenever they are asked for."""

    @property
    def dtype(self) -> torch.dtype:
        """Of the features, and so of the products."""
        ...

    def blocks(self, size: int = BLOCK) -> Iterator[tuple[slice, Tensor]]:
        """Yield the places of at most ``size`` rows and their (m, d) standardised features."""
        ...


@dataclass(frozen=True, slots=True)
class HeldRows:
    """Rows that are held in memory."""

    features: Tensor
    """(n, d) standardised, float32 or float64."""

    @property
    def dtype(self) -> torch.dtype:
        return self.features.dtype

    def blocks(self, size: int = BLOCK) -> Iterator[tuple[slice, Tensor]]:
        for start in range(0, len(self.features), size):
            place = slice(start, min(start + size, len(self.features)))
            yield place, self.features[place]


@dataclass(frozen=True, slots=True)
class StreamedRows:
    """Rows that are standardised anew for each pass, because memory should not hold them twice."""

    read: Callable[[], Iterable[Tensor]]
    """Returns (m, d) features as they are, in the same order each time."""
    standardiser: Standardiser
    dtype: torch.dtype = torch.float32

    def blocks(self, size: int = BLOCK) -> Iterator[tuple[slice, Tensor]]:
        # What the mean loses in a shorter type shifts every row alike, as the intercept can.
        mean = self.standardiser.mean.to(self.dtype)
        scale = self.standardiser.scale.to(self.dtype)
        start = 0
        for rows in self.read():
            # Every block is a copy here, which should stay small beside the rows.
            for block in torch.split(rows, min(size, max(BLOCK, COMPUTED // rows.shape[1]))):
                yield slice(start, start + len(block)), (block.to(self.dtype) - mean).mul_(scale)
                start += len(block)
