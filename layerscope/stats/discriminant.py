"""Linear classifiers in closed form, from the moments of the classes alone.

Nearest class mean and linear discriminant analysis both choose the class of the largest linear
discriminant function (Hastie, Tibshirani and Friedman, "The Elements of Statistical Learning",
eq. 4.10). What is common to all classes changes no choice, so class means enter relative to the
mean of all rows: weights then stay small where the features have a large common offset.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from layerscope.errors import EstimatorError
from layerscope.stats.class_moments import ClassMoments
from layerscope.stats.moments import Moments
from layerscope.stats.spectrum import spectrum


@dataclass(frozen=True, slots=True)
class LinearClassifier:
    """Linear discriminant functions of C classes on raw features."""

    weights: Tensor
    """(d, C) float64; 0 for a class that training lacks."""
    intercept: Tensor
    """(C,) float64; −∞ for a class that training lacks, so that it is never chosen."""

    def scores(self, rows: Tensor) -> Tensor:
        """Return the (n, C) float64 discriminant functions of (n, d) rows."""
        return rows.double() @ self.weights + self.intercept

    def predict(self, rows: Tensor) -> Tensor:
        """Return the (n,) int64 classes of (n, d) rows."""
        return self.scores(rows).argmax(1)


def nearest_class_mean(moments: ClassMoments) -> LinearClassifier:
    """Return the classifier that picks the class whose mean is the nearest in euclidean distance.

    With m the mean of all rows, −½‖x − m_c‖² is (m_c − m)ᵀ(x − m) − ½‖m_c − m‖² and a term in x
    that all classes share.

    Args:
        moments: Of (n, d) training rows; scatters are not needed.

    Raises:
        EstimatorError: Fewer than two classes have rows.
    """
    seen = _classes_with_rows(moments)
    mean = moments.total.mean
    gaps = moments.means[seen] - mean
    return _classifier(seen, gaps.T, -gaps.square().sum(1) / 2, mean)


def linear_discriminant_analysis(moments: ClassMoments, shrinkage: float = 0.0) -> LinearClassifier:
    """Return the classifier of classes that are normal with one covariance between them.

    The discriminant functions are (m_c − m)ᵀΣ⁻¹(x − m) − ½(m_c − m)ᵀΣ⁻¹(m_c − m) + log π_c, with
    π_c = n_c/n and Σ = (1 − s) W/n + s tr(W/n)/d · I for the within-class scatter W and the
    shrinkage s: the estimates of scikit-learn's ``LinearDiscriminantAnalysis(solver="lsqr")``,
    whose decision functions differ by what is common to all classes. A softmax of them is the
    probability of the classes.

    Without shrinkage, directions in which no class varies are left out, as by a pseudo-inverse.

    Args:
        moments: Of (n, d) training rows; scatters of single classes are not needed.
        shrinkage: s in [0, 1], towards the identity times the mean variance.

    Raises:
        EstimatorError: Fewer than two classes have rows, none of them varies, or the shrinkage is
            out of its range.
    """
    if not 0 <= shrinkage <= 1:
        raise EstimatorError(
            f"A shrinkage of {shrinkage:g} is not between 0 and 1.",
            hint="0 is the covariance as it is, 1 one variance for all features.",
        )
    seen, total, within = _classes_with_rows(moments), moments.total, moments.within
    target = within.trace() / len(within) * torch.eye(len(within), dtype=torch.float64)
    shrunk = torch.lerp(within, target, shrinkage)
    basis = spectrum(Moments(total.count, total.mean, shrunk, total.precision))
    if not basis.rank:
        raise EstimatorError(
            "No feature varies within a class, so the classes have no covariance.",
            hint="Give more rows to a class, or use the nearest class mean.",
        )
    whitening = basis.standardiser.scale[:, None] * basis.vectors / basis.values.sqrt()
    whitened = (moments.means[seen] - total.mean) @ whitening
    priors = moments.counts[seen].double() / total.count
    constant = priors.log() - whitened.square().sum(1) / 2
    return _classifier(seen, whitening @ whitened.T, constant, total.mean)


def _classes_with_rows(moments: ClassMoments) -> Tensor:
    seen = moments.counts > 0
    count = int(seen.sum())
    if count < 2:
        raise EstimatorError(
            f"A classifier needs at least 2 classes with training rows, and there are {count}.",
            hint="Give rows of more classes; check how the splits were made.",
        )
    return seen


def _classifier(seen: Tensor, weights: Tensor, constant: Tensor, mean: Tensor) -> LinearClassifier:
    """Return the classifier on raw features, from that of the seen classes around a mean."""
    wide = torch.zeros(len(mean), len(seen), dtype=torch.float64)
    wide[:, seen] = weights
    intercept = torch.full((len(seen),), -math.inf, dtype=torch.float64)
    intercept[seen] = constant - mean @ weights
    return LinearClassifier(wide, intercept)
