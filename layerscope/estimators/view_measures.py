"""Measures of what augmentations change: LiDAR and alignment; and uniformity, which needs none."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from layerscope.errors import SettingsError
from layerscope.estimators import estimators
from layerscope.estimators.measuring import (
    SplitMeasure,
    SplitValue,
    SplitValues,
    read_rows,
    require_views,
)
from layerscope.stats.class_geometry import class_moments_without_blocks
from layerscope.stats.hypersphere import alignment_by_image, potential_by_row
from layerscope.stats.jackknife import blocks_of, standard_error
from layerscope.stats.lidar import DELTA, lidar
from layerscope.stats.standard_error import standard_errors
from layerscope.types import Definition, LayerView, Split, Task

LIDAR_BLOCKS = 10
"""Each costs a Cholesky factor and a triangular solution."""
ROWS = 10_000
"""Rows of which all pairs are taken."""


@estimators.register("lidar")
@dataclass(frozen=True)
class Lidar(SplitMeasure):
    """LiDAR: directions that tell images apart beyond what their augmentations change.

    Args:
        seed: Of the blocks behind standard errors.
        delta: Added to the diagonal of the covariance within images.
    """

    name: str = "lidar"
    delta: float = DELTA

    def __post_init__(self) -> None:
        if not self.delta > 0:
            raise SettingsError(
                f"LiDAR cannot be computed with a δ of {self.delta:g}.",
                hint="Give one above 0; 1e-4 is usual.",
            )

    def definition(self, task: Task) -> Definition:
        return Definition(
            "lidar",
            "maximise",
            f"images-as-classes-delta-{self.delta:g}",
            frozenset({"rotation", "translation", "copies"}),
            "Thilak et al. 2024, LiDAR (2312.04000), section 3",
        )

    def of_split(self, view: LayerView, task: Task, split: Split) -> SplitValues:
        """Return lidar.

        Raises:
            EstimatorError: Rows are no augmented views, or are all alike.
        """
        split_rows = read_rows(view, split)
        require_views(split_rows, self.name)
        blocks = torch.zeros_like(split_rows.groups)
        if split == "test":
            blocks = blocks_of(split_rows.groups, self.seed, LIDAR_BLOCKS)
        moments = class_moments_without_blocks(split_rows.features, split_rows.images, blocks)
        value, error = lidar(next(moments), self.delta), 0.0
        if split == "test":
            without = [[lidar(one, self.delta)] for one in moments]
            error = float(standard_error(torch.tensor(without, dtype=torch.float64)))
        return SplitValues({"lidar": SplitValue(value, "maximise", error)}, {"delta": self.delta})


@estimators.register("alignment")
@dataclass(frozen=True)
class Alignment(SplitMeasure):
    """The mean squared distance on the unit sphere between views of one image."""

    name: str = "alignment"
    defined = Definition(
        "alignment",
        "minimise",
        "sphere-exponent-2",
        frozenset({"rotation", "scale", "row-scale", "copies"}),
        "Wang and Isola 2020, Alignment and Uniformity (2005.10242), eq. 3",
    )

    def of_split(self, view: LayerView, task: Task, split: Split) -> SplitValues:
        """Return alignment, which is 0 where all views of an image have one direction.

        Raises:
            EstimatorError: Rows are no augmented views.
        """
        split_rows = read_rows(view, split)
        require_views(split_rows, self.name)
        values, images = alignment_by_image(split_rows.features, split_rows.images)
        group = split_rows.groups.new_zeros(int(split_rows.images.max()) + 1)
        group[split_rows.images] = split_rows.groups
        found = standard_errors(values[:, None], group[images]) if split == "test" else 0.0
        return SplitValues(
            {"alignment": SplitValue(float(values.mean()), "minimise", float(found))}
        )


@estimators.register("uniformity")
@dataclass(frozen=True)
class Uniformity(SplitMeasure):
    """How evenly images spread over the unit sphere: the logarithm of a mean Gaussian potential.

    Args:
        seed: Of the rows that are drawn where there are more.
        rows: At most so many, of which all pairs are taken.
    """

    name: str = "uniformity"
    rows: int = ROWS
    defined = Definition(
        "uniformity",
        "minimise",
        "sphere-t-2-other-images",
        frozenset({"rotation", "scale", "row-scale"}),
        "Wang and Isola 2020, Alignment and Uniformity (2005.10242), eq. 4",
    )

    def of_split(self, view: LayerView, task: Task, split: Split) -> SplitValues:
        """Return uniformity: 0 for one direction, and the lower the more even.

        Raises:
            EstimatorError: All rows show one image, or a feature is not finite.
        """
        split_rows = read_rows(view, split).some(self.rows, self.seed)
        potential = potential_by_row(split_rows.features, split_rows.images)
        mean, error = potential.mean(), 0.0
        if split == "test":
            # A row is in the mean twice: as the one, and as the other of each pair.
            influence = (2 * potential / mean)[:, None]
            error = float(standard_errors(influence, split_rows.groups))
        value = SplitValue(float(mean.log()), "minimise", error)
        return SplitValues({"uniformity": value}, {"rows": len(split_rows.features)})
