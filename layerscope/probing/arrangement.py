"""Arrangements: how a layer is handed to an estimator, as the table of scores names it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from layerscope.errors import SettingsError
from layerscope.probing.arranged_view import Rows
from layerscope.probing.control import controlled, relabelled
from layerscope.probing.draw import drawn
from layerscope.probing.folds import folded
from layerscope.probing.held_view import divided
from layerscope.types import EVERY_ROW, NO_CONTROL, Arranged, Control, Draw, LayerView, Task


@dataclass(frozen=True, slots=True)
class Arrangement(Arranged):
    """Which rows train, how they are seen, and the seed of what chance decides."""

    draw: Draw = EVERY_ROW
    folds: int = 1
    """More than 1: of training and validation rows together, which are divided so often."""
    control: Control = NO_CONTROL
    seed: int = 0

    @property
    def plain(self) -> bool:
        """Whether chance has no part in it, and estimators see the layer as it is."""
        return self.usual and self.folds == 1


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
        train: Draws of training rows, as :meth:`Draw.parse` reads them.
        controls: As :meth:`Control.parse` reads them; nothing is no control.
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
    draws = dict.fromkeys(Draw.parse(words) for words in train)
    kinds = dict.fromkeys(Control.parse(words) for words in controls)
    return [
        Arrangement(draw, folds if draw.whole else 1, control, seed + turn)
        for control, draw, turn in product(kinds, draws, range(seeds))
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
    control, seed = arrangement.control, arrangement.seed
    if arrangement.folds == 1 and arrangement.draw.whole:
        return [controlled(view, control, seed)]
    return [
        divided(controlled(view, control, seed, train), train, val)
        for train, val in _places(relabelled(view, control, seed), task, arrangement)
    ]


def _places(view: LayerView, task: Task, arrangement: Arrangement) -> list[tuple[Rows, Rows]]:
    """Return the training and validation rows, by their places in both together, of each view."""
    if arrangement.folds > 1:
        return folded(view, task, arrangement.folds, arrangement.seed)
    groups, val = view.groups("train"), len(view.groups("val"))
    labels = view.target(task.name, "train") if task.kind == "classes" else None
    rows = drawn(arrangement.draw, labels, groups, arrangement.seed)
    return [(rows, np.arange(len(groups), len(groups) + val))]
