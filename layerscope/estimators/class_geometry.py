"""How the classes of a task lie in a cut: separation, neural collapse and Fisher's ratio.

Neural collapse and Fisher's ratio come from the same moments, which are formed once. Their papers
look at training rows; here as everywhere the table has validation and test rows, and the settings
of neural collapse also what it is on training rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from layerscope.errors import EstimatorError
from layerscope.estimators import estimators
from layerscope.estimators.measuring import (
    SplitMeasure,
    SplitRows,
    SplitValue,
    SplitValues,
    read_labels,
    read_rows,
)
from layerscope.estimators.shared import once_a_view
from layerscope.stats.class_geometry import (
    class_moments_without_blocks,
    class_separation,
    disagreement,
    discriminant_ratio,
    discriminant_weights,
    fisher_ratio,
    neural_collapse,
    self_duality,
    spread_of,
)
from layerscope.stats.class_moments import ClassMoments
from layerscope.stats.jackknife import blocks_of, standard_error
from layerscope.stats.moments import BLOCK, row_mean
from layerscope.stats.neighbours import unit_rows
from layerscope.stats.standard_error import standard_errors
from layerscope.types import Definition, LayerView, Split, Task

SHRINKAGE = 0.1
"""Of the covariance within classes, towards the identity times its mean variance."""

Values = tuple[dict[str, float], dict[str, float]]
"""By metric: of all rows, and standard errors."""
Measured = Callable[[ClassMoments], dict[str, float]]
Known = list[dict[str, float]] | EstimatorError
"""Of all rows and without each block, or why not."""


@dataclass(frozen=True)
class ClassMeasure(SplitMeasure):
    """A measure of how the classes of a task lie."""

    targets = "classes"


@estimators.register("class-separation")
@dataclass(frozen=True)
class ClassSeparation(ClassMeasure):
    """The share of the mean cosine distance that lies between classes: R² of class separation."""

    name: str = "class-separation"
    defined = Definition(
        "class-separation",
        "maximise",
        "cosine-classes-alike",
        frozenset({"rotation", "scale", "row-scale", "copies"}),
        "Kornblith et al. 2021, Better Loss Functions (2010.16402), section 4.1",
    )

    def of_split(self, view: LayerView, task: Task, split: Split) -> SplitValues:
        """Return class-separation.

        Raises:
            EstimatorError: There is a single class, or all rows point in one direction.
        """
        split_rows, labels = read_rows(view, split), read_labels(view, task.name, split)
        classes, width = int(labels.max()) + 1, split_rows.features.shape[1]
        blocks = _blocks(split_rows, split, self.seed)
        slots = blocks * classes + labels
        parts = int(blocks.max()) + 1
        sums = torch.zeros(parts * classes, width, dtype=torch.float64)
        for some, place in zip(
            torch.split(split_rows.features, BLOCK), torch.split(slots, BLOCK), strict=True
        ):
            sums.index_add_(0, place, unit_rows(some.double()))
        sums = sums.view(parts, classes, width)
        counts = torch.bincount(slots, minlength=parts * classes).view(parts, classes)
        value, error = class_separation(sums.sum(0), counts.sum(0)), 0.0
        if split == "test":
            without = [
                [class_separation(sums.sum(0) - own, counts.sum(0) - number)]
                for own, number in zip(sums, counts, strict=True)
            ]
            error = float(standard_error(torch.tensor(without, dtype=torch.float64)))
        return SplitValues({"class-separation": SplitValue(value, "maximise", error)})


def _blocks(split_rows: SplitRows, split: Split, seed: int) -> Tensor:
    """Return the block that each test row is left out with; of other rows no errors are wanted."""
    groups = split_rows.groups
    return blocks_of(groups, seed) if split == "test" else torch.zeros_like(groups)


@once_a_view
def geometry(
    view: LayerView, task: str, split: Split, seed: int
) -> dict[str, Values | EstimatorError]:
    """Return neural collapse and Fisher's ratio of one split by headline, or why there is none.

    Raises:
        EstimatorError: There are no rows, a feature is not finite, or labels are no classes.
    """
    split_rows = read_rows(view, split)
    labels = read_labels(view, task, split)
    with_errors = split == "test"
    blocks = _blocks(split_rows, split, seed)
    moments = class_moments_without_blocks(split_rows.features, labels, blocks)
    whole = next(moments)
    collapse, fisher = _add_result(_collapse, [], whole), _add_result(_fisher, [], whole)
    for part in moments if with_errors else ():
        collapse = _add_result(_collapse, collapse, part)
        fisher = _add_result(_fisher, fisher, part)
    with_nc4 = _with_nc4(_values(collapse), split_rows, whole, with_errors)
    return {"nc1": with_nc4, "fisher-ratio": _values(fisher)}


def _add_result(function: Measured, known: Known, moments: ClassMoments) -> Known:
    """Return one more result, or the error that came first: it is one measure's alone."""
    if isinstance(known, EstimatorError):
        return known
    try:
        return [*known, function(moments)]
    except EstimatorError as error:
        return error


def _values(found: Known) -> Values | EstimatorError:
    if isinstance(found, EstimatorError):
        return found
    whole, *without = found
    if not without:
        return whole, dict.fromkeys(whole, 0.0)
    table = torch.tensor([list(one.values()) for one in without], dtype=torch.float64)
    return whole, dict(zip(whole, standard_error(table).tolist(), strict=True))


def _with_nc4(
    found: Values | EstimatorError, split_rows: SplitRows, moments: ClassMoments, with_errors: bool
) -> Values | EstimatorError:
    """Add the share of rows on which two classifiers differ, which is a mean over rows."""
    if isinstance(found, EstimatorError):
        return found
    weights = discriminant_weights(moments, SHRINKAGE)
    # The moments are about the rows' mean.
    rows = split_rows.features
    differs = disagreement(rows, row_mean(rows), moments, weights)
    error = float(standard_errors(differs[:, None], split_rows.groups)) if with_errors else 0.0
    return found[0] | {"nc4": float(differs.mean())}, found[1] | {"nc4": error}


def _collapse(moments: ClassMoments) -> dict[str, float]:
    found = neural_collapse(moments)
    weights = discriminant_weights(moments, SHRINKAGE)
    means = moments.means[moments.counts > 0]
    return {
        "nc1": found.variability,
        "nc2-norms": found.equinorm,
        "nc2-angles": found.equiangularity,
        "nc3": self_duality(weights, means, spread_of(moments)),
    }


def _fisher(moments: ClassMoments) -> dict[str, float]:
    return {
        "fisher-ratio": fisher_ratio(moments),
        "discriminant-ratio": discriminant_ratio(moments, SHRINKAGE),
    }


@dataclass(frozen=True)
class MomentMeasure(ClassMeasure):
    """A measure of the moments by class."""

    def settings(self, view: LayerView, task: Task) -> Mapping[str, object]:
        """Return what was chosen."""
        del view, task
        return {"shrinkage": SHRINKAGE}

    def of_split(self, view: LayerView, task: Task, split: Split) -> SplitValues:
        found = geometry(view, task.name, split, self.seed)[self.defined.metric]
        if isinstance(found, EstimatorError):
            raise found
        whole, errors = found
        direction = self.defined.direction
        values = {name: SplitValue(value, direction, errors[name]) for name, value in whole.items()}
        return SplitValues(values, self.settings(view, task) if split == "test" else {})


@estimators.register("neural-collapse")
@dataclass(frozen=True)
class NeuralCollapse(MomentMeasure):
    """Neural collapse: variability within classes (NC1), equal angles (NC2) and self-duality (NC3).

    NC3 and NC4 are about the network's own classifier, which a cache does not hold. The linear
    discriminant of the same rows stands for it, its covariance shrunk by 0.1; NC4 is the share of
    rows on which it and the nearest class mean differ.
    """

    name: str = "neural-collapse"
    defined = Definition(
        "nc1",
        "minimise",
        "trace-over-classes-pinv",
        frozenset({"rotation", "translation", "scale", "copies"}),
        "Papyan, Han and Donoho 2020, Neural collapse (2008.08186)",
    )

    def settings(self, view: LayerView, task: Task) -> Mapping[str, object]:
        """Return the shrinkage, and the metrics of training rows or why they have none."""
        found = geometry(view, task.name, "train", self.seed)[self.defined.metric]
        train = str(found) if isinstance(found, EstimatorError) else found[0]
        return {"shrinkage": SHRINKAGE, "train": train}


@estimators.register("fisher")
@dataclass(frozen=True)
class Fisher(MomentMeasure):
    """Fisher's ratio: the variance between classes over that within them.

    Beside it stands discriminant-ratio: tr(S_W⁻¹S_B), with S_W shrunk by 0.1.
    """

    name: str = "fisher"
    defined = Definition(
        "fisher-ratio",
        "maximise",
        "trace-ratio-rows-alike",
        frozenset({"rotation", "translation", "scale", "copies"}),
        "Fukunaga 1990, Statistical Pattern Recognition, section 10.2",
    )
