"""Coding rate and coding rate reduction of every cut, at a width that all cuts have in common.

Both are strongly biased by the numbers of rows and features: random unit rows have R/d of 0.55 for
64 features and 0.44 for 2,048 of them at 2,000 rows. Cuts of one cache have the same rows; a random
projection with one seed gives all of them the width of the narrowest one. Standard errors come from
leaving out blocks of whole groups, the same blocks at every cut.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Self, get_args

import torch
from torch import Tensor

from layerscope.errors import EstimatorError, SettingsError
from layerscope.estimators import estimators
from layerscope.estimators.measuring import (
    SplitMeasure,
    SplitRows,
    SplitValue,
    SplitValues,
    read_labels,
    read_rows,
    require_views,
)
from layerscope.stats.coding_rate import CodingRates, rate_bound
from layerscope.stats.jackknife import blocks_of, standard_error
from layerscope.stats.partitioned_rate import (
    BLOCK,
    Normalisation,
    PartitionedRates,
    pair_terms,
    partitioned_rates,
    row_scales,
)
from layerscope.types import CutPoint, Definition, Direction, Invariance, LayerView, Split, Task

Partition = Literal["labels", "instances", "pairs"]
"""What the classes of R_c are: a task's, images with all their views, or images with two views."""
UNMOVED: Mapping[Normalisation, frozenset[Invariance]] = {
    "sphere": frozenset({"rotation", "scale", "row-scale", "copies"}),
    "frobenius": frozenset({"rotation", "scale", "copies"}),
    "none": frozenset({"rotation", "copies"}),
}
DIRECTIONS: Mapping[str, Direction] = {"conditional-coding-rate": "minimise"}
"""Of what is not better the larger it is."""


@estimators.register("coding-rate")
@dataclass(frozen=True)
class CodingRate(SplitMeasure):
    """Coding rate reduction ΔR of a task's classes or of images, and R without either.

    Args:
        seed: Of the projection and of the blocks behind standard errors.
        eps_sq: The squared distortion ε².
        normalisation: ``sphere``, ``frobenius`` or ``none``, as
            :mod:`layerscope.stats.partitioned_rate` has them.
        partition: ``labels`` of a task, where there is one, or ``instances`` or ``pairs`` of
            augmented views.
        width: ``common`` to all cuts, ``own``, or a number of features.
    """

    name: str = "coding-rate"
    eps_sq: float = 0.5
    normalisation: Normalisation = "sphere"
    partition: Partition = "labels"
    width: int | Literal["common", "own"] = "common"

    def __post_init__(self) -> None:
        for value, known in ((self.normalisation, Normalisation), (self.partition, Partition)):
            if value not in get_args(known):
                raise SettingsError(
                    f"{value!r} is no way to normalise or divide the rows of a coding rate.",
                    hint=f"Choose {', '.join(get_args(known))}.",
                )
        if self.width not in ("common", "own") and not (
            isinstance(self.width, int) and self.width > 0
        ):
            raise SettingsError(
                f"A coding rate cannot have a width of {self.width!r}.",
                hint="Choose common, own, or a number of features.",
            )

    def handles(self, task: Task) -> bool:
        return task.kind == "none" or (task.kind == "classes" and self.partition == "labels")

    def among(self, cuts: Sequence[CutPoint]) -> Self:
        """Return it with the width of the narrowest cut, where it is to be common."""
        if self.width != "common":
            return self
        return replace(self, width=min(cut.width for cut in cuts))

    def with_seed(self, seed: int) -> Self:
        """Return it with another projection; itself where nothing is projected."""
        return self if self.width == "own" else replace(self, seed=seed)

    def definition(self, task: Task) -> Definition:
        divided = task.kind == "classes" or self.partition != "labels"
        moved: frozenset[Invariance] = frozenset()
        if isinstance(self.width, int):
            moved = frozenset({"rotation"})  # a projection has axes, and holds only on average
        partition = self.partition if divided else "undivided"
        return Definition(
            "coding-rate-reduction" if divided else "coding-rate",
            "maximise",
            f"{self.normalisation}-{partition}-uncentred-nats",
            UNMOVED[self.normalisation] - moved,
            "Yu et al. 2020, MCR² (2006.08558), section 2",
        )

    def of_split(self, view: LayerView, task: Task, split: Split) -> SplitValues:
        """Return coding-rate, with a partition also the reduction, and shares that compare layers.

        Raises:
            EstimatorError: ε² is not positive, a feature is not finite, the partition wants views
                that there are none of, or the cut is narrower than the width.
        """
        split_rows = read_rows(view, split)
        rows = self._narrowed(split_rows.features, view.cut)
        blocks = blocks_of(split_rows.groups, self.seed) if split == "test" else None
        if self.partition == "pairs":
            rates = self._paired(rows, split_rows, blocks)
        else:
            classes = self._classes(view, task, split, split_rows)
            rates = partitioned_rates(
                rows, classes, self.eps_sq, normalisation=self.normalisation, blocks=blocks
            )
        divided = self.definition(task).metric == "coding-rate-reduction"
        settings = {
            "eps_sq": self.eps_sq,
            "normalisation": self.normalisation,
            "partition": self.partition,
            "projected_to": rows.shape[1],
            "rows": len(rows),
        }
        return SplitValues(_values_by_metric(rates, rows, self.eps_sq, divided, blocks), settings)

    def _classes(
        self, view: LayerView, task: Task, split: Split, split_rows: SplitRows
    ) -> Tensor | None:
        if self.partition == "instances":
            require_views(split_rows, self.name)
            return split_rows.images
        return None if task.kind == "none" else read_labels(view, task.name, split)

    def _paired(
        self, rows: Tensor, split_rows: SplitRows, blocks: Tensor | None
    ) -> PartitionedRates:
        """Return rates in which every image's two views are a class, without a determinant."""
        require_views(split_rows, self.name)
        order = split_rows.images.argsort(stable=True)
        counts = torch.unique(split_rows.images, return_counts=True)[1]
        if not bool((counts == 2).all()):
            raise EstimatorError(
                f"A partition by pairs wants 2 views of each image, and some have "
                f"{int(counts[counts != 2][0])}.",
                hint="Use partition='instances', which takes any number of views.",
            )
        together = partitioned_rates(
            rows, None, self.eps_sq, normalisation=self.normalisation, blocks=blocks
        )
        scales = row_scales(
            rows, torch.unique(split_rows.images, return_inverse=True)[1], self.normalisation
        )

        def placed(places: Tensor) -> Tensor:
            return rows[places].double() * scales[places, None]

        terms = torch.cat([
            pair_terms(placed(pairs[:, 0]), placed(pairs[:, 1]), self.eps_sq)
            for pairs in torch.split(order.view(-1, 2), BLOCK)
        ])  # fmt: skip
        means = [terms.mean()]
        if blocks is not None:
            own = blocks[order][0::2]
            means += [terms[own != block].mean() for block in range(len(together.without))]
        rates = [
            CodingRates(one.rate, float(mean))
            for one, mean in zip((together.whole, *together.without), means, strict=True)
        ]
        return PartitionedRates(rates[0], tuple(rates[1:]))

    def _narrowed(self, rows: Tensor, cut: CutPoint) -> Tensor:
        """Return rows under the projection that every cut of their width has."""
        width = self.width if isinstance(self.width, int) else rows.shape[1]
        if width > rows.shape[1]:
            raise EstimatorError(
                f"{cut.name!r} has {rows.shape[1]} features, fewer than the width of {width}.",
                hint="Give at most the width of the narrowest cut, or width='common'.",
            )
        if width == rows.shape[1]:
            return rows
        draw = torch.Generator().manual_seed(self.seed)
        normal = torch.randn(rows.shape[1], width, generator=draw, dtype=torch.float64)
        # Orthonormal but for a factor that keeps the mean squared length.
        axes = torch.linalg.qr(normal).Q * (rows.shape[1] / width) ** 0.5
        narrowed: Tensor = rows @ axes.float()
        return narrowed


def _values_by_metric(
    rates: PartitionedRates, rows: Tensor, eps_sq: float, divided: bool, blocks: Tensor | None
) -> dict[str, SplitValue]:
    count, width = rows.shape
    whole = _metrics(rates.whole, count, width, eps_sq, divided)
    errors = dict.fromkeys(whole, 0.0)
    if blocks is not None:
        sizes = count - torch.bincount(blocks)
        parts = [
            list(_metrics(one, size, width, eps_sq, divided).values())
            for one, size in zip(rates.without, sizes.tolist(), strict=True)
        ]
        found = standard_error(torch.tensor(parts, dtype=torch.float64))
        errors = dict(zip(whole, found.tolist(), strict=True))
    return {
        name: SplitValue(value, DIRECTIONS.get(name, "maximise"), errors[name])
        for name, value in whole.items()
    }


def _metrics(
    rates: CodingRates, count: int, width: int, eps_sq: float, divided: bool
) -> dict[str, float]:
    """Return a rate and its shares; a layer of zeros has no rate and so no shares of one."""
    bound = rate_bound(count, width, eps_sq)
    known = {"coding-rate": rates.rate, "rate-per-dimension": rates.rate / width}
    if not divided:
        return known | {"bound-share": rates.rate / bound}
    return known | {
        "conditional-coding-rate": rates.conditional,
        "coding-rate-reduction": rates.reduction,
        "reduction-share": rates.reduction / rates.rate if rates.rate > 0 else 0.0,
        "bound-share": rates.reduction / bound,
    }
