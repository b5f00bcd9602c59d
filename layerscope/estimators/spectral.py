"""Measures of a layer's eigenvalues: RankMe and what it is taken for, all from one pass.

The first that is asked for reads the rows, forms the Gram matrix and decomposes it about the mean
and about zero; the others find both. Standard errors come from each row's influence on every
eigenvalue.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor

from layerscope.errors import EstimatorError
from layerscope.estimators import estimators
from layerscope.estimators.measuring import SplitMeasure, SplitValue, SplitValues, read_rows
from layerscope.estimators.shared import once_a_view
from layerscope.stats.eigenvalues import (
    Eigenvalues,
    effective_rank,
    largest_entropy,
    matrix_entropy,
    of_covariance,
    of_second_moment,
    participation_ratio,
    power_law,
    rankme,
    stable_rank,
)
from layerscope.stats.influence import Influence
from layerscope.stats.moments import BLOCK, RunningMoments
from layerscope.types import CutPoint, Definition, Direction, Invariance, LayerView, Split, Task

ABOUT_ZERO: frozenset[Invariance] = frozenset({"rotation", "scale", "copies"})
ABOUT_MEAN: frozenset[Invariance] = ABOUT_ZERO | {"translation"}

Function = Callable[[Eigenvalues], Tensor]
Functions = Mapping[str, tuple[Function, Direction]]
"""By metric: a differentiable function of eigenvalues, and which way better lies."""


@dataclass(frozen=True, slots=True)
class MatrixEigenvalues:
    """The eigenvalues of one matrix of one split."""

    eigenvalues: Eigenvalues
    influence: Influence | None
    """What each row does to them; of the test rows alone."""


@once_a_view
def spectra(view: LayerView, split: Split) -> list[MatrixEigenvalues]:
    """Return the eigenvalues of a split about its mean and about zero, with test rows' influence.

    Raises:
        EstimatorError: There are no rows, or a feature is not finite.
    """
    split_rows, with_errors = read_rows(view, split), split == "test"
    rows = split_rows.features
    running = RunningMoments(rows.shape[1])
    # In float64 however many rows there are: an eigenvalue is the square of a singular value, and
    # products of float32 leave of the latter three digits.
    for block in torch.split(rows, BLOCK):
        running.update(block.double())
    moments = running.compute()
    known = []
    for matrix, about_zero in ((of_covariance, False), (of_second_moment, True)):
        found = matrix(moments, vectors=with_errors)
        influence = None
        if with_errors and found.rank:
            influence = Influence.of(
                found, rows, moments.mean, split_rows.groups, about_zero=about_zero
            )
        known.append(MatrixEigenvalues(found, influence))
    return known


@dataclass(frozen=True)
class EigenvalueMeasure(SplitMeasure):
    """A measure of the covariance, or of the second moment about zero where offsets change it."""

    @abstractmethod
    def functions(self, found: Eigenvalues) -> Functions:
        """Return what is computed of the eigenvalues."""

    def settings(self, found: Eigenvalues) -> Mapping[str, Any]:
        """Return what is said beside the numbers."""
        del found
        return {}

    def of_split(self, view: LayerView, task: Task, split: Split) -> SplitValues:
        centred = "translation" in self.definition(task).invariances
        about_mean, about_zero = spectra(view, split)
        matrix = about_mean if centred else about_zero
        if not matrix.eigenvalues.rank:
            raise EstimatorError(
                f"The {split} rows of {view.cut.name!r} are all {'alike' if centred else 'zero'}.",
                hint="The layer is dead, or the images are all alike; leave the cut out.",
            )
        functions = self.functions(matrix.eigenvalues)

        def values(found: Eigenvalues) -> Tensor:
            return torch.stack([function(found) for function, _ in functions.values()])

        errors = torch.zeros(len(functions), dtype=torch.float64)
        if matrix.influence is not None:
            errors = matrix.influence.errors(values)
        known = zip(functions, values(matrix.eigenvalues).tolist(), errors.tolist(), strict=True)
        by_metric = {it: SplitValue(value, functions[it][1], error) for it, value, error in known}
        return SplitValues(by_metric, self.settings(matrix.eigenvalues))


@estimators.register("rankme")
@dataclass(frozen=True)
class RankMe(EigenvalueMeasure):
    """RankMe as its paper has it: the exponential entropy of singular values, not centred."""

    name: str = "rankme"
    defined = Definition(
        "rankme",
        "maximise",
        "singular-uncentred-1e-7",
        ABOUT_ZERO,
        "Garrido et al. 2023, RankMe (2210.02885), eq. 1 and 2",
    )

    def functions(self, found: Eigenvalues) -> Functions:
        return {"rankme": (rankme, "maximise")}


@estimators.register("effective-rank")
@dataclass(frozen=True)
class EffectiveRank(EigenvalueMeasure):
    """The exponential entropy of the covariance's eigenvalues, and their participation ratio."""

    name: str = "effective-rank"
    defined = Definition(
        "effective-rank",
        "maximise",
        "eigenvalues-centred",
        ABOUT_MEAN,
        "Roy and Vetterli 2007, The effective rank, of the covariance's eigenvalues",
    )

    def functions(self, found: Eigenvalues) -> Functions:
        return {
            "effective-rank": (lambda found: effective_rank(found.values), "maximise"),
            "participation-ratio": (lambda found: participation_ratio(found.values), "maximise"),
        }


@estimators.register("stable-rank")
@dataclass(frozen=True)
class StableRank(EigenvalueMeasure):
    """The squared Frobenius norm over the squared spectral norm, not centred."""

    name: str = "stable-rank"
    defined = Definition(
        "stable-rank",
        "maximise",
        "uncentred",
        ABOUT_ZERO,
        "Rudelson and Vershynin 2007, Sampling from large matrices, section 1",
    )

    def functions(self, found: Eigenvalues) -> Functions:
        return {"stable-rank": (lambda found: stable_rank(found.values), "maximise")}

    def settings(self, found: Eigenvalues) -> Mapping[str, Any]:
        """Return the rank, and the condition number of the directions that are not zero."""
        condition = float((found.positive[0] / found.positive[-1]).sqrt())
        return {"rank": found.rank, "condition": condition}


@estimators.register("nesum")
@dataclass(frozen=True)
class NeSum(EigenvalueMeasure):
    """The sum of the covariance's eigenvalues over the largest: the centred stable rank."""

    name: str = "nesum"
    defined = Definition(
        "nesum",
        "maximise",
        "eigenvalues-centred",
        ABOUT_MEAN,
        "He and Ozay 2022, Exploring the Gap between Collapsed & Whitened Features",
    )

    def functions(self, found: Eigenvalues) -> Functions:
        return {"nesum": (lambda found: stable_rank(found.values), "maximise")}


@estimators.register("alpha-req")
@dataclass(frozen=True)
class AlphaReq(EigenvalueMeasure):
    """How far from 1 the exponent is by which the covariance's eigenvalues decay (α-ReQ).

    Beside it stands the exponent α itself.

    Args:
        first: Place of the first eigenvalue of the fit, from 0.
        last: Place of the last; among several cuts no further than the narrowest reaches, because
            α depends on the window.
    """

    name: str = "alpha-req"
    first: int = 11
    last: int = 99
    defined = Definition(
        "alpha-distance",
        "minimise",
        "stringer-weighted-fit",
        ABOUT_MEAN,
        "Agrawal et al. 2022, α-ReQ (2202.05808); fit of Stringer et al. 2019",
    )

    def among(self, cuts: Sequence[CutPoint]) -> Self:
        """Return it with one window for all cuts."""
        return replace(self, last=min(self.last, *(cut.width - 1 for cut in cuts)))

    def functions(self, found: Eigenvalues) -> Functions:
        def alpha(found: Eigenvalues) -> Tensor:
            return power_law(found, self.first, self.last).alpha

        return {
            "alpha-distance": (lambda found: (alpha(found) - 1).abs(), "minimise"),
            "alpha": (alpha, "minimise"),
        }

    def settings(self, found: Eigenvalues) -> Mapping[str, Any]:
        """Return the window and how well the line fits."""
        law = power_law(found, self.first, self.last)
        return {"first": law.first, "last": law.last, "r2": law.r_squared}


@estimators.register("matrix-entropy")
@dataclass(frozen=True)
class MatrixEntropy(EigenvalueMeasure):
    """The entropy of the eigenvalues of ZZᵀ, as a share of the largest there can be.

    Beside it stands the entropy in nats.

    Args:
        order: Rényi's α; 1 is Shannon's.
    """

    name: str = "matrix-entropy"
    order: float = 1.0

    def definition(self, task: Task) -> Definition:
        return Definition(
            "matrix-entropy",
            "maximise",
            f"renyi-{self.order:g}-uncentred-rows-as-they-are",
            ABOUT_ZERO,
            "Skean et al. 2025, Layer by Layer (2502.02013), eq. 1",
        )

    def functions(self, found: Eigenvalues) -> Functions:
        if not self.order > 0:
            raise EstimatorError(
                f"An entropy of order {self.order:g} is not defined.", hint="Give one above 0."
            )
        most = largest_entropy(found.count, len(found.values))
        if not most:
            raise EstimatorError(
                f"The entropy of {found.count} rows of {len(found.values)} features is 0 "
                "whatever they are.",
                hint="Give more images, or leave the cut out.",
            )

        def entropy(found: Eigenvalues) -> Tensor:
            return matrix_entropy(found, self.order)

        return {
            "matrix-entropy": (lambda found: entropy(found) / most, "maximise"),
            "matrix-entropy-nats": (entropy, "maximise"),
        }
