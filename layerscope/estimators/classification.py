"""Classification: labels, what a classifier made of the rows of a split, and its scores."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from layerscope.errors import EstimatorError
from layerscope.estimators.cell import Cell, MetricValue, losses, require_metric
from layerscope.estimators.layer import read_target
from layerscope.stats.standard_error import standard_errors
from layerscope.types import FEW, SPLITS, Direction, LayerView, Score, Split, Task

Labels = npt.NDArray[np.int64]
Answers = Literal["probabilities", "scores", "labels"]
"""What a classifier says of a row: probabilities of the classes, values that only rank them, or the
predicted class alone."""

FLOOR = 1e-12
"""Least probability: what a class that training lacks is given."""
BINS = 15
"""Of equal width in confidence, for the calibration error (Guo et al. 2017)."""
DIRECTIONS: Mapping[str, Direction] = {
    "top-1": "maximise",
    "top-5": "maximise",
    "mean-per-class": "maximise",
    "nll": "minimise",
    "ece": "minimise",
}


@dataclass(frozen=True, slots=True)
class Target:
    """The labels of one task, and how training numbers its classes."""

    task: Task
    labels: Mapping[Split, Labels]
    """(n,) by split, as the task has them."""
    classes: Labels
    """(c,) those that training has, ascending."""

    def places(self, split: Split) -> Tensor:
        """Return (n,) int64 places in ``classes``, and -1 for a class that training lacks."""
        labels = self.labels[split]
        place = np.searchsorted(self.classes, labels).clip(max=len(self.classes) - 1)
        return torch.from_numpy(np.where(self.classes[place] == labels, place, -1))


@dataclass(frozen=True, slots=True)
class Judged:
    """What a classifier made of the rows of one split."""

    truth: Labels
    """(n,) labels."""
    predicted: Labels
    """(n,) labels."""
    surprise: Tensor | None = None
    """(n,) negative log-probabilities of the true classes in nats, where there are any."""
    confidence: Tensor | None = None
    """(n,) probabilities of the predicted classes, where there are any."""
    found: Tensor | None = None
    """(n,) 1 where the true class is among the five most likely ones of more, else 0."""

    @property
    def right(self) -> Tensor:
        """(n,) float64, 1 where the prediction is the truth."""
        return torch.from_numpy(self.predicted == self.truth).double()

    @property
    def sound(self) -> bool:
        """Whether every row has a probability, which no classifier that diverged gives."""
        return self.surprise is not None and bool(self.surprise.isfinite().all())

    def columns(self) -> dict[str, Tensor]:
        """Return by metric (n,) values of which the metric is the mean.

        Means over classes and the calibration error are no means over rows; their values are the
        metric plus each row's influence on it, so that their standard errors are right too.
        """
        known = {"top-1": self.right}
        if self.found is not None:
            known["top-5"] = self.found
        known["mean-per-class"] = _balanced(self.right, self.truth)
        if self.surprise is not None:
            known["nll"] = self.surprise
        if self.confidence is not None:
            known["ece"] = _miscalibration(self.confidence, self.right)
        return known

    def losses(self, metric: str) -> Tensor:
        """Return (n,) losses whose mean falls as the metric gets better."""
        values = self.columns()[metric]
        return values if DIRECTIONS[metric] == "minimise" else 1 - values

    def ranked_only(self) -> Judged:
        """Return what remains where the scores rank the classes and are no probabilities."""
        return replace(self, surprise=None, confidence=None)

    def rank(self, metric: str) -> tuple[float, float]:
        """Order classifiers by a metric, and those that are equal by their log-likelihood."""
        surprise = 0.0 if self.surprise is None else float(self.surprise.mean())
        return float(self.losses(metric).mean()), surprise


def read_classes(view: LayerView, task: Task) -> Target:
    """Read a task's labels.

    Raises:
        EstimatorError: They are no whole numbers, or training has a single class.
    """
    labels = {split: _labels(view, task, split) for split in SPLITS}
    classes = np.unique(labels["train"])
    if len(classes) == 1:
        raise EstimatorError(
            f"The training rows of {task.name!r} hold a single class.",
            hint="Give at least two classes; check how the splits were made.",
        )
    return Target(task, labels, classes)


def judge(scores: Tensor, target: Target, split: Split) -> Judged:
    """Return what a classifier's scores say of the rows of a split.

    Args:
        scores: (n, c) log-probabilities up to a constant of the row, classes as ``target`` has
            them.
        target: The labels.
        split: Whose rows these are.
    """
    return judge_all([scores[:, None]], target, split)[0]


def judge_all(blocks: Iterable[Tensor], target: Target, split: Split) -> list[Judged]:
    """Return what the scores of k classifiers say, block by block of a split's rows.

    Args:
        blocks: (m, k, c) as for :func:`judge`, in the order of the rows.
        target: The labels.
        split: Whose rows these are.
    """
    places, start = target.places(split), 0
    parts = []
    for block in blocks:
        parts.append(_judge_block(block, places[start : start + len(block)]))
        start += len(block)
    best, confidence, surprise, *found = (torch.cat(part) for part in zip(*parts, strict=True))
    return [
        Judged(
            target.labels[split],
            target.classes[best[:, i].numpy()],
            surprise[:, i],
            confidence[:, i],
            found[0][:, i] if found else None,
        )
        for i in range(best.shape[1])
    ]


def _judge_block(scores: Tensor, places: Tensor) -> tuple[Tensor, ...]:
    """Return (m, k) best places, their probabilities, surprises, and whether few hold the truth."""
    logp = torch.log_softmax(scores, 2)
    truth = places[:, None, None].expand(-1, scores.shape[1], 1)
    confidence, best = logp.max(2)
    of_truth = torch.where(truth < 0, -torch.inf, logp.gather(2, truth.clamp(min=0)))[..., 0]
    surprise = -of_truth.double().clamp(min=math.log(FLOOR))
    known = best, confidence.double().exp(), surprise
    if scores.shape[2] <= FEW:
        return known
    # Where fewer classes have any probability, what fills the few up is not found.
    found = (logp.topk(FEW, 2).indices == truth).any(2) & of_truth.isfinite()
    return *known, found.double()


def offered(target: Target, answers: Answers = "probabilities") -> list[str]:
    """Return the metrics that there are of a task's classes."""
    some = ["top-1", "mean-per-class"]
    if answers == "probabilities":
        some += ["nll", "ece"]
    if answers != "labels" and len(target.classes) > FEW:
        some += ["top-5"]
    return some


def require_classes(target: Target, estimator: str, answers: Answers = "probabilities") -> None:
    """Refuse a task whose primary metric there is not.

    Raises:
        EstimatorError: The metric is none that the classifier gives.
    """
    require_metric(target.task, offered(target, answers), estimator)


def read_targets(
    view: LayerView, tasks: Iterable[Task], estimator: str, answers: Answers = "probabilities"
) -> list[Target]:
    """Read the labels of tasks whose primary metric an estimator gives.

    Raises:
        EstimatorError: Labels of which there is no classifier, or a metric that it does not give.
    """
    targets = [read_classes(view, task) for task in tasks]
    for target in targets:
        require_classes(target, estimator, answers)
    return targets


def classification_scores(cell: Cell, val: Judged, test: Judged) -> Iterator[Score]:
    """Yield the scores of every metric, with the losses of the rows under the primary one."""
    of_val, of_test = val.columns(), test.columns()
    primary = cell.task.metric
    rowwise = losses(val.losses(primary), test.losses(primary), test.predicted)
    errors = standard_errors(torch.stack(list(of_test.values()), 1), cell.layer.groups)
    for (metric, values), stderr in zip(of_test.items(), errors, strict=True):
        means = float(of_val[metric].mean()), float(values.mean())
        yield cell.score(MetricValue(metric, DIRECTIONS[metric], *means, float(stderr)), rowwise)


def _labels(view: LayerView, task: Task, split: Split) -> Labels:
    target = read_target(view, task.name, split)
    if target.ndim != 1 or not np.issubdtype(target.dtype, np.integer):
        raise EstimatorError(
            f"The {split} classes of {task.name!r} are {target.dtype} of shape {target.shape}.",
            hint="Give one whole number for each image.",
        )
    return target.astype(np.int64)


def _balanced(right: Tensor, truth: Labels) -> Tensor:
    """Return (n,) values whose mean is the mean over the split's classes of their accuracy."""
    labels = torch.from_numpy(truth)
    _, place, count = torch.unique(labels, return_inverse=True, return_counts=True)
    accuracy = right.new_zeros(len(count)).index_add_(0, place, right) / count
    weight = len(labels) / (len(count) * count[place])
    balanced: Tensor = accuracy.mean() + (right - accuracy[place]) * weight
    return balanced


def _miscalibration(confidence: Tensor, right: Tensor) -> Tensor:
    """Return (n,) values whose mean is the expected calibration error (Guo et al. 2017, eq. 5).

    A row counts for its bin with the sign of the bin's own error, which it hardly influences.
    """
    bins = (confidence * BINS).long().clamp(0, BINS - 1)
    excess = confidence - right
    sums = excess.new_zeros(BINS).index_add_(0, bins, excess)
    return excess * sums.sign()[bins]
