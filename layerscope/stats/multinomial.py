"""Multinomial counts for a bootstrap of many units that look alike, by many seeds at once.

A resample of G units draws G of them with replacement. Where units that look alike share a cell
(two images that the same layers get right), only the counts of cells matter, and these are
multinomial with the cells' sizes as weights. Units are drawn one by one and counted by cell, so
that neither the seed's meaning nor a result depends on how units were put into cells.

The generator is SplitMix64 (Steele, Lea and Flood 2014, "Fast Splittable Pseudorandom Number
Generators", figure 14), each resample with a stream of its own, so that neither the number of
threads nor the size of a block changes a draw. Half a word becomes a unit by multiplication
(Lemire 2019, "Fast Random Integer Generation in an Interval", without the rejection step: the
probability of a unit is off by less than 2⁻³²).
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from layerscope.runtime.cpus import processors

_compiled = numba.njit(nogil=True, cache=True, error_model="numpy")
_WORD = np.uint64
_STEP = _WORD(0x9E3779B97F4A7C15)
_HALF = _WORD(0xFFFFFFFF)


def counts(cells: Tensor, kinds: int, draws: range, seed: int) -> Tensor:
    """Return how often each cell was drawn in some resamples of all units.

    Args:
        cells: (G,) integers from 0 to ``kinds`` − 1: the cell of each unit.
        kinds: Number of cells.
        draws: Which resamples; each is a function of its number and the seed alone.
        seed: Of all resamples.

    Returns:
        (len(draws), kinds) float64, every row with sum G.
    """
    out = np.empty((len(draws), kinds))
    members = np.ascontiguousarray(cells.numpy(), dtype=np.int32)
    blocks = np.array_split(np.arange(len(draws)), len(processors()))
    with ThreadPoolExecutor(len(blocks)) as pool:
        done = [
            pool.submit(_count, members, seed, draws.start + int(b[0]), out[b[0] : b[-1] + 1])
            for b in blocks
            if len(b)
        ]
        for block in done:
            block.result()
    return torch.from_numpy(out)


def alike(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return the distinct rows of a matrix and the place of each row among them.

    Args:
        rows: (G, m) float64; rows are alike when all their bytes are.

    Returns:
        (c, m) distinct rows and (G,) int64 places.
    """
    whole: npt.NDArray[np.float64] = np.ascontiguousarray(rows.numpy())
    as_bytes = whole.view(np.dtype((np.void, whole.itemsize * whole.shape[1])))[:, 0]
    _, first, places = np.unique(as_bytes, return_index=True, return_inverse=True)
    return rows[torch.from_numpy(first)], torch.from_numpy(places.ravel())


@_compiled
def _mixed(word: np.uint64) -> np.uint64:
    word = (word ^ (word >> _WORD(30))) * _WORD(0xBF58476D1CE4E5B9)
    word = (word ^ (word >> _WORD(27))) * _WORD(0x94D049BB133111EB)
    return word ^ (word >> _WORD(31))


@_compiled
def _count(
    cells: npt.NDArray[np.int32], seed: int, first: int, out: npt.NDArray[np.float64]
) -> None:
    units, half = _WORD(len(cells)), _WORD(32)
    # Integers stay in the nearest cache where a row of floats would not.
    row = np.empty(out.shape[1], np.int32)
    for draw in range(len(out)):
        row[:] = 0
        state = _mixed(_mixed(_WORD(seed) + _STEP) + _WORD(first + draw) * _STEP)
        for _ in range(len(cells) // 2):
            state += _STEP
            word = _mixed(state)
            row[cells[((word & _HALF) * units) >> half]] += 1
            row[cells[((word >> half) * units) >> half]] += 1
        if len(cells) % 2:
            row[cells[((_mixed(state + _STEP) >> half) * units) >> half]] += 1
        out[draw] = row
