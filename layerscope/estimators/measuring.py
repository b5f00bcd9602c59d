"""Measures: what all of them share, from the rows of a split to the scores of a cut.

A measure fits nothing, so it has no use for training rows: its value on ``val`` is of the
validation rows alone and that on ``test`` of the test rows alone. Whoever ranks layers by it on
validation and reports on test is as honest as with a probe.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from layerscope.errors import EstimatorError
from layerscope.estimators.layer import read_features, read_target
from layerscope.types import Direction, LayerView, Measure, Score, Split, Task

VIEWS_HINT = "Extract the features with --views 2 or more, so that rows are views of images."


@dataclass(frozen=True, slots=True)
class Sample:
    """The rows of one split, and which of them belong together."""

    features: Tensor
    """(n, d) float32, finite."""
    groups: Tensor
    """(n,) int64 group of each row: what is independent."""
    images: Tensor
    """(n,) int64 image of which each row is a view; of rows that are no views each its own."""
    augmented: bool
    """Whether rows are augmented views of images."""

    def some(self, limit: int, seed: int) -> Sample:
        """Return at most so many rows, drawn alike for every layer of the same rows."""
        if len(self.features) <= limit:
            return self
        draw = torch.randperm(len(self.features), generator=torch.Generator().manual_seed(seed))
        kept = draw[:limit].sort().values
        return Sample(self.features[kept], self.groups[kept], self.images[kept], self.augmented)


@dataclass(frozen=True, slots=True)
class Reading:
    """One metric of one split: its value and, of the test rows, how sure it is."""

    value: float
    direction: Direction
    stderr: float = 0.0


@dataclass(frozen=True, slots=True)
class Readings:
    """All that a measure gives for one split."""

    by_metric: Mapping[str, Reading]
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What was chosen and how, and curves beside the numbers."""


def read_sample(view: LayerView, split: Split) -> Sample:
    """Read the rows of a split.

    Raises:
        EstimatorError: There are none, or a feature is not finite.
    """
    features = read_features(view, split)
    names = np.unique(view.groups(split), return_inverse=True)[1].ravel()
    groups = torch.from_numpy(names.astype(np.int64))
    augmented = is_augmented(view, split)
    images = torch.from_numpy(view.instances(split)) if augmented else torch.arange(len(features))
    return Sample(features, groups, images, augmented)


def is_augmented(view: LayerView, split: Split) -> bool:
    """Return whether the rows of a split are augmented views of images."""
    numbers = getattr(view, "views", None)  # caches of one row to an image need not number them
    return numbers is not None and len(np.unique(numbers(split))) > 1


def require_views(sample: Sample, name: str) -> None:
    """Refuse rows that are not augmented views.

    Raises:
        EstimatorError: They are not.
    """
    if not sample.augmented:
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


def measure_scores(
    measure: Measure, view: LayerView, task: Task, read: Callable[[Split], Readings], seed: int = 0
) -> Iterator[Score]:
    """Yield a row of the table for each metric of a measure.

    Args:
        measure: Which.
        view: The cut.
        task: Whose labels it uses, or that of no labels.
        read: Computes the metrics of a split; standard errors are wanted of ``test`` alone.
        seed: Of what chance decides.
    """
    definition, val, test = measure.definition(task), read("val"), read("test")
    settings = {"convention": definition.convention, **test.settings}
    counts = {split: len(view.groups(split)) for split in ("val", "test")}
    for metric, reading in test.by_metric.items():
        yield Score.at(
            view,
            task,
            estimator=measure.name,
            metric=metric,
            direction=reading.direction,
            primary=metric == definition.metric,
            val=val.by_metric[metric].value,
            test=reading.value,
            stderr=reading.stderr,
            n_train=0,
            n_val=counts["val"],
            n_test=counts["test"],
            n_groups=len(np.unique(view.groups("test"))),
            seed=seed,
            settings=settings,
            kind="measure",
        )
