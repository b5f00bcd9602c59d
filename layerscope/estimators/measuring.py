"""Measures: what all of them share, from the rows of a split to the scores of a cut.

A measure fits nothing, so it has no use for training rows: its value on ``val`` is of the
validation rows alone and that on ``test`` of the test rows alone. Whoever ranks layers by it on
validation and reports on test is as honest as with a probe.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from layerscope.errors import EstimatorError
from layerscope.estimators.layer import read_features, read_target
from layerscope.types import Definition, Direction, Kind, LayerView, Measure, Score, Split, Task

VIEWS_HINT = "Extract the features with --views 2 or more, so that rows are views of images."


@dataclass(frozen=True, slots=True)
class SplitRows:
    """The rows of one split, and which of them belong together."""

    features: Tensor
    """(n, d) float32, finite."""
    groups: Tensor
    """(n,) int64 group of each row: what is independent."""
    images: Tensor
    """(n,) int64 image of which each row is a view; of rows that are no views each its own."""
    augmented: bool
    """Whether rows are augmented views of images."""

    def some(self, limit: int, seed: int) -> SplitRows:
        """Return at most so many rows, drawn alike for every layer of the same rows."""
        if len(self.features) <= limit:
            return self
        draw = torch.randperm(len(self.features), generator=torch.Generator().manual_seed(seed))
        kept = draw[:limit].sort().values
        return SplitRows(self.features[kept], self.groups[kept], self.images[kept], self.augmented)


@dataclass(frozen=True, slots=True)
class SplitValue:
    """One metric of one split: its value and, of the test rows, how sure it is."""

    value: float
    direction: Direction
    stderr: float = 0.0


@dataclass(frozen=True, slots=True)
class SplitValues:
    """All that a measure gives for one split."""

    by_metric: Mapping[str, SplitValue]
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What was chosen and how, and curves beside the numbers."""


def read_rows(view: LayerView, split: Split) -> SplitRows:
    """Read the rows of a split.

    Raises:
        EstimatorError: There are none, or a feature is not finite.
    """
    features = read_features(view, split)
    names = np.unique(view.groups(split), return_inverse=True)[1].ravel()
    groups = torch.from_numpy(names.astype(np.int64))
    augmented = len(np.unique(view.views(split))) > 1
    images = torch.from_numpy(view.instances(split)) if augmented else torch.arange(len(features))
    return SplitRows(features, groups, images, augmented)


def require_views(split_rows: SplitRows, name: str) -> None:
    """Refuse rows that are not augmented views.

    Raises:
        EstimatorError: They are not.
    """
    if not split_rows.augmented:
        raise EstimatorError(
            f"{name!r} compares augmented views of an image, and the cache has one row to each.",
            hint=VIEWS_HINT,
        )


def read_labels(view: LayerView, task: str, split: Split) -> Tensor:
    """Return the (n,) int64 classes of a split, numbered from 0 in their order.

    Args:
        view: The cut.
        task: The name of one of classes.
        split: Which rows.

    Raises:
        EstimatorError: Their number differs from that of the rows.
    """
    target = read_target(view, task, split)
    if target.ndim != 1 or not np.issubdtype(target.dtype, np.integer):
        raise EstimatorError(
            f"The targets of {task!r} are {target.dtype} of shape {target.shape}.",
            hint="Classes are whole numbers, one for each row.",
        )
    return torch.from_numpy(np.unique(target, return_inverse=True)[1].ravel().astype(np.int64))


@dataclass(frozen=True)
class SplitMeasure(Measure):
    """A measure that computes its metrics of the validation rows and of the test rows alike.

    Args:
        seed: Of what chance decides.
    """

    seed: int = 0
    name: str = ""

    targets: ClassVar[Kind] = "none"
    """Of the tasks that it handles."""
    defined: ClassVar[Definition]
    """What its headline is, where no setting has a say in that."""

    @abstractmethod
    def of_split(self, view: LayerView, task: Task, split: Split) -> SplitValues:
        """Return the metrics of the rows of a split; standard errors are wanted of test alone.

        Raises:
            EstimatorError: The measure is not defined on these rows.
        """

    def handles(self, task: Task) -> bool:
        return task.kind == self.targets

    def definition(self, task: Task) -> Definition:
        del task
        return self.defined

    def score(self, view: LayerView, tasks: Sequence[Task]) -> Iterator[Score]:
        """Yield a row of the table for each metric of each task.

        Raises:
            EstimatorError: The measure is not defined on these rows.
        """
        for task in tasks:
            yield from self._scores(view, task)

    def _scores(self, view: LayerView, task: Task) -> Iterator[Score]:
        definition = self.definition(task)
        val, test = self.of_split(view, task, "val"), self.of_split(view, task, "test")
        for metric, value in test.by_metric.items():
            yield Score.at(
                view,
                task,
                estimator=self.name,
                metric=metric,
                direction=value.direction,
                primary=metric == definition.metric,
                val=val.by_metric[metric].value,
                test=value.value,
                stderr=value.stderr,
                n_train=0,
                n_val=len(view.groups("val")),
                n_test=len(view.groups("test")),
                n_groups=len(np.unique(view.groups("test"))),
                seed=self.seed,
                settings={"convention": definition.convention, **test.settings},
                kind="measure",
            )
