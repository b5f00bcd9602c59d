"""Classifiers in closed form from the moments of the classes: nearest class mean and LDA.

Both assume that every class is normal around its mean with a covariance that all classes share
(Hastie, Tibshirani and Friedman, "The Elements of Statistical Learning", section 4.3): the nearest
class mean of one variance in all directions, LDA of any covariance.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor

from layerscope.estimators import estimators
from layerscope.estimators.classification import (
    HELD_OUT,
    ClassifiedRows,
    Classifier,
    FittedClassifier,
    Target,
    classify_rows,
)
from layerscope.estimators.layer import Features, read_layer, standardised
from layerscope.stats.class_moments import ClassMoments, RunningClassMoments
from layerscope.stats.discriminant import (
    LinearClassifier,
    linear_discriminant_analysis,
    nearest_class_mean,
)
from layerscope.types import LayerView

SHRINKAGES = (1.0, 0.5, 0.1, 0.01, 0.001, 0.0)
"""Among which validation chooses LDA's, from the simplest classifier to the most flexible."""
LEAST = 1e-12
"""Variance of standardised features below which classes are points."""


@estimators.register("ncm")
class NearestClassMean(Classifier):
    """Nearest class mean on standardised features, with nothing to choose.

    The posterior is that of classes that are equally frequent and normal around their means with
    the same variance in all directions, which is the mean one of the training rows within their
    classes; it is a softmax of −‖x − m_c‖²/(2σ²).

    Args:
        seed: Kept in the table; the fit is deterministic.
    """

    name = "ncm"

    def fit(self, view: LayerView, targets: Sequence[Target]) -> Iterator[FittedClassifier]:
        layer = read_layer(view)
        features = standardised(layer)
        for target in targets:
            moments = _moments(features["train"], target)
            classifier = _with_posterior(nearest_class_mean(moments), moments)
            val, test = (
                classify_rows(classifier.scores, features[split], target, split)
                for split in HELD_OUT
            )
            yield FittedClassifier(layer, target, val, test, {})


@estimators.register("lda")
class Lda(Classifier):
    """Linear discriminant analysis; its shrinkage is chosen on the validation split.

    The shrinkage s mixes the within-class covariance of the standardised features with the
    identity times its mean variance. It is chosen by the task's metric on the validation rows, ties
    by their negative log-likelihood and then in favour of more shrinkage.

    Args:
        seed: Kept in the table; the fit is deterministic.
    """

    name = "lda"

    def fit(self, view: LayerView, targets: Sequence[Target]) -> Iterator[FittedClassifier]:
        layer = read_layer(view)
        features = standardised(layer)
        for target in targets:
            shrinkage, classifier, val = _chosen(features, target)
            settings: dict[str, Any] = {"shrinkage": shrinkage, "grid": list(SHRINKAGES)}
            test = classify_rows(classifier.scores, features["test"], target, "test")
            yield FittedClassifier(layer, target, val, test, settings)


def _moments(rows: Tensor, target: Target) -> ClassMoments:
    running = RunningClassMoments(rows.shape[1], len(target.classes), scatters=False)
    running.update(rows, target.places("train"))
    return running.compute()


def _with_posterior(classifier: LinearClassifier, moments: ClassMoments) -> LinearClassifier:
    """Return the classifier whose softmax is the posterior, from that of −½‖x − m_c‖²."""
    count, width = int(moments.counts.sum()), len(moments.within)
    variance = (moments.within.trace() / (count * width)).clamp(min=LEAST)
    return LinearClassifier(classifier.weights / variance, classifier.intercept / variance)


def _chosen(features: Features, target: Target) -> tuple[float, LinearClassifier, ClassifiedRows]:
    """Return the shrinkage that validation prefers, its classifier, and what that makes of val."""
    moments = _moments(features["train"], target)
    known = []
    for shrinkage in SHRINKAGES:
        classifier = linear_discriminant_analysis(moments, shrinkage)
        val = classify_rows(classifier.scores, features["val"], target, "val")
        known.append((shrinkage, classifier, val))
    return min(known, key=lambda it: it[2].rank(target.task.metric))
