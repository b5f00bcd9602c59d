"""Draws of training rows: a share of them, or some of every class, the same at every layer."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from layerscope.errors import SettingsError
from layerscope.types import Draw


def drawn(
    draw: Draw, labels: npt.NDArray[np.int64] | None, count: int, seed: int
) -> npt.NDArray[np.int64]:
    """Return the places of the rows that a draw takes, ascending.

    The smaller of two draws with one seed is part of the larger, so that curves over the number of
    rows are not blurred by which rows they are. Of a share, every class keeps at least one row.

    Args:
        draw: How many.
        labels: (count,) classes, or None where there are none, as of latents.
        count: Number of training rows.
        seed: Of the draw.

    Raises:
        SettingsError: A number of every class is wanted where there are no classes, or a class has
            fewer rows.
    """
    order = np.random.default_rng(seed).permutation(count)
    if labels is None:
        if draw.each:
            raise SettingsError(
                f"{str(draw)!r} asks for rows of every class of a task that has no classes.",
                hint="Give a share, such as 10%.",
            )
        return np.sort(order[: max(1, round(draw.share * count))])
    taken = []
    for label in np.unique(labels):
        rows = order[labels[order] == label]
        wanted = draw.each or max(1, round(draw.share * len(rows)))
        if wanted > len(rows):
            raise SettingsError(
                f"{str(draw)!r} asks for {wanted} training rows of class {label}, which has "
                f"{len(rows)}.",
                hint="Ask for fewer, or for a share such as 10%.",
            )
        taken.append(rows[:wanted])
    return np.sort(np.concatenate(taken))
