"""Classification: labels, what a classifier made of the rows of a split, and its scores."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from layerscope.errors import EstimatorError
from layerscope.estimators.cell import Cell, MetricValue, losses, require_metric
from layerscope.estimators.layer import LayerRows, read_target
from layerscope.stats.auroc import auroc, log_odds
from layerscope.stats.rows import BLOCK
from layerscope.stats.standard_error import standard_errors
from layerscope.types import (
    FEW,
    METRICS,
    SPLITS,
    Estimator,
    LayerView,
    Replicates,
    Score,
    Split,
    Task,
)

Labels = npt.NDArray[np.int64]
OutputKind = Literal["probabilities", "scores", "labels"]
"""What a classifier gives of a row: probabilities of the classes, values that only rank them, or
the predicted class alone."""

HELD_OUT: tuple[Split, ...] = ("val", "test")
"""Rows on which nothing is fitted."""
FLOOR = 1e-12
"""Least probability: what a class that training lacks is given."""
BINS = 15
"""Of equal width in confidence, for the calibration error (Guo et al. 2017)."""
DIRECTIONS = METRICS["classes"]


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
class ClassifiedRows:
    """What a classifier made of the rows of one split."""

    truth: Labels
    """(n,) labels."""
    predicted: Labels
    """(n,) labels."""
    nll: Tensor | None = None
    """(n,) negative log-probabilities of the true classes in nats, where there are any."""
    confidence: Tensor | None = None
    """(n,) probabilities of the predicted classes, where there are any."""
    in_top: Tensor | None = None
    """(n,) 1 where the true class is among the five most likely ones of more, else 0."""
    auroc: Tensor | None = None
    """(n,) values whose mean is the area under the ROC curve, where it is the task's metric: it
    orders all rows by each class."""

    @property
    def correct(self) -> Tensor:
        """(n,) float64, 1 where the prediction is the truth."""
        return torch.from_numpy(self.predicted == self.truth).double()

    @property
    def sound(self) -> bool:
        """Whether every row has a probability, which no classifier that diverged gives."""
        return self.nll is not None and bool(self.nll.isfinite().all())

    def columns(self) -> dict[str, Tensor]:
        """Return by metric (n,) values of which the metric is the mean.

        Means over classes, areas under curves and the calibration error are no means over rows;
        their values are the metric plus each row's influence on it, so that their standard errors
        are right too.
        """
        known = {"top-1": self.correct}
        if self.in_top is not None:
            known["top-5"] = self.in_top
        known["mean-per-class"] = _balanced(self.correct, self.truth)
        if self.auroc is not None:
            known["auroc"] = self.auroc
        if self.nll is not None:
            known["nll"] = self.nll
        if self.confidence is not None:
            known["ece"] = _miscalibration(self.confidence, self.correct)
        return known

    def losses(self, metric: str) -> Tensor:
        """Return (n,) losses whose mean falls as the metric gets better."""
        values = self.columns()[metric]
        return values if DIRECTIONS[metric] == "minimise" else 1 - values

    def rank(self, metric: str) -> tuple[float, float]:
        """Order classifiers by a metric, and those that are equal by their log-likelihood."""
        nll = 0.0 if self.nll is None else float(self.nll.mean())
        return float(self.losses(metric).mean()), nll


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


def classify(
    scores: Tensor, target: Target, split: Split, output: OutputKind = "probabilities"
) -> ClassifiedRows:
    """Return what a classifier's scores say of the rows of a split.

    Args:
        scores: (n, c) log-probabilities up to a constant of the row, or values that only rank,
            classes as ``target`` has them.
        target: The labels.
        split: Whose rows these are.
        output: Whether the scores are probabilities, or only rank.
    """
    return classify_blocks([scores[:, None]], target, split, output)[0]


def classify_blocks(
    blocks: Iterable[Tensor], target: Target, split: Split, output: OutputKind = "probabilities"
) -> list[ClassifiedRows]:
    """Return what the scores of k classifiers say, block by block of a split's rows.

    Args:
        blocks: (m, k, c) as for :func:`classify`, in the order of the rows.
        target: The labels.
        split: Whose rows these are.
        output: As for :func:`classify`.
    """
    places, start = target.places(split), 0
    parts, ranked, probable = [], [], output == "probabilities"
    for block in blocks:
        parts.append(_classify_block(block, places[start : start + len(block)]))
        start += len(block)
        if target.task.metric == "auroc":
            ranked.append(log_odds(block) if probable else block)
    best, confidence, nll, *in_top = (torch.cat(part) for part in zip(*parts, strict=True))
    areas = _mean_auroc(torch.cat(ranked), places, target.labels[split]) if ranked else None
    return [
        ClassifiedRows(
            target.labels[split],
            target.classes[best[:, i].numpy()],
            nll[:, i] if probable else None,
            confidence[:, i] if probable else None,
            in_top[0][:, i] if in_top else None,
            None if areas is None else areas[:, i],
        )
        for i in range(best.shape[1])
    ]


def _mean_auroc(scores: Tensor, places: Tensor, truth: Labels) -> Tensor:
    """Return (n, k) values whose means are the mean of each class against the rest.

    Over the classes that a row has; one that training lacks is ranked like any other by nothing.

    Args:
        scores: (n, k, c) by which classes are ranked.
        places: (n,) of the true classes, -1 for one that training lacks.
        truth: (n,) labels.
    """
    labels = np.unique(truth)
    total = torch.zeros(scores.shape[:2], dtype=torch.float64)
    for label in labels:
        own = torch.from_numpy(truth == label)
        place = int(places[own][0])
        column = scores[..., place] if place >= 0 else torch.zeros_like(scores[..., 0])
        total += auroc(column, own[:, None])
    return total / len(labels)


def _classify_block(scores: Tensor, places: Tensor) -> tuple[Tensor, ...]:
    """Return (m, k) best places, probabilities, likelihoods, and whether few hold the truth."""
    logp = torch.log_softmax(scores, 2)
    truth = places[:, None, None].expand(-1, scores.shape[1], 1)
    confidence, best = logp.max(2)
    of_truth = torch.where(truth < 0, -torch.inf, logp.gather(2, truth.clamp(min=0)))[..., 0]
    nll = -of_truth.double().clamp(min=math.log(FLOOR))
    known = best, confidence.double().exp(), nll
    if scores.shape[2] <= FEW:
        return known
    # Where fewer classes have any probability, what fills the few up is not found.
    in_top = (logp.topk(FEW, 2).indices == truth).any(2) & of_truth.isfinite()
    return *known, in_top.double()


def classify_rows(
    scores: Callable[[Tensor], Tensor], rows: Tensor, target: Target, split: Split
) -> ClassifiedRows:
    """Return what a classifier makes of a split, a block of its rows at a time.

    Args:
        scores: Returns (m, c) of (m, d) rows, as for :func:`classify`.
        rows: (n, d) features.
        target: The labels.
        split: Whose rows these are.
    """
    blocks = (scores(block)[:, None] for block in torch.split(rows, BLOCK))
    return classify_blocks(blocks, target, split)[0]


def require_classes(target: Target, estimator: str, output: OutputKind = "probabilities") -> None:
    """Refuse a task whose primary metric there is not.

    Raises:
        EstimatorError: The metric is none that the classifier gives, or not defined on the rows.
    """
    offered = ["top-1", "mean-per-class"]
    if output == "probabilities":
        offered += ["nll", "ece"]
    if output != "labels":
        offered += ["auroc"]
    if output != "labels" and len(target.classes) > FEW:
        offered += ["top-5"]
    require_metric(target.task, offered, estimator)
    for split in HELD_OUT:
        if target.task.metric == "auroc" and len(np.unique(target.labels[split])) == 1:
            raise EstimatorError(
                f"The {split} rows of {target.task.name!r} hold a single class, which no score "
                "tells from another.",
                hint="Choose another metric, or put rows of at least two classes into the split.",
            )


def read_targets(
    view: LayerView, tasks: Iterable[Task], estimator: str, output: OutputKind = "probabilities"
) -> list[Target]:
    """Read the labels of tasks whose primary metric an estimator gives.

    Raises:
        EstimatorError: Labels of which there is no classifier, or a metric that it does not give.
    """
    targets = [read_classes(view, task) for task in tasks]
    for target in targets:
        require_classes(target, estimator, output)
    return targets


@dataclass(frozen=True, slots=True)
class FittedClassifier:
    """What a classifier of one task makes of the rows, and what was chosen on validation."""

    layer: LayerRows
    target: Target
    val: ClassifiedRows
    test: ClassifiedRows
    settings: Mapping[str, Any]
    note: str = ""
    replicates: tuple[Replicates, ...] = ()
    """Of the losses under the task's metric."""

    def scores(self, view: LayerView, estimator: str, seed: int) -> Iterator[Score]:
        """Yield the scores of every metric, with the losses of the rows under the primary one."""
        task = self.target.task
        cell = Cell(view, self.layer, task, estimator, seed, self.settings, self.note)
        of_val, of_test = self.val.columns(), self.test.columns()
        of_rows = losses(
            self.val.losses(task.metric),
            self.test.losses(task.metric),
            self.test.predicted,
            self.replicates,
        )
        errors = standard_errors(torch.stack(list(of_test.values()), 1), self.layer.groups)
        for (metric, values), stderr in zip(of_test.items(), errors, strict=True):
            means = float(of_val[metric].mean()), float(values.mean())
            value = MetricValue(metric, DIRECTIONS[metric], *means, float(stderr))
            yield cell.score(value, of_rows)


class Classifier(Estimator):
    """A probe of classes.

    Args:
        seed: Kept in the table, and of what chance decides.
    """

    output: ClassVar[OutputKind] = "probabilities"
    """What it gives of a row."""

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed

    @abstractmethod
    def fit(self, view: LayerView, targets: Sequence[Target]) -> Iterator[FittedClassifier]:
        """Yield what is fitted to each task on the rows of a cut."""

    def handles(self, task: Task) -> bool:
        return task.kind == "classes"

    def score(self, view: LayerView, tasks: Sequence[Task]) -> Iterator[Score]:
        """Yield top-1, top-5, mean-per-class, nll and ece for each task, as far as there are any.

        The area under the ROC curve is given where it is the task's metric.

        Raises:
            EstimatorError: Features or targets on which no classifier is defined.
        """
        targets = read_targets(view, tasks, self.name, self.output)
        for fitted in self.fit(view, targets):
            yield from fitted.scores(view, self.name, self._seed)


def _labels(view: LayerView, task: Task, split: Split) -> Labels:
    target = read_target(view, task.name, split)
    if target.ndim != 1 or not np.issubdtype(target.dtype, np.integer):
        raise EstimatorError(
            f"The {split} classes of {task.name!r} are {target.dtype} of shape {target.shape}.",
            hint="Give one whole number for each image.",
        )
    return target.astype(np.int64)


def _balanced(correct: Tensor, truth: Labels) -> Tensor:
    """Return (n,) values whose mean is the mean over the split's classes of their accuracy."""
    labels = torch.from_numpy(truth)
    _, place, count = torch.unique(labels, return_inverse=True, return_counts=True)
    accuracy = correct.new_zeros(len(count)).index_add_(0, place, correct) / count
    weight = len(labels) / (len(count) * count[place])
    balanced: Tensor = accuracy.mean() + (correct - accuracy[place]) * weight
    return balanced


def _miscalibration(confidence: Tensor, correct: Tensor) -> Tensor:
    """Return (n,) values whose mean is the expected calibration error (Guo et al. 2017, eq. 5).

    A row counts for its bin with the sign of the bin's own error, which it hardly influences.
    """
    bins = (confidence * BINS).long().clamp(0, BINS - 1)
    excess = confidence - correct
    sums = excess.new_zeros(BINS).index_add_(0, bins, excess)
    return excess * sums.sign()[bins]
