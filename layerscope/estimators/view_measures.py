"""Measures of what augmentations change: LiDAR and alignment; and uniformity, which needs none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from layerscope.errors import SettingsError
from layerscope.estimators import estimators
from layerscope.estimators.measuring import (
    Reading,
    Readings,
    measure_scores,
    read_sample,
    require_views,
)
from layerscope.stats.class_geometry import class_moments_without_blocks
from layerscope.stats.hypersphere import alignment_by_image, potential_by_row
from layerscope.stats.jackknife import blocks_of, standard_error
from layerscope.stats.lidar import DELTA, lidar
from layerscope.stats.standard_error import standard_errors
from layerscope.types import UNLABELLED, Definition, LayerView, Score, Split, Task

LIDAR_BLOCKS = 10
"""Each costs a Cholesky factor and a triangular solution."""
ROWS = 10_000
"""Rows of which all pairs are taken."""


@estimators.register("lidar")
@dataclass(frozen=True)
class Lidar:
    """LiDAR: directions that tell images apart beyond what their augmentations change.

    Args:
        seed: Of the blocks behind standard errors.
        delta: Added to the diagonal of the covariance within images.
    """

    seed: int = 0
    name: str = "lidar"
    delta: float = DELTA

    def __post_init__(self) -> None:
        if not self.delta > 0:
            raise SettingsError(
                f"LiDAR cannot be computed with a δ of {self.delta:g}.",
                hint="Give one above 0; 1e-4 is usual.",
            )

    def handles(self, task: Task) -> bool:
        return task.kind == "none"

    def definition(self, task: Task) -> Definition:
        return Definition(
            "lidar",
            "maximise",
            f"images-as-classes-delta-{self.delta:g}",
            frozenset({"rotation", "translation", "copies"}),
            "Thilak et al. 2024, LiDAR (2312.04000), section 3",
        )

    def score(self, view: LayerView, tasks: Sequence[Task]) -> Iterator[Score]:
        """Yield lidar.

        Raises:
            EstimatorError: Rows are no augmented views, or are all alike.
        """

        def read(split: Split) -> Readings:
            sample = read_sample(view, split)
            require_views(sample, self.name)
            blocks = torch.zeros_like(sample.groups)
            if split == "test":
                blocks = blocks_of(sample.groups, self.seed, LIDAR_BLOCKS)
            moments = class_moments_without_blocks(sample.features, sample.images, blocks)
            value, error = lidar(next(moments), self.delta), 0.0
            if split == "test":
                without = [[lidar(one, self.delta)] for one in moments]
                error = float(standard_error(torch.tensor(without, dtype=torch.float64)))
            return Readings({"lidar": Reading(value, "maximise", error)}, {"delta": self.delta})

        return measure_scores(self, view, UNLABELLED, read, self.seed)


@estimators.register("alignment")
@dataclass(frozen=True)
class Alignment:
    """The mean squared distance on the unit sphere between views of one image."""

    seed: int = 0
    name: str = "alignment"

    def handles(self, task: Task) -> bool:
        return task.kind == "none"

    def definition(self, task: Task) -> Definition:
        return Definition(
            "alignment",
            "minimise",
            "sphere-exponent-2",
            frozenset({"rotation", "scale", "row-scale", "copies"}),
            "Wang and Isola 2020, Alignment and Uniformity (2005.10242), eq. 3",
        )

    def score(self, view: LayerView, tasks: Sequence[Task]) -> Iterator[Score]:
        """Yield alignment, which is 0 where all views of an image have one direction.

        Raises:
            EstimatorError: Rows are no augmented views.
        """

        def read(split: Split) -> Readings:
            sample = read_sample(view, split)
            require_views(sample, self.name)
            values, images = alignment_by_image(sample.features, sample.images)
            group = sample.groups.new_zeros(int(sample.images.max()) + 1)
            group[sample.images] = sample.groups
            found = standard_errors(values[:, None], group[images]) if split == "test" else 0.0
            error = float(found)
            return Readings({"alignment": Reading(float(values.mean()), "minimise", error)})

        return measure_scores(self, view, UNLABELLED, read, self.seed)


@estimators.register("uniformity")
@dataclass(frozen=True)
class Uniformity:
    """How evenly images spread over the unit sphere: the logarithm of a mean Gaussian potential.

    Args:
        seed: Of the rows that are drawn where there are more.
        rows: At most so many, of which all pairs are taken.
    """

    seed: int = 0
    name: str = "uniformity"
    rows: int = ROWS

    def handles(self, task: Task) -> bool:
        return task.kind == "none"

    def definition(self, task: Task) -> Definition:
        return Definition(
            "uniformity",
            "minimise",
            "sphere-t-2-other-images",
            frozenset({"rotation", "scale", "row-scale"}),
            "Wang and Isola 2020, Alignment and Uniformity (2005.10242), eq. 4",
        )

    def score(self, view: LayerView, tasks: Sequence[Task]) -> Iterator[Score]:
        """Yield uniformity: 0 for one direction, and the lower the more even.

        Raises:
            EstimatorError: All rows show one image, or a feature is not finite.
        """

        def read(split: Split) -> Readings:
            sample = read_sample(view, split).some(self.rows, self.seed)
            potential = potential_by_row(sample.features, sample.images)
            mean, error = potential.mean(), 0.0
            if split == "test":
                # A row is in the mean twice: as the one, and as the other of each pair.
                influence = (2 * potential / mean)[:, None]
                error = float(standard_errors(influence, sample.groups))
            reading = Reading(float(mean.log()), "minimise", error)
            return Readings({"uniformity": reading}, {"rows": len(sample.features)})

        return measure_scores(self, view, UNLABELLED, read, self.seed)
