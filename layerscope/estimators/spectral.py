"""Measures of a layer's eigenvalues: RankMe and what it is taken for, all from one pass.

The first that is asked for reads the rows, forms the Gram matrix and decomposes it about the mean
and about zero; the others find both. Standard errors come from each row's influence on every
eigenvalue.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from layerscope.errors import EstimatorError
from layerscope.estimators import estimators
from layerscope.estimators.measuring import Reading, Readings, measure_scores, read_sample
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
from layerscope.types import (
    UNLABELLED,
    CutPoint,
    Definition,
    Direction,
    Invariance,
    LayerView,
    Measure,
    Score,
    Split,
    Task,
)

EXACT = 1 << 22
"""Numbers of a split up to which products are made in float64."""
ABOUT_ZERO: frozenset[Invariance] = frozenset({"rotation", "scale", "copies"})
ABOUT_MEAN: frozenset[Invariance] = ABOUT_ZERO | {"translation"}

Function = Callable[[Eigenvalues], Tensor]
Functions = Mapping[str, tuple[Function, Direction]]
"""By metric: a differentiable function of eigenvalues, and which way better lies."""


@dataclass(frozen=True, slots=True)
class Matrix:
    """The eigenvalues of one matrix of one split."""

    eigenvalues: Eigenvalues
    influence: Influence | None
    """What each row does to them; of the test rows alone."""


@dataclass(frozen=True, slots=True)
class Spectra:
    """What all measures of eigenvalues need of one split."""

    about_mean: Matrix
    about_zero: Matrix


@once_a_view
def spectra(view: LayerView, split: Split) -> Spectra:
    """Return the eigenvalues of a split, with the influence of test rows on them.

    Raises:
        EstimatorError: There are no rows, or a feature is not finite.
    """
    sample, sure = read_sample(view, split), split == "test"
    rows = sample.features
    running = RunningMoments(rows.shape[1])
    for block in torch.split(rows, BLOCK):
        running.update(block.double() if rows.numel() <= EXACT else block)
    moments = running.compute()
    zero = torch.zeros_like(moments.mean)
    matrices = [
        (of_covariance(moments, vectors=sure), moments.mean),
        (of_second_moment(moments, vectors=sure), zero),
    ]
    return Spectra(*(
        Matrix(found, Influence.of(found, rows, mean, sample.groups) if sure else None)
        for found, mean in matrices
    ))  # fmt: skip


def _scores(
    measure: Measure,
    view: LayerView,
    functions: Callable[[Eigenvalues], Functions],
    settings: Callable[[Eigenvalues], Mapping[str, Any]] = lambda _: {},
) -> Iterator[Score]:
    """Yield the scores of a measure of the covariance, or of the second moment about zero."""
    centred = "translation" in measure.definition(UNLABELLED).invariances

    def read(split: Split) -> Readings:
        found = spectra(view, split)
        matrix = found.about_mean if centred else found.about_zero
        if not matrix.eigenvalues.rank:
            raise EstimatorError(
                f"The {split} rows of {view.cut.name!r} are all {'alike' if centred else 'zero'}.",
                hint="The layer is dead, or the images are all alike; leave the cut out.",
            )
        wanted = functions(matrix.eigenvalues)
        return Readings(_readings(wanted, matrix), settings(matrix.eigenvalues))

    return measure_scores(measure, view, UNLABELLED, read)


def _readings(functions: Functions, matrix: Matrix) -> dict[str, Reading]:
    def values(found: Eigenvalues) -> Tensor:
        return torch.stack([function(found) for function, _ in functions.values()])

    errors = torch.zeros(len(functions), dtype=torch.float64)
    if matrix.influence is not None:
        errors = matrix.influence.errors(values)
    known = zip(functions, values(matrix.eigenvalues).tolist(), errors.tolist(), strict=True)
    return {name: Reading(value, functions[name][1], error) for name, value, error in known}


@estimators.register("rankme")
@dataclass(frozen=True)
class RankMe:
    """RankMe as its paper has it: the exponential entropy of singular values, not centred."""

    seed: int = 0
    name: str = "rankme"

    def handles(self, task: Task) -> bool:
        return task.kind == "none"

    def definition(self, task: Task) -> Definition:
        return Definition(
            "rankme",
            "maximise",
            "singular-uncentred-1e-7",
            ABOUT_ZERO,
            "Garrido et al. 2023, RankMe (2210.02885), eq. 1 and 2",
        )

    def score(self, view: LayerView, tasks: Sequence[Task]) -> Iterator[Score]:
        """Yield rankme.

        Raises:
            EstimatorError: All rows are zero, or a feature is not finite.
        """
        return _scores(self, view, lambda _: {"rankme": (rankme, "maximise")})


@estimators.register("effective-rank")
@dataclass(frozen=True)
class EffectiveRank:
    """The exponential entropy of the covariance's eigenvalues, and their participation ratio."""

    seed: int = 0
    name: str = "effective-rank"

    def handles(self, task: Task) -> bool:
        return task.kind == "none"

    def definition(self, task: Task) -> Definition:
        return Definition(
            "effective-rank",
            "maximise",
            "eigenvalues-centred",
            ABOUT_MEAN,
            "Roy and Vetterli 2007, The effective rank, of the covariance's eigenvalues",
        )

    def score(self, view: LayerView, tasks: Sequence[Task]) -> Iterator[Score]:
        """Yield effective-rank and participation-ratio.

        Raises:
            EstimatorError: All rows are alike, or a feature is not finite.
        """
        return _scores(
            self,
            view,
            lambda _: {
                "effective-rank": (lambda found: effective_rank(found.values), "maximise"),
                "participation-ratio": (
                    lambda found: participation_ratio(found.values),
                    "maximise",
                ),
            },
        )


@estimators.register("stable-rank")
@dataclass(frozen=True)
class StableRank:
    """The squared Frobenius norm over the squared spectral norm, not centred."""

    seed: int = 0
    name: str = "stable-rank"

    def handles(self, task: Task) -> bool:
        return task.kind == "none"

    def definition(self, task: Task) -> Definition:
        return Definition(
            "stable-rank",
            "maximise",
            "uncentred",
            ABOUT_ZERO,
            "Rudelson and Vershynin 2007, Sampling from large matrices, section 1",
        )

    def score(self, view: LayerView, tasks: Sequence[Task]) -> Iterator[Score]:
        """Yield stable-rank; the condition number of the non-zero directions is in its settings.

        Raises:
            EstimatorError: All rows are zero, or a feature is not finite.
        """
        return _scores(
            self,
            view,
            lambda _: {"stable-rank": (lambda found: stable_rank(found.values), "maximise")},
            lambda found: {
                "rank": found.rank,
                "condition": float((found.positive[0] / found.positive[-1]).sqrt()),
            },
        )


@estimators.register("nesum")
@dataclass(frozen=True)
class NeSum:
    """The sum of the covariance's eigenvalues over the largest: the centred stable rank."""

    seed: int = 0
    name: str = "nesum"

    def handles(self, task: Task) -> bool:
        return task.kind == "none"

    def definition(self, task: Task) -> Definition:
        return Definition(
            "nesum",
            "maximise",
            "eigenvalues-centred",
            ABOUT_MEAN,
            "He and Ozay 2022, Exploring the Gap between Collapsed & Whitened Features",
        )

    def score(self, view: LayerView, tasks: Sequence[Task]) -> Iterator[Score]:
        """Yield nesum.

        Raises:
            EstimatorError: All rows are alike, or a feature is not finite.
        """
        return _scores(
            self,
            view,
            lambda _: {"nesum": (lambda found: stable_rank(found.values), "maximise")},
        )


@estimators.register("alpha-req")
@dataclass(frozen=True)
class AlphaReq:
    """How far from 1 the exponent is by which the covariance's eigenvalues decay (α-ReQ).

    Args:
        first: Place of the first eigenvalue of the fit, from 0.
        last: Place of the last; among several cuts no further than the narrowest reaches, because
            α depends on the window.
    """

    seed: int = 0
    name: str = "alpha-req"
    first: int = 11
    last: int = 99

    def handles(self, task: Task) -> bool:
        return task.kind == "none"

    def among(self, cuts: Sequence[CutPoint]) -> AlphaReq:
        """Return it with one window for all cuts."""
        return replace(self, last=min(self.last, *(cut.width - 1 for cut in cuts)))

    def definition(self, task: Task) -> Definition:
        return Definition(
            "alpha-distance",
            "minimise",
            "stringer-weighted-fit",
            ABOUT_MEAN,
            "Agrawal et al. 2022, α-ReQ (2202.05808); fit of Stringer et al. 2019",
        )

    def score(self, view: LayerView, tasks: Sequence[Task]) -> Iterator[Score]:
        """Yield alpha-distance, |α − 1|, and alpha; window and fit are in their settings.

        Raises:
            EstimatorError: The window holds fewer than five positive eigenvalues, or a feature is
                not finite.
        """

        def fitted(found: Eigenvalues) -> Tensor:
            return power_law(found, self.first, self.last).alpha

        def window(found: Eigenvalues) -> dict[str, Any]:
            law = power_law(found, self.first, self.last)
            return {"first": law.first, "last": law.last, "r2": law.r_squared}

        functions: Functions = {
            "alpha-distance": (lambda found: (fitted(found) - 1).abs(), "minimise"),
            "alpha": (fitted, "minimise"),
        }
        return _scores(self, view, lambda _: functions, window)


@estimators.register("matrix-entropy")
@dataclass(frozen=True)
class MatrixEntropy:
    """The entropy of the eigenvalues of ZZᵀ, as a share of the largest there can be.

    Args:
        order: Rényi's α; 1 is Shannon's.
    """

    seed: int = 0
    name: str = "matrix-entropy"
    order: float = 1.0

    def handles(self, task: Task) -> bool:
        return task.kind == "none"

    def definition(self, task: Task) -> Definition:
        return Definition(
            "matrix-entropy",
            "maximise",
            f"renyi-{self.order:g}-uncentred-rows-as-they-are",
            ABOUT_ZERO,
            "Skean et al. 2025, Layer by Layer (2502.02013), eq. 1",
        )

    def score(self, view: LayerView, tasks: Sequence[Task]) -> Iterator[Score]:
        """Yield matrix-entropy, divided by log min(n, d), and matrix-entropy-nats.

        Raises:
            EstimatorError: The order is not positive, all rows are zero, there is one row or one
                feature, or a feature is not finite.
        """
        if not self.order > 0:
            raise EstimatorError(
                f"An entropy of order {self.order:g} is not defined.", hint="Give one above 0."
            )

        def entropy(found: Eigenvalues) -> Tensor:
            return matrix_entropy(found, self.order)

        def functions(found: Eigenvalues) -> Functions:
            most = largest_entropy(found.count, len(found.values))
            if not most:
                raise EstimatorError(
                    f"The entropy of {found.count} rows of {len(found.values)} features is 0 "
                    "whatever they are.",
                    hint="Give more images, or leave the cut out.",
                )
            return {
                "matrix-entropy": (lambda values: entropy(values) / most, "maximise"),
                "matrix-entropy-nats": (entropy, "maximise"),
            }

        return _scores(self, view, functions)
