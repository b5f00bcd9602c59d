"""Trying an estimator on one layer: what it gives, and how it fails."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from layerscope.probing.cells import NUMERICAL
from layerscope.testing.findings import described
from layerscope.testing.layers import HeldLayer
from layerscope.types import SPLITS, Estimator, Score, Task


class Failure(Exception):
    """An estimator gave no scores.

    Args:
        reason: Why.
        alone: Whether only this layer would be without them, and the run would go on.
    """

    def __init__(self, reason: str, *, alone: bool) -> None:
        super().__init__(reason)
        self.alone = alone


@dataclass(frozen=True, slots=True)
class Mishap:
    """A layer with something wrong."""

    what: str
    layer: HeldLayer
    hopeless: bool = False
    """Whether no number can be right; otherwise one is as welcome as a refusal."""


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


def unfit(layer: HeldLayer) -> Iterator[Mishap]:
    """Yield the layer with features that fit no estimator, or few."""
    lost, endless = (layer.places(split)[3:4] for split in SPLITS[1:])
    yield Mishap("a feature of nan in val", layer.with_rows(lost, np.nan), hopeless=True)
    yield Mishap("a feature of inf in test", layer.with_rows(endless, np.inf), hopeless=True)
    yield Mishap("constant features", layer.with_rows(np.arange(len(layer.rows)), 0.1))


def mishaps(estimator: Estimator, task: Task, layers: Iterable[Mishap]) -> Iterator[str]:
    """Yield what an estimator makes of broken layers that ends a run, or that passes for a value.

    Args:
        estimator: Which.
        task: For which.
        layers: To be tried.
    """
    for broken in layers:
        try:
            scores = attempt(estimator, broken.layer, task)
        except Failure as failure:
            if not failure.alone:
                yield f"With {broken.what} it ends the whole run, not the cell alone: {failure}"
            continue
        numbers = [value for it in scores for value in (it.val, it.test, it.stderr)]
        if broken.hopeless and np.isfinite(numbers).all():
            yield f"With {broken.what} it gives numbers."
