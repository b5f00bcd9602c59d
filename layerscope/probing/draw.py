"""Draws of training rows: a share of them, or some of every class, the same at every layer."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from layerscope.errors import SettingsError
from layerscope.probing.row_groups import RowGroups
from layerscope.types import Draw


def drawn(
    draw: Draw, labels: npt.NDArray[np.int64] | None, groups: npt.NDArray[Any], seed: int
) -> npt.NDArray[np.int64]:
    """Return the places of the rows that a draw takes, ascending.

    Groups are taken whole, in an order that the seed decides: of every class the first groups that
    hold it, as many as bring the number of its rows nearest to the one that is wanted, and one at
    least. Where every row is a group of its own the numbers are exact. Where groups hold several
    classes a share takes those that are due for most of their rows, and a number of each class
    those that are due for any. The smaller of two draws with one seed is part of the larger, so
    that curves over the number of rows are not blurred by which rows they are.

    Args:
        draw: How many.
        labels: (n,) classes, or None where there are none, as of latents.
        groups: (n,) names of the groups of the training rows.
        seed: Of the draw.

    Raises:
        SettingsError: A number of every class is wanted where there are no classes, or a class has
            fewer rows.
    """
    known = RowGroups.of(groups)
    turn = np.empty(len(known), np.int64)
    turn[np.random.default_rng(seed).permutation(len(known))] = np.arange(len(known))
    turns = turn[known.of_row]
    if labels is None:
        if draw.each:
            raise SettingsError(
                f"{str(draw)!r} asks for rows of every class of a task that has no classes.",
                hint="Give a share, such as 10%.",
            )
        labels = np.zeros(len(turns), np.int64)
    classes, kinds, counts = np.unique(labels, return_inverse=True, return_counts=True)
    wanted = _wanted(draw, classes, counts)
    # Every class of every group, by classes, and for each class in the order of the groups.
    pairs, sizes = np.unique(kinds.ravel() * len(known) + turns, return_counts=True)
    kind, group = np.divmod(pairs, len(known))
    before = np.concatenate(([0], np.cumsum(counts)))[kind]
    # Taken until here a group leaves its class as far below what is wanted as above.
    due = (np.cumsum(sizes) - before - sizes / 2) / wanted[kind]
    if draw.each:
        taken = np.bincount(group, due < 1, len(known)) > 0
    else:
        taken = np.bincount(group, sizes * (due - 1), len(known)) < 0
    taken[group[np.unique(kind, return_index=True)[1]]] = True
    return np.flatnonzero(taken[turns])


def _wanted(
    draw: Draw, classes: npt.NDArray[np.int64], counts: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """Return how many rows of each class are wanted, of those that there are."""
    if not draw.each:
        return np.maximum(1, np.round(draw.share * counts))
    few = np.flatnonzero(counts < draw.each)
    if len(few):
        raise SettingsError(
            f"{str(draw)!r} asks for {draw.each} training rows of class {classes[few[0]]}, which "
            f"has {counts[few[0]]}.",
            hint="Ask for fewer, or for a share such as 10%.",
        )
    return np.full(len(counts), float(draw.each))
