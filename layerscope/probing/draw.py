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
    least. So 10 % of rows in groups are 10 % of the groups, and where every row is a group of its
    own the numbers are exact. The smaller of two draws with one seed is part of the larger, so that
    curves over the number of rows are not blurred by which rows they are.

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
    taken = np.zeros(len(known), np.bool_)
    for label in np.unique(labels):
        rows = turns[labels == label]
        wanted = draw.each or max(1, round(draw.share * len(rows)))
        if wanted > len(rows):
            raise SettingsError(
                f"{str(draw)!r} asks for {wanted} training rows of class {label}, which has "
                f"{len(rows)}.",
                hint="Ask for fewer, or for a share such as 10%.",
            )
        taken[_first_turns(rows, wanted)] = True
    return np.flatnonzero(taken[turns])


def _first_turns(turns: npt.NDArray[np.int64], wanted: int) -> npt.NDArray[np.int64]:
    """Return the first groups of (m,) rows that together come nearest to a number of rows."""
    in_order, sizes = np.unique(turns, return_counts=True)
    nearest = int(np.abs(np.cumsum(sizes) - wanted).argmin())
    return in_order[: nearest + 1]
