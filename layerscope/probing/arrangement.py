"""Arrangements: how a layer is handed to an estimator, as the table of scores names it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from layerscope.errors import SettingsError
from layerscope.probing.arranged_view import DividedView
from layerscope.probing.control import controlled, parse_control
from layerscope.probing.draw import drawn, parse_draw
from layerscope.probing.folds import folded
from layerscope.types import LayerView, Task


@dataclass(frozen=True, slots=True)
class Arrangement:
    """Which rows train, how they are seen, and the seed of what chance decides."""

    train: str = "all"
    """``all``, ``10%``, ``5/class``, or ``5 folds`` of training and validation rows together."""
    control: str = ""
    """``width=64``, ``pca=64``, ``shuffled``, or nothing."""
    seed: int = 0

    @property
    def plain(self) -> bool:
        """Whether chance has no part in it, and estimators see the layer as it is."""
        return self.train == "all" and not self.control

    @property
    def folds(self) -> int:
        """The number of folds; 1 is none."""
        count, _, word = self.train.partition(" ")
        return int(count) if word == "folds" else 1


def arrangements(
    train: Sequence[str] = ("all",),
    controls: Sequence[str] = ("",),
    *,
    folds: int = 1,
    seed: int = 0,
    seeds: int = 1,
) -> list[Arrangement]:
    """Return all combinations of training rows, controls and seeds, in order.

    Args:
        train: Draws of training rows, as :func:`parse_draw` reads them.
        controls: As :func:`parse_control` reads them; nothing is no control.
        folds: More than 1 stands for all rows in so many folds, instead of ``all``.
        seed: The first.
        seeds: How many; of the plain arrangement estimators themselves tell whether one matters.

    Raises:
        SettingsError: A draw or control is unknown, or there are no seeds.
    """
    if seeds < 1 or folds < 1:
        raise SettingsError(
            f"{seeds} seeds and {folds} folds were asked for.", hint="Give numbers from 1 up."
        )
    for name in train:
        parse_draw(name)
    for name in controls:
        parse_control(name)
    whole = f"{folds} folds" if folds > 1 else "all"
    rows = [whole if parse_draw(name).whole else name for name in train]
    return [
        Arrangement(which, control, seed + turn)
        for control, which, turn in product(controls, dict.fromkeys(rows), range(seeds))
    ]


def arranged(view: LayerView, task: Task, arrangement: Arrangement) -> list[LayerView]:
    """Return a layer as an estimator sees it under an arrangement: one view, or one of each fold.

    Args:
        view: The layer.
        task: Whose classes a draw respects.
        arrangement: How.

    Raises:
        SettingsError: The rows, or the width, are not enough for it.
    """
    seen = controlled(view, parse_control(arrangement.control), arrangement.seed)
    if arrangement.folds > 1:
        return list(folded(seen, task, arrangement.folds, arrangement.seed))
    draw = parse_draw(arrangement.train)
    if draw.whole:
        return [seen]
    count, val = len(view.groups("train")), len(view.groups("val"))
    labels = seen.target(task.name, "train") if task.kind == "classes" else None
    rows = drawn(draw, labels, count, arrangement.seed)
    return [DividedView(seen, rows, np.arange(count, count + val))]
