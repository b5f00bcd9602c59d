"""Trying an estimator on one layer: what it gives, and how it fails."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from layerscope.probing.cells import NUMERICAL
from layerscope.testing.findings import described
from layerscope.testing.layers import HeldLayer
from layerscope.types import SPLITS, Direction, Estimator, Score, Task


class Failure(Exception):
    """An estimator gave no scores; ``alone``: for this layer, and the run would go on."""

    def __init__(self, reason: str, *, alone: bool) -> None:
        super().__init__(reason)
        self.alone = alone


def attempt(estimator: Estimator, layer: HeldLayer, task: Task) -> list[Score]:
    """Return the scores of one task on one layer.

    Raises:
        Failure: There are none.
    """
    try:
        scores = list(estimator.score(layer, [task]))
    except NUMERICAL as error:
        raise Failure(str(error), alone=True) from error
    except Exception as error:  # whatever it is, it is the finding
        raise Failure(described(error), alone=False) from error
    if not scores:
        raise Failure("it gives no score.", alone=False)
    return scores


def expected_columns(estimator: Estimator, layer: HeldLayer, task: Task) -> dict[str, Any]:
    """Return what each score of a probe has to say of where it comes from, by column."""
    cut = layer.cut
    return {
        **{name: getattr(layer, name) for name in ("checkpoint", "source", "fingerprint")},
        "cut": cut.name,
        **{name: getattr(cut, name) for name in ("index", "part", "width", "pooling")},
        "task": task.name,
        "estimator": estimator.name,
        **{f"n_{split}": len(layer.places(split)) for split in SPLITS},
        "n_groups": len(np.unique(layer.groups("test"))),
    }


def faults(scores: Sequence[Score], metric: str, direction: Direction) -> Iterator[str]:
    """Yield what is wrong with the numbers of scores, of which one is to be of a metric."""
    primary = [(score.metric, score.direction) for score in scores if score.primary]
    if primary != [(metric, direction)]:
        yield f"Of its scores, {len(primary)} are primary, not one of {metric}."
    for score in scores:
        if not np.isfinite((score.val, score.test, score.stderr)).all() or score.stderr < 0:
            yield f"{score.metric} is {score.val:g} and {score.test:g} ± {score.stderr:g}."


def unfit(layer: HeldLayer) -> dict[str, HeldLayer]:
    """Return the layer with features that fit no estimator, or few, by what is wrong with them."""
    lost, endless = (layer.places(split)[3:4] for split in SPLITS[1:])
    return {
        "a feature of nan in val": layer.with_rows(lost, np.nan),
        "a feature of inf in test": layer.with_rows(endless, np.inf),
        "constant features": layer.with_rows(np.arange(len(layer.rows)), 0.1),
    }


def mishaps(estimator: Estimator, task: Task, layers: Mapping[str, HeldLayer]) -> Iterator[str]:
    """Yield what an estimator makes of broken layers that ends a run, or that passes for a value.

    The layers are given by what is wrong with them.
    """
    for what, tried in layers.items():
        try:
            scores = attempt(estimator, tried, task)
        except Failure as failure:
            if not failure.alone:
                yield f"With {what} it ends the whole run, not the cell alone: {failure}"
            continue
        numbers = [value for it in scores for value in (it.val, it.test, it.stderr)]
        # Of features that are finite, a number is as welcome as a refusal.
        if np.isfinite(numbers).all() and not np.isfinite(tried.rows).all():
            yield f"With {what} it gives numbers."
