"""How classes lie in a layer: separation, neural collapse and Fisher's ratio, from class moments.

All come from each class's number of rows and mean, and from one scatter within classes; no two rows
are ever compared.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from layerscope.errors import EstimatorError
from layerscope.stats.class_moments import ClassMoments
from layerscope.stats.moments import BLOCK, row_mean


def _class_sums(
    rows: Tensor, labels: Tensor, classes: int, offset: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return (C,) counts, (C, d) sums and the (d, d) products of rows less an offset."""
    width = rows.shape[1]
    sums = torch.zeros(classes, width, dtype=torch.float64)
    products = torch.zeros(width, width, dtype=torch.float64)
    for block, answers in zip(torch.split(rows, BLOCK), torch.split(labels, BLOCK), strict=True):
        wide = block.double() - offset
        sums.index_add_(0, answers, wide)
        products.addmm_(wide.T, wide)
    return torch.bincount(labels, minlength=classes), sums, products


def _moments(counts: Tensor, sums: Tensor, products: Tensor) -> ClassMoments:
    """Return sums as moments; the offset, which moves no measure, is not added back."""
    means = sums / counts.clamp(min=1)[:, None]
    return ClassMoments(counts, means, products - (means.T * counts) @ means, None)


def class_moments_without_blocks(
    rows: Tensor, labels: Tensor, blocks: Tensor
) -> Iterator[ClassMoments]:
    """Yield the moments of all rows, and then of those that are not in each block.

    A leading axis of blocks is never held: each block is summed twice instead.

    Args:
        rows: (n, d) features.
        labels: (n,) int64 classes from 0.
        blocks: (n,) int64 blocks from 0.
    """
    classes = int(labels.max()) + 1
    offset = row_mean(rows)  # sums of squares lose no digits to it
    whole = _class_sums(rows, labels, classes, offset)
    yield _moments(*whole)
    for block in range(int(blocks.max()) + 1):
        own = blocks == block
        part = _class_sums(rows[own], labels[own], classes, offset)
        yield _moments(*(total - some for total, some in zip(whole, part, strict=True)))


def class_separation(sums: Tensor, counts: Tensor) -> float:
    """Return R² = 1 − d̄_within/d̄_total of cosine distances, classes counting alike.

    Kornblith, Chen, Lee and Norouzi (2021), "Why Do Better Loss Functions Lead to Less Transferable
    Features?", section 4.1. With c_k the mean of a class's unit rows, the mean distance within
    classes is 1 − (1/C) Σ‖c_k‖², and between any two rows 1 − ‖(1/C) Σ c_k‖².

    Args:
        sums: (C, d) float64 sums of the unit rows of each class.
        counts: (C,) their numbers; classes without rows are left out.

    Raises:
        EstimatorError: Fewer than two classes have rows, or all rows point one way.
    """
    seen = _classes_with_rows(counts)
    centres = sums[seen] / counts[seen, None]
    within = 1 - float(centres.square().sum(1).mean())
    total = 1 - float(centres.mean(0).square().sum())
    if total <= torch.finfo(torch.float64).eps * 16:
        raise EstimatorError(
            "All rows point in one direction, so that the separation of classes is not defined.",
            hint="The layer is dead, or its features are constant; leave the cut out.",
        )
    return 1 - within / total


@dataclass(frozen=True, slots=True)
class NeuralCollapse:
    """How far a layer has collapsed to its class means; all are 0 where it has entirely."""

    variability: float
    """NC1: tr(Σ_W Σ_B⁺)/C."""
    equinorm: float
    """NC2: standard deviation over mean of the lengths of the centred class means."""
    equiangularity: float
    """NC2: mean over pairs of |cos + 1/(C − 1)|."""


def neural_collapse(moments: ClassMoments) -> NeuralCollapse:
    """Return NC1 and NC2 of Papyan, Han and Donoho (2020).

    "Prevalence of neural collapse during the terminal phase of deep learning training". Σ_W is the
    mean over rows, Σ_B that over classes around the mean of the class means, and Σ_B⁺ its
    pseudo-inverse on at most C − 1 directions.

    Args:
        moments: By class; scatters of single classes are not needed.

    Raises:
        EstimatorError: Fewer than two classes have rows, no class has two of them, or all class
            means are the same.
    """
    seen = _classes_with_rows(moments.counts)
    counts, rows = moments.counts[seen], int(moments.counts.sum())
    classes = len(counts)
    if rows == classes:
        raise EstimatorError(
            f"Each of {classes} classes has one row, so that none varies within itself.",
            hint="Give more rows to a class; NC1 of single rows would be 0 by counting alone.",
        )
    gaps = centred_means(moments.means[seen], spread_of(moments))
    _, roots, axes = torch.linalg.svd(gaps, full_matrices=False)
    kept = roots > roots[0] * 1e-8
    spread = ((axes[kept] @ moments.within) * axes[kept]).sum(1) / rows
    lengths = gaps.norm(dim=1)
    cosines = (gaps / lengths.clamp(min=torch.finfo(torch.float64).tiny)[:, None]) @ gaps.T
    cosines = cosines / lengths.clamp(min=torch.finfo(torch.float64).tiny)
    off = ~torch.eye(classes, dtype=torch.bool)
    return NeuralCollapse(
        variability=float((spread / roots[kept].square()).sum()),
        equinorm=float(lengths.std(correction=0) / lengths.mean()),
        equiangularity=float((cosines[off] + 1 / (classes - 1)).abs().mean()),
    )


def self_duality(weights: Tensor, means: Tensor, spread: float) -> float:
    """Return NC3: ‖W/‖W‖_F − M/‖M‖_F‖²_F of a classifier and the centred class means.

    Args:
        weights: (d, C) of a linear classifier; what all classes share is taken out first, because
            it changes no choice.
        means: (C, d) class means.
        spread: Of the rows that the means are of.

    Raises:
        EstimatorError: The means, or the weights, of all classes are the same.
    """
    wanted, own = centred_means(means, spread), centred_means(weights.T, float(weights.norm()))
    return float((own / own.norm() - wanted / wanted.norm()).square().sum())


def fisher_ratio(moments: ClassMoments) -> float:
    """Return tr(S_B)/tr(S_W): the variance between classes over that within, rows counting alike.

    Args:
        moments: By class; scatters of single classes are not needed.

    Raises:
        EstimatorError: Fewer than two classes have rows, or none varies.
    """
    _classes_with_rows(moments.counts)
    within = float(moments.within.trace())
    if within <= float(moments.total.scatter.trace()) * torch.finfo(torch.float64).eps * 64:
        raise EstimatorError(
            "No feature varies within a class, so that Fisher's ratio is not defined.",
            hint="Give more rows to a class, or leave the cut out.",
        )
    return float(moments.between.trace()) / within


def discriminant_ratio(moments: ClassMoments, shrinkage: float) -> float:
    """Return tr(S_W⁻¹ S_B), S_W being shrunk towards the identity times its mean variance.

    Args:
        moments: By class, of which one varies.
        shrinkage: s in (0, 1].
    """
    seen = moments.counts > 0
    gaps = (moments.means[seen] - moments.total.mean) * moments.counts[seen, None].double().sqrt()
    factor = _shrunk_factor(moments.within, shrinkage)
    return float(torch.linalg.solve_triangular(factor, gaps.T, upper=False).square().sum())


def discriminant_weights(moments: ClassMoments, shrinkage: float) -> Tensor:
    """Return the (d, C) weights Σ⁻¹(m_c − m) of linear discriminant analysis, but for a factor.

    Classes that are points have no covariance; then Σ is the identity.

    Args:
        moments: By class; those without rows get no column.
        shrinkage: s in (0, 1], of Σ towards the identity times its mean variance.
    """
    seen = moments.counts > 0
    rows = int(moments.counts.sum())
    factor = _shrunk_factor(moments.within / max(rows, 1), shrinkage)
    weights: Tensor = torch.cholesky_solve((moments.means[seen] - moments.total.mean).T, factor)
    return weights


def disagreement(rows: Tensor, offset: Tensor, moments: ClassMoments, weights: Tensor) -> Tensor:
    """Return (n,) float64, 1 where a linear discriminant and the nearest class mean differ: NC4.

    Args:
        rows: (n, d) features.
        offset: (d,) float64 that the moments' rows are less.
        moments: By class.
        weights: (d, C) as :func:`discriminant_weights` returns them.
    """
    seen = moments.counts > 0
    means = moments.means[seen] - moments.total.mean
    priors = (moments.counts[seen].double() / moments.counts.sum()).log()
    constants = priors - (means.T * weights).sum(0) / 2
    centre, differs = offset + moments.total.mean, []
    for block in torch.split(rows, BLOCK):
        centred = block.double() - centre
        nearest = (centred @ means.T - means.square().sum(1) / 2).argmax(1)
        differs.append((centred @ weights + constants).argmax(1) != nearest)
    return torch.cat(differs).double()


def _shrunk_factor(within: Tensor, shrinkage: float) -> Tensor:
    variance = within.trace() / len(within)
    identity = torch.eye(len(within), dtype=torch.float64)
    if not float(variance) > 0:
        return identity
    factor: Tensor = torch.linalg.cholesky(torch.lerp(within, variance * identity, shrinkage))
    return factor


def spread_of(moments: ClassMoments) -> float:
    """Return the root mean squared distance of the rows from their mean."""
    total = moments.total
    return math.sqrt(float(total.scatter.trace()) / max(total.count, 1))


def centred_means(means: Tensor, spread: float) -> Tensor:
    """Return (C, d) class means less their own mean.

    Args:
        means: (C, d).
        spread: Of the rows around them: of means that differ by its rounding alone nothing is said.

    Raises:
        EstimatorError: They are all the same.
    """
    gaps = means - means.mean(0)
    if float(gaps.norm(dim=1).max()) <= spread * 1e-12:
        raise EstimatorError(
            f"The means of {len(means)} classes are the same.",
            hint="The layer is dead, or knows nothing of the task; leave the cut out.",
        )
    return gaps


def _classes_with_rows(counts: Tensor) -> Tensor:
    seen = counts > 0
    if int(seen.sum()) < 2:
        raise EstimatorError(
            f"The geometry of classes needs at least 2 of them, and there are {int(seen.sum())}.",
            hint="Give rows of more classes; check how the splits were made.",
        )
    return seen
