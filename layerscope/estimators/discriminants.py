"""Classifiers in closed form from the moments of the classes: nearest class mean and LDA.

Both assume that every class is normal around its mean with a covariance that all classes share
(Hastie, Tibshirani and Friedman, "The Elements of Statistical Learning", section 4.3): the nearest
class mean of one variance in all directions, LDA of any covariance.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from layerscope.estimators import estimators
from layerscope.estimators.cell import Cell
from layerscope.estimators.classification import (
    Judged,
    Target,
    classification_scores,
    judge_all,
    read_targets,
)
from layerscope.estimators.layer import Features, read_layer, standardised
from layerscope.stats.class_moments import ClassMoments, RunningClassMoments
from layerscope.stats.discriminant import (
    LinearClassifier,
    linear_discriminant_analysis,
    nearest_class_mean,
)
from layerscope.stats.rows import BLOCK
from layerscope.types import Estimator, LayerView, Score, Split, Task

SHRINKAGES = (1.0, 0.5, 0.1, 0.01, 0.001, 0.0)
"""Among which validation chooses LDA's, from the simplest classifier to the most flexible."""
LEAST = 1e-12
"""Variance of standardised features below which classes are points."""


@estimators.register("ncm")
class NearestClassMean(Estimator):
    """Nearest class mean on standardised features, with nothing to choose.

    The posterior is that of classes that are equally frequent and normal around their means with
    the same variance in all directions, which is the mean one of the training rows within their
    classes; it is a softmax of −‖x − m_c‖²/(2σ²).

    Args:
        seed: Kept in the table; the fit is deterministic.
    """

    name = "ncm"

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed

    def handles(self, task: Task) -> bool:
        return task.kind == "classes"

    def score(self, view: LayerView, tasks: Sequence[Task]) -> Iterator[Score]:
        """Yield top-1, top-5, mean-per-class, nll and ece for each task.

        Raises:
            EstimatorError: Features or targets on which no classifier is defined.
        """
        targets = read_targets(view, tasks, self.name)
        layer = read_layer(view)
        features = standardised(layer)
        for target in targets:
            moments = _moments(features["train"], target)
            classifier = _with_posterior(nearest_class_mean(moments), moments)
            cell = Cell(view, layer, target.task, self.name, self._seed, {})
            val, test = (_judged(classifier, features, target, it) for it in ("val", "test"))
            yield from classification_scores(cell, val, test)


@estimators.register("lda")
class Lda(Estimator):
    """Linear discriminant analysis; its shrinkage is chosen on the validation split.

    The shrinkage s mixes the within-class covariance of the standardised features with the
    identity times its mean variance. It is chosen by the task's metric on the validation rows, ties
    by their negative log-likelihood and then in favour of more shrinkage.

    Args:
        seed: Kept in the table; the fit is deterministic.
    """

    name = "lda"

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed

    def handles(self, task: Task) -> bool:
        return task.kind == "classes"

    def score(self, view: LayerView, tasks: Sequence[Task]) -> Iterator[Score]:
        """Yield top-1, top-5, mean-per-class, nll and ece for each task.

        Raises:
            EstimatorError: Features or targets on which no classifier is defined.
        """
        targets = read_targets(view, tasks, self.name)
        layer = read_layer(view)
        features = standardised(layer)
        for target in targets:
            shrinkage, classifier, val = _chosen(features, target)
            settings: dict[str, Any] = {"shrinkage": shrinkage, "grid": list(SHRINKAGES)}
            cell = Cell(view, layer, target.task, self.name, self._seed, settings)
            test = _judged(classifier, features, target, "test")
            yield from classification_scores(cell, val, test)


def _moments(rows: Tensor, target: Target) -> ClassMoments:
    running = RunningClassMoments(rows.shape[1], len(target.classes), scatters=False)
    running.update(rows, target.places("train"))
    return running.compute()


def _with_posterior(classifier: LinearClassifier, moments: ClassMoments) -> LinearClassifier:
    """Return the classifier whose softmax is the posterior, from that of −½‖x − m_c‖²."""
    count, width = int(moments.counts.sum()), len(moments.within)
    variance = (moments.within.trace() / (count * width)).clamp(min=LEAST)
    return LinearClassifier(classifier.weights / variance, classifier.intercept / variance)


def _chosen(features: Features, target: Target) -> tuple[float, LinearClassifier, Judged]:
    """Return the shrinkage that validation prefers, its classifier, and what that makes of val."""
    moments = _moments(features["train"], target)
    known = []
    for shrinkage in SHRINKAGES:
        classifier = linear_discriminant_analysis(moments, shrinkage)
        known.append((shrinkage, classifier, _judged(classifier, features, target, "val")))
    return min(known, key=lambda it: it[2].rank(target.task.metric))


def _judged(
    classifier: LinearClassifier, features: Features, target: Target, split: Split
) -> Judged:
    blocks = torch.split(features[split], BLOCK)
    return judge_all((classifier.scores(block)[:, None] for block in blocks), target, split)[0]
