"""Intrinsic dimensions of every cut, with the curve over scales that tells whether to believe them.

An estimate from n rows is one at the scale of their nearest neighbours: noise at small scales,
curvature at large ones. The curve has the same for halves of the rows; where it is level, the
dimension does not depend on the scale (Facco et al. 2017, figure 2; Ansuini et al. 2019, "Intrinsic
dimension of data representations in deep neural networks").

Rows that are each other's neighbours are not independent, so that the spread of what single rows
contribute is no standard error. It comes from halves of the groups, in which neighbours are those
of the same half.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from layerscope.errors import EstimatorError, SettingsError
from layerscope.estimators import estimators
from layerscope.estimators.measuring import (
    SplitMeasure,
    SplitRows,
    SplitValue,
    SplitValues,
    read_rows,
)
from layerscope.estimators.shared import once_a_view
from layerscope.stats.half_samples import halves_of, standard_error_of_halves
from layerscope.stats.intrinsic_dimension import (
    Neighbours,
    levina_bickel,
    nearest_distances,
    two_nn,
    two_nn_by_line,
)
from layerscope.types import Definition, Invariance, LayerView, Split, Task

ROWS = 10_000
"""Rows among which neighbours are looked for."""
NEIGHBOURS = 20
SMALLEST = 100
"""Rows below which the curve over scales has no point."""
MORE = 3
"""Times the wanted neighbours that are found besides, so that enough of them are in each half."""
UNMOVED: frozenset[Invariance] = frozenset({"rotation", "translation", "scale", "copies"})

Function = Callable[[Tensor], float]
"""Returns the dimension that (m, k) distances of rows to their k nearest ones show."""


@dataclass(frozen=True, slots=True)
class NeighboursByScale:
    """Neighbours among all rows, a half of them, a quarter and so on."""

    neighbours: tuple[Neighbours, ...]
    counts: tuple[int, ...]
    """Rows of each."""
    groups: Tensor
    """(m,) int64 group of each row that has neighbours among all rows."""
    features: Tensor
    """(n, d) all rows."""

    def distances(self, k: int) -> Tensor:
        """Return the (m, k) distances of all rows to the k nearest, or fewer where there are."""
        return self.neighbours[0].distances[:, :k]

    def settings(self, k: int, dimension: Function) -> dict[str, Any]:
        """Return the curve, numbers of rows and the dimensions that they show, and its plateau."""
        values = (dimension(near.distances[:, :k]) for near in self.neighbours)
        curve = list(zip(self.counts, values, strict=True))
        return {"curve": curve, "plateau": plateau(curve), "copies": self.neighbours[0].copies}

    def errors(self, k: int, dimensions: Sequence[Function], seed: int) -> list[float]:
        """Return the standard errors of dimensions, from halves of the groups.

        Args:
            k: How many neighbours these are of.
            dimensions: Which.
            seed: Of the halves.

        Raises:
            EstimatorError: There are fewer than two groups, or too few rows in one half.
        """
        known = []
        for half in halves_of(self.groups, seed):
            pair = [self._among(rows, k) for rows in (half, ~half)]
            known.append([[dimension(near) for dimension in dimensions] for near in pair])
        halves = torch.tensor(known, dtype=torch.float64)
        found: list[float] = standard_error_of_halves(halves).tolist()
        return found

    def _among(self, kept: Tensor, k: int) -> Tensor:
        """Return the distances of some rows to the k nearest of them, or fewer where there are."""
        whole = self.neighbours[0]
        k = min(k, int(kept.sum()) - 1)
        known = whole.among(kept, k)
        if known is not None:
            return known
        return nearest_distances(self.features[whole.rows[kept]], k).distances


@once_a_view
def neighbours_by_scale(
    view: LayerView, split: Split, k: int, limit: int, seed: int
) -> NeighboursByScale:
    """Return the neighbours of a split's rows at several scales.

    Raises:
        EstimatorError: There are too few different rows, or a feature is not finite.
    """
    split_rows = read_rows(view, split).some(limit, seed)
    whole = _nearest(split_rows, k, MORE * k if split == "test" else 0)
    found, counts = [whole], [len(split_rows.features)]
    while split == "test" and counts[-1] // 2 >= max(SMALLEST, k + 1):
        part = split_rows.some(counts[-1] // 2, seed)
        found.append(_nearest(part, k))
        counts.append(len(part.features))
    groups = split_rows.groups[whole.rows]
    return NeighboursByScale(tuple(found), tuple(counts), groups, split_rows.features)


def _nearest(split_rows: SplitRows, k: int, more: int = 0) -> Neighbours:
    """Return the k nearest of every row, or fewer where there are.

    Args:
        split_rows: The rows.
        k: How many.
        more: Others beyond these.
    """
    return nearest_distances(split_rows.features, min(k, len(split_rows.features) - 1), more)


def plateau(curve: Sequence[tuple[int, float]]) -> float | None:
    """Return the mean of the two neighbours on a curve that differ least; None of a single point.

    Examples:
        >>> plateau([(400, 4.0), (200, 4.1), (100, 6.0)])
        4.05
    """
    steps = [(abs(b - a) / (a + b), (a + b) / 2) for (_, a), (_, b) in pairwise(curve)]
    return min(steps)[1] if steps else None


@estimators.register("twonn")
@dataclass(frozen=True)
class TwoNn(SplitMeasure):
    """Intrinsic dimension from the distances to the two nearest rows.

    Args:
        seed: Of the rows that are drawn where there are more.
        rows: At most so many.
    """

    name: str = "twonn"
    rows: int = ROWS
    defined = Definition(
        "twonn",
        "minimise",
        "likelihood-n-1-copies-once",
        UNMOVED,
        "Facco et al. 2017, TwoNN (1803.06992); direction of Ansuini et al. 2019 (1905.12784)",
    )

    def of_split(self, view: LayerView, task: Task, split: Split) -> SplitValues:
        """Return twonn by maximum likelihood and twonn-line, the paper's fit; curve in settings.

        Raises:
            EstimatorError: There are fewer than three different rows, or a feature is not finite.
        """
        found = neighbours_by_scale(view, split, NEIGHBOURS, self.rows, self.seed)
        near = found.distances(2)
        if near.shape[1] < 2:
            raise EstimatorError(
                f"TwoNN needs at least 3 different rows, and {view.cut.name!r} has 2.",
                hint="Give more images.",
            )
        functions, errors = (two_nn, two_nn_by_line), [0.0, 0.0]
        if split == "test":
            errors = found.errors(2, functions, self.seed)
        values = {
            name: SplitValue(function(near), "minimise", error)
            for name, function, error in zip(
                ("twonn", "twonn-line"), functions, errors, strict=True
            )
        }
        return SplitValues(values, found.settings(2, two_nn))


@estimators.register("mle-dimension")
@dataclass(frozen=True)
class MleDimension(SplitMeasure):
    """Intrinsic dimension from the distances to the k nearest rows, by maximum likelihood.

    Args:
        seed: Of the rows that are drawn where there are more.
        rows: At most so many.
        k: Number of neighbours, at least 2.
    """

    name: str = "mle-dimension"
    rows: int = ROWS
    k: int = NEIGHBOURS

    def __post_init__(self) -> None:
        if self.k < 2:
            raise SettingsError(
                f"A dimension from {self.k} neighbours is not defined.", hint="Give k=2 or more."
            )

    def definition(self, task: Task) -> Definition:
        return Definition(
            "mle-dimension",
            "minimise",
            f"levina-bickel-{self.k}-harmonic",
            UNMOVED,
            "Levina and Bickel 2004, eq. 8; averaged as MacKay and Ghahramani 2005",
        )

    def of_split(self, view: LayerView, task: Task, split: Split) -> SplitValues:
        """Return mle-dimension; the curve over scales is in its settings.

        Raises:
            EstimatorError: There are not more different rows than neighbours, or a feature is not
                finite.
        """
        found = neighbours_by_scale(view, split, self.k, self.rows, self.seed)
        near = found.distances(self.k)
        if near.shape[1] < self.k:
            raise EstimatorError(
                f"{self.k} neighbours need {self.k + 1} rows, and {view.cut.name!r} has "
                f"{found.counts[0]} in {split}.",
                hint="Give more images, or a smaller k: mle-dimension(k=5).",
            )
        error = found.errors(self.k, [levina_bickel], self.seed)[0] if split == "test" else 0.0
        return SplitValues(
            {"mle-dimension": SplitValue(levina_bickel(near), "minimise", error)},
            {"k": self.k, **found.settings(self.k, levina_bickel)},
        )
