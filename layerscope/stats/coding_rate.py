"""Coding rates from second moments: the nats that rows take up to a squared distortion ε².

Yu, Chan, You, Song and Ma (2020), "Learning Diverse and Discriminative Representations via the
Principle of Maximal Coding Rate Reduction", section 2. Logarithms are natural, rows are not
centred, and the distortion is given as ε² because published code calls ε² ``eps``.

The rates grow with the scale of the features. The paper puts every row on the unit sphere first,
and moments cannot do that afterwards: give normalised rows to the accumulators for such rates.
:mod:`layerscope.stats.partitioned_rate` computes the same from rows, for any number of classes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from layerscope.errors import EstimatorError

LOST = 1e-3
"""What rounding may add to the smallest pivot of I + A, as a share of it."""
SMALL = 1e-2
"""Trace of A below which I + A has no digits of it left to speak of."""


@dataclass(frozen=True, slots=True)
class CodingRates:
    """What rows cost together, and what they cost class by class; in nats."""

    rate: float
    """R, of all rows as one."""
    conditional: float
    """R_c, the mean over rows of the rate of the row's own class."""

    @property
    def reduction(self) -> float:
        """ΔR = R − R_c: 0 for a single class, and never negative but for rounding."""
        return self.rate - self.conditional


def coding_rate(second_moment: Tensor, count: int, eps_sq: float) -> float:
    """Return R(Z, ε) = ½ log det(I + d/(n ε²) ZᵀZ) in nats.

    By Cholesky in float64. No rows have the rate 0.

    Args:
        second_moment: (d, d) float64, ZᵀZ of the (n, d) rows as they are: not centred, not divided
            by n, and of normalised rows only if those were accumulated.
        count: Number of rows n.
        eps_sq: The squared distortion ε², in the features' unit squared.

    Raises:
        EstimatorError: ε² is not positive, or so small beside the features that ZᵀZ is rounding; or
            the features are not finite.
    """
    require_distortion(eps_sq)
    scaled = second_moment * (len(second_moment) / (max(count, 1) * eps_sq))
    return float(log_determinants(scaled, eps_sq))


def require_distortion(eps_sq: float) -> None:
    """Refuse a squared distortion that is not positive and finite.

    Raises:
        EstimatorError: It is not.
    """
    if not 0 < eps_sq < math.inf:
        raise EstimatorError(
            f"A squared distortion of {eps_sq:g} is not positive and finite.",
            hint="0.5 is usual for features of unit length.",
        )


def log_determinants(scaled: Tensor, eps_sq: float) -> Tensor:
    """Return the (...) values of ½ log det(I + A) for (..., k, k) float64 matrices A = c ZᵀZ.

    By Cholesky, and by eigenvalues where A is so small that it would be lost beside I. A row and
    column of zeros adds nothing, so that matrices of several sizes may be padded to one.

    Args:
        scaled: Symmetric and, but for rounding, without negative eigenvalues.
        eps_sq: For the message.

    Raises:
        EstimatorError: Rounding, or a feature that is not finite, has left one without a rate.
    """
    identity = torch.eye(scaled.shape[-1], dtype=torch.float64)
    factors, failures = torch.linalg.cholesky_ex(identity + scaled)
    roots, own = factors.diagonal(dim1=-2, dim2=-1), scaled.diagonal(dim1=-2, dim2=-1)
    if bool(failures.any()) or bool((_rounding(own) > LOST * _smallest(roots, own)).any()):
        raise EstimatorError(
            f"The coding rate at a squared distortion of {eps_sq:g} is lost in rounding.",
            hint="Look for features that are not finite, or raise the distortion.",
        )
    rates: Tensor = roots.log().sum(-1)
    small = own.sum(-1) < SMALL
    if bool(small.any()):
        values = torch.linalg.eigvalsh(scaled[small]).clamp(min=0)
        rates[small] = values.log1p().sum(-1) / 2
    return rates


def _rounding(own: Tensor) -> Tensor:
    """Return (...) what rounding may add to a matrix with these (..., k) diagonals."""
    largest = own.amax(-1) if own.shape[-1] else own.sum(-1)
    return largest * own.shape[-1] * torch.finfo(own.dtype).eps


def _smallest(roots: Tensor, own: Tensor) -> Tensor:
    """Return (...) the smallest pivots, of rows and columns that are not zeros, which are exact."""
    pivots = torch.where(own > 0, roots.square(), torch.inf)
    return pivots.amin(-1) if pivots.shape[-1] else pivots.sum(-1) + torch.inf


def rate_bound(count: int, width: int, eps_sq: float) -> float:
    """Return ½ r log(1 + d/(r ε²)) in nats, r = min(n, d): no n rows on the unit sphere cost more.

    It is met where r eigenvalues of ZᵀZ are equal and the rest are 0, because the logarithm is
    concave and the eigenvalues of unit rows sum to n.

    Examples:
        >>> round(rate_bound(1000, 64, 0.5) / 64, 4)
        0.5493
    """
    rank = min(count, width)
    return rank / 2 * math.log1p(width / (rank * eps_sq)) if rank else 0.0


def coding_rate_reduction(second_moments: Tensor, counts: Tensor, eps_sq: float) -> CodingRates:
    """Return R, R_c = Σ_c n_c/(2n) log det(I + d/(n_c ε²) Z_cᵀZ_c) and their difference ΔR.

    The classes divide the rows, so that the sum of their moments is that of all rows. n_c is as it
    is, without the 1e-8 that the authors' code adds to it; empty classes count for nothing.

    Args:
        second_moments: (C, d, d) float64, Z_cᵀZ_c of each class, as in :func:`coding_rate`.
        counts: (C,) numbers of rows n_c.
        eps_sq: The squared distortion ε², the same for all.

    Raises:
        EstimatorError: As :func:`coding_rate`.
    """
    total = max(int(counts.sum()), 1)
    rates = [
        count / total * coding_rate(second_moment, count, eps_sq)
        for second_moment, count in zip(second_moments, counts.tolist(), strict=True)
        if count
    ]
    return CodingRates(coding_rate(second_moments.sum(0), total, eps_sq), sum(rates))
