"""What the eigenvalues of a layer say: how many directions it uses, and how evenly.

One pass over the rows gives mean and scatter; the eigenvalues of the covariance and those of the
second moment about zero come from it, and every measure here is a function of one of the two. The
published names are easily confused, because implementations of "RankMe" take singular values or
eigenvalues, centred or not; here one name is one definition:

==================  ==================================  ==========================================
name                of                                  is
==================  ==================================  ==========================================
RankMe              singular values, not centred        exp H(σ/Σσ + ε), ε = 1e-7
effective rank      eigenvalues of the covariance       exp H(λ/Σλ)
participation       eigenvalues of the covariance       (Σλ)² / Σλ²
stable rank         singular values, not centred        Σσ² / max σ²
NESum               eigenvalues of the covariance       Σλ / max λ
matrix entropy      eigenvalues of ZZᵀ, not centred     Rényi's, in nats
α                   eigenvalues of the covariance       − slope of log λ against log rank
==================  ==================================  ==========================================

H is Shannon's entropy. None of them divides by an eigenvalue that rounding made: those of at most
d·ε times the largest count as zero, ε being the precision of the products. Behind a ReLU nearly all
of the second moment lies in the direction of the mean; there that direction is taken out first, so
that the others are as exact as those of the covariance, and only the largest of them counts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from layerscope.errors import EstimatorError
from layerscope.stats.moments import Moments

RANKME_EPSILON = 1e-7
"""What RankMe's definition adds to every share (Garrido et al. 2023, eq. 1 and 2)."""
LEAST_RANKS = 5
"""Eigenvalues without which a power law is not fitted."""
APART = 16.0
"""Times the covariance that the mean has to be before its direction is taken out: enough that the
power method gains a digit with every step."""
STEPS = 20
"""Of the power method: float64 has 16 digits."""


@dataclass(frozen=True, slots=True)
class Eigenvalues:
    """The eigenvalues of one symmetric matrix of a layer."""

    values: Tensor
    """(d,) float64, descending, 0 where rounding alone could have made them."""
    count: int
    """Number of rows n that the matrix is a mean over."""
    vectors: Tensor | None = None
    """(d, d) float64 orthonormal columns in the same order, where they were asked for."""

    @property
    def rank(self) -> int:
        """The number of eigenvalues that are not 0."""
        return int((self.values > 0).sum())

    @property
    def positive(self) -> Tensor:
        """The eigenvalues that are not 0, descending."""
        return self.values[: self.rank]


def of_covariance(moments: Moments, *, vectors: bool = False) -> Eigenvalues:
    """Return the eigenvalues of the covariance, divided by n.

    Args:
        moments: Of the (n, d) rows as they are.
        vectors: Whether eigenvectors are wanted, which cost about as much again.
    """
    return _decomposed(moments.covariance, moments, vectors)


def of_second_moment(moments: Moments, *, vectors: bool = False) -> Eigenvalues:
    """Return the eigenvalues of ZᵀZ/n, not centred: squares of the singular values of Z/√n.

    ZᵀZ/n is the covariance C plus m mᵀ. Where m is large, rounding in m mᵀ would hide the small
    eigenvalues of C. Then the eigenvector v of the largest eigenvalue is found by itself, and the
    others are those of C + m mᵀ on the complement of v, where m is −P C v/(mᵀv), with P the
    projection onto it: nothing in that is larger than C.

    Args:
        moments: Of the (n, d) rows as they are.
        vectors: Whether eigenvectors are wanted.
    """
    covariance, mean = moments.covariance, moments.mean
    if float(mean.square().sum()) <= APART * float(covariance.norm()):
        return _decomposed(covariance + torch.outer(mean, mean), moments, vectors)
    first = mean / mean.norm()
    for _ in range(STEPS):
        first = covariance @ first + mean * (mean @ first)
        first = first / first.norm()
    largest = first @ covariance @ first + (mean @ first).square()
    mirror, rest = _complement(covariance, mean, first)
    others = _decomposed(rest, moments, vectors)
    known = torch.cat((largest[None], others.values))
    if others.vectors is None:
        return Eigenvalues(known, moments.count)
    columns = torch.cat((first[:, None], _reflected(mirror, others.vectors)), 1)
    return Eigenvalues(known, moments.count, columns)


def _complement(covariance: Tensor, mean: Tensor, first: Tensor) -> tuple[Tensor, Tensor]:
    """Return C + m mᵀ on the complement of its first eigenvector, and how one gets there.

    Args:
        covariance: (d, d) C.
        mean: (d,) m.
        first: (d,) the eigenvector.

    Returns:
        (d,) u, whose Householder reflection I − 2uuᵀ/uᵀu turns the eigenvector to the first axis,
        and the (d − 1, d − 1) matrix on the other axes.
    """
    sign = 1.0 if float(first[0]) >= 0 else -1.0
    mirror = first.clone()
    mirror[0] += sign
    mirror = mirror / mirror.norm()
    product = covariance @ mirror
    shift = 2 * (product - mirror * (mirror @ product))
    turned = covariance - torch.outer(mirror, shift) - torch.outer(shift, mirror)
    beside = sign * turned[1:, 0] / (mean @ first)
    return mirror, turned[1:, 1:] + torch.outer(beside, beside)


def _reflected(mirror: Tensor, columns: Tensor) -> Tensor:
    """Return (d, k) vectors of the complement, given by their (d − 1, k) coordinates."""
    wide = torch.cat((columns.new_zeros(1, columns.shape[1]), columns))
    return wide - 2 * torch.outer(mirror, mirror @ wide)


def rankme(second: Eigenvalues) -> Tensor:
    """Return RankMe: exp(−Σ p log p) with p = σ/Σσ + ε over the min(n, d) singular values.

    Garrido, Balestriero, Najman and LeCun (2023), "RankMe: Assessing the Downstream Performance of
    Pretrained Self-Supervised Representations by Their Rank", eq. 1 and 2. With ε the shares sum to
    slightly more than 1, as in the paper.

    Args:
        second: Of the second moment.
    """
    values = second.values[: min(second.count, len(second.values))]
    roots = _root(values)
    shares = roots / roots.sum() + RANKME_EPSILON
    return torch.exp(-(shares * shares.log()).sum())


def effective_rank(values: Tensor) -> Tensor:
    """Return exp H(λ/Σλ) of non-negative values: k for k equal ones.

    Roy and Vetterli (2007), "The effective rank: A measure of effective dimensionality", take
    singular values; of eigenvalues of the covariance it is another number, and the usual one.

    Examples:
        >>> round(float(effective_rank(torch.tensor([2.0, 2.0, 2.0, 0.0]))), 4)
        3.0
    """
    return torch.exp(_entropy(values))


def participation_ratio(values: Tensor) -> Tensor:
    """Return (Σλ)²/Σλ²: k for k equal eigenvalues."""
    return values.sum().square() / values.square().sum()


def stable_rank(values: Tensor) -> Tensor:
    """Return Σλ/max λ = ‖Z‖²_F/‖Z‖²₂ of eigenvalues λ = σ²; of centred ones it is NESum.

    NESum is that of He and Ozay (2022), "Exploring the Gap between Collapsed & Whitened Features in
    Self-Supervised Learning".
    """
    return values.sum() / values.max()


def matrix_entropy(second: Eigenvalues, order: float = 1.0) -> Tensor:
    """Return S_α = 1/(1 − α) log Σ (λᵢ(K)/tr K)^α of K = ZZᵀ in nats; α = 1 is Shannon's.

    Skean et al. (2025), "Layer by Layer: Uncovering Hidden Representations in Language Models",
    eq. 1. K and ZᵀZ have the same eigenvalues but for zeros, which add nothing.

    Args:
        second: Of the second moment.
        order: α > 0.
    """
    if order == 1:
        return _entropy(second.values)
    shares = second.positive / second.values.sum()
    return shares.pow(order).sum().log() / (1 - order)


def largest_entropy(count: int, width: int) -> float:
    """Return log min(n, d): the matrix entropy of rows that use all directions alike."""
    return math.log(min(count, width))


@dataclass(frozen=True, slots=True)
class PowerLaw:
    """A power law λ ∝ rank^−α that was fitted to some eigenvalues."""

    alpha: Tensor
    """() float64."""
    r_squared: float
    """Weighted share of the variance of log λ that the line explains."""
    first: int
    """Place of the first eigenvalue that was fitted, from 0."""
    last: int
    """Place of the last."""


def power_law(covariance: Eigenvalues, first: int = 11, last: int = 99) -> PowerLaw:
    """Fit log λ = −α log rank + c by least squares weighted by 1/rank.

    Agrawal, Mondal, Ghosh and Richards (2022), "α-ReQ: Assessing Representation Quality in
    Self-Supervised Learning by Measuring Eigenspectrum Decay", whose fit is that of Stringer et al.
    (2019), "High-dimensional geometry of population responses in visual cortex"; ranks count from
    1. Where fewer eigenvalues are positive the window ends with them.

    Args:
        covariance: Of the covariance.
        first: Place of the first eigenvalue of the window, from 0.
        last: Place of the last.

    Raises:
        EstimatorError: Fewer than five eigenvalues of the window are positive.
    """
    last = min(last, covariance.rank - 1)
    if last - first + 1 < LEAST_RANKS:
        raise EstimatorError(
            f"A power law wants {LEAST_RANKS} positive eigenvalues from place {first} on, and "
            f"there are {max(last - first + 1, 0)} of {covariance.rank}.",
            hint="Give more rows, or an earlier window such as alpha-req(first=0,last=9).",
        )
    ranks = torch.arange(first + 1, last + 2, dtype=torch.float64)
    x, y, weight = -ranks.log(), covariance.values[first : last + 1].log(), 1 / ranks
    share = weight / weight.sum()
    x, centred = x - share @ x, y - share @ y
    alpha = (share * x) @ centred / (share @ x.square())
    unexplained = float((share @ (centred - alpha * x).square()).detach())
    total = float((share @ centred.square()).detach())
    explained = 1 - unexplained / total if total > 0 else 1.0
    return PowerLaw(alpha, explained, first, last)


def _entropy(values: Tensor) -> Tensor:
    shares = values[values > 0] / values.sum()
    return -(shares * shares.log()).sum()


def _root(values: Tensor) -> Tensor:
    """Return square roots whose gradient is 0, and not infinite, at 0."""
    return torch.where(values > 0, torch.where(values > 0, values, 1.0).sqrt(), 0.0)


def _decomposed(matrix: Tensor, moments: Moments, vectors: bool) -> Eigenvalues:
    symmetric = (matrix + matrix.T) / 2
    if vectors:
        values, columns = torch.linalg.eigh(symmetric)
        values, turned = values.flip(0), columns.flip(1)
    else:
        values, turned = torch.linalg.eigvalsh(symmetric).flip(0), None
    largest = float(values[:1].clamp(min=0).sum())
    # What the mean's own rounding leaves of constant features is no variance.
    noise = 64 * float((moments.precision * moments.mean).square().sum())
    floor = max(len(values) * moments.precision * largest, noise)
    return Eigenvalues(torch.where(values > floor, values, 0.0), moments.count, turned)
