"""Draws of training rows: a share of them, or some of every class, the same at every layer."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from layerscope.errors import SettingsError

_SHARE = re.compile(r"(\d+(?:\.\d+)?)%")
_EACH = re.compile(r"(\d+)/class")
HUNDRED = 100.0


@dataclass(frozen=True, slots=True)
class Draw:
    """How many training rows are drawn: all, a share of each class, or a number of each."""

    name: str
    share: float = 1.0
    each: int | None = None

    @property
    def whole(self) -> bool:
        """Whether every training row is taken."""
        return self.share == 1 and self.each is None


def parse_draw(name: str) -> Draw:
    """Return the draw that a user named: ``all``, ``10%`` or ``5/class``.

    Raises:
        SettingsError: It is none of these.

    Examples:
        >>> parse_draw("2.5%").share, parse_draw("5/class").each
        (0.025, 5)
    """
    if name == "all":
        return Draw(name)
    share, each = _SHARE.fullmatch(name), _EACH.fullmatch(name)
    if share and 0 < float(share[1]) <= HUNDRED:
        return Draw(name, share=float(share[1]) / HUNDRED)
    if each and int(each[1]):
        return Draw(name, each=int(each[1]))
    raise SettingsError(
        f"{name!r} does not say which training rows to take.",
        hint="Give all, a share such as 10%, or a number of every class such as 5/class.",
    )


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
        if draw.each is not None:
            raise SettingsError(
                f"{draw.name!r} asks for rows of every class of a task that has no classes.",
                hint="Give a share, such as 10%.",
            )
        return np.sort(order[: max(1, round(draw.share * count))])
    taken = []
    for label in np.unique(labels):
        rows = order[labels[order] == label]
        wanted = max(1, round(draw.share * len(rows))) if draw.each is None else draw.each
        if wanted > len(rows):
            raise SettingsError(
                f"{draw.name!r} asks for {wanted} training rows of class {label}, which has "
                f"{len(rows)}.",
                hint="Ask for fewer, or for a share such as 10%.",
            )
        taken.append(rows[:wanted])
    return np.sort(np.concatenate(taken))
