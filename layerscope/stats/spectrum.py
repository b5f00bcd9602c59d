"""The spectrum of standardised features: one eigendecomposition that serves a whole layer."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from layerscope.stats.moments import Moments


@dataclass(frozen=True, slots=True)
class Standardiser:
    """Centring and scaling by the statistics of the training rows."""

    mean: Tensor
    """(d,) float64."""
    scale: Tensor
    """(d,) float64, one over the population standard deviation; 0 for a constant feature."""

    def __call__(self, rows: Tensor) -> Tensor:
        """Return (n, d) float64 rows of mean 0 and variance 1 over the training split."""
        return (rows.double() - self.mean).mul_(self.scale)


@dataclass(frozen=True, slots=True)
class Spectrum:
    """Eigenvalues and eigenvectors of the Gram matrix ZᵀZ / n of standardised rows Z.

    Directions that rounding alone could have made are left out, so that dividing by an
    eigenvalue is always safe: the r that remain are the numerical rank. (One that was asked for
    whole has all d.)
    """

    count: int
    """Number of training rows n."""
    standardiser: Standardiser
    values: Tensor
    """(r,) float64 positive eigenvalues, descending."""
    vectors: Tensor
    """(d, r) float64 orthonormal columns."""

    @property
    def rank(self) -> int:
        """The number r of directions in which the training rows vary."""
        return len(self.values)

    def rotate(self, rows: Tensor) -> Tensor:
        """Return (n, r) standardised rows in the eigenvectors' coordinates."""
        return self.standardiser(rows) @ self.vectors


def standardiser(moments: Moments) -> Standardiser:
    """Return the standardiser of the training moments.

    A feature whose standard deviation is within rounding of its mean is constant and becomes a
    column of zeros; dividing by it would turn rounding into a feature.
    """
    return _scaling(moments.mean, moments.variance.sqrt(), moments.precision)


def standardiser_of(rows: Tensor) -> Standardiser:
    """Return the standardiser of (n, d) training rows, where no products of them are wanted."""
    wide = rows.double()
    return _scaling(wide.mean(0), wide.std(0, correction=0), torch.finfo(wide.dtype).eps)


def _scaling(mean: Tensor, deviation: Tensor, precision: float) -> Standardiser:
    varies = deviation > 8 * precision * mean.abs()
    scale = torch.where(varies, 1 / torch.where(varies, deviation, 1.0), 0.0)
    return Standardiser(mean, scale)


def spectrum(moments: Moments, *, whole: bool = False) -> Spectrum:
    """Decompose the correlation matrix of the training rows in float64.

    Eigenvalues of at most d·ε times the largest are dropped, ε being the precision of the
    products: the usual cut of a pseudo-inverse. With fewer rows than features at most n − 1 remain.

    Args:
        moments: Of the (n, d) training features as they are.
        whole: Keep all d directions, with eigenvalues of at least zero: for who does not divide by
            them, and must not lose what lies in directions that the products' rounding hides. Such
            a basis need not be more precise than the products, and is computed in their type.

    Returns:
        The spectrum, sorted from the largest eigenvalue down.
    """
    rule = standardiser(moments)
    gram = moments.covariance * torch.outer(rule.scale, rule.scale)
    of_float32 = moments.precision >= torch.finfo(torch.float32).eps
    working = torch.float32 if whole and of_float32 else torch.float64
    values, vectors = torch.linalg.eigh(((gram + gram.T) / 2).to(working))
    values, vectors = values.double().flip(0), vectors.double().flip(1)
    if whole:
        return Spectrum(moments.count, rule, values.clamp(min=0), vectors)
    floor = len(values) * moments.precision * values[:1].clamp(min=0)
    kept = values > floor
    return Spectrum(moments.count, rule, values[kept], vectors[:, kept])
