"""A cell of the table: what all the scores of one task at one cut share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from layerscope.errors import EstimatorError
from layerscope.estimators.layer import LayerRows
from layerscope.types import Direction, LayerView, Losses, Replicates, Score, Task

DRAWS = 2_000
"""Resamples behind a standard error: enough for two digits of it; verdicts draw more."""


@dataclass(frozen=True, slots=True)
class MetricValue:
    """One metric of one task: its values and how sure the test value is."""

    metric: str
    direction: Direction
    val: float
    test: float
    stderr: float


@dataclass(frozen=True, slots=True)
class Cell:
    """Everything in a :class:`Score` except the metric."""

    view: LayerView
    layer: LayerRows
    task: Task
    estimator: str
    seed: int
    settings: Mapping[str, Any]
    note: str = ""

    def score(self, value: MetricValue, losses: Losses) -> Score:
        """Return one row of the table; the losses go with the task's primary metric."""
        primary = value.metric == self.task.metric
        return Score.at(
            self.view,
            self.task,
            estimator=self.estimator,
            metric=value.metric,
            direction=value.direction,
            primary=primary,
            val=value.val,
            test=value.test,
            stderr=value.stderr,
            n_train=self.layer.count("train"),
            n_val=self.layer.count("val"),
            n_test=self.layer.count("test"),
            n_groups=self.layer.n_groups,
            seed=self.seed,
            settings={**self.settings, "rare_features": self.layer.rare},
            note=" ".join(filter(None, (self.note, self.layer.note))),
            losses=replace(losses, train_groups=self._train_groups()) if primary else None,
        )

    def _train_groups(self) -> int:
        return len(np.unique(self.view.groups("train")))


def losses(
    val: Tensor,
    test: Tensor,
    predicted: npt.NDArray[Any] | None = None,
    replicates: tuple[Replicates, ...] = (),
) -> Losses:
    """Return (n_val,) and (n_test,) losses as float64 arrays, with what belongs to them."""
    of_val, of_test = (np.asarray(rows, dtype=np.float64) for rows in (val, test))
    return Losses(of_val, of_test, predicted, replicates)


def require_metric(task: Task, offered: Iterable[str], estimator: str) -> None:
    """Refuse a task whose primary metric the estimator cannot give row by row.

    Raises:
        EstimatorError: The metric is not among those offered.
    """
    known = sorted(offered)
    if task.metric not in known:
        raise EstimatorError(
            f"The estimator {estimator!r} cannot choose a cut of {task.name!r} by {task.metric!r}.",
            hint=f"Set the task's metric to one of {', '.join(known)}.",
        )
