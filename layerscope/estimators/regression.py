"""Latent variables as regression targets: their encoding and their errors in their own units.

The rendered data set's latents follow Bordes et al. (2023), "Guillotine Regularization", table 1:
a rotation is a unit quaternion, a hue or an azimuth may be a point on the circle.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from layerscope.errors import EstimatorError
from layerscope.estimators.layer import read_target
from layerscope.stats.auroc import auroc, mean_auroc
from layerscope.stats.average_precision import average_precision, mean_average_precision
from layerscope.stats.rotation import (
    circle_from_angle,
    circular_distance,
    geodesic_angle,
    nearer_sign,
    quaternion_from_euler,
)
from layerscope.types import SPLITS, UNITS, Encoding, LayerView, Split, Task

RANKED = {
    "mean-average-precision": (mean_average_precision, average_precision),
    "auroc": (mean_auroc, auroc),
}
"""Metrics of the order that each label puts the rows into: over all labels, and of one."""
NATURAL: Mapping[Encoding | None, str] = {encoding: name for name, encoding in UNITS.items()}
"""The error in a latent's own unit, by how it is encoded."""
COMPONENTS: Mapping[Encoding | None, int] = {"circular": 2, "quaternion": 4}
"""Encoded components of one latent, where that is not one."""


@dataclass(frozen=True, slots=True)
class Regression:
    """One task's latents and what the regression is asked to predict."""

    task: Task
    latents: Mapping[Split, Tensor]
    """(n, k) float64 by split, in the latents' own units."""
    encoded: Mapping[Split, Tensor]
    """(n, c) float64 by split."""
    variance: Tensor
    """(c,) population variance of the encoded training targets."""

    @property
    def components(self) -> int:
        """The number c of encoded components."""
        return len(self.variance)

    @property
    def each(self) -> int:
        """The number of encoded components of one latent or label; a rotation is one latent."""
        return COMPONENTS.get(self.task.encoding, 1)

    @property
    def natural(self) -> str:
        """The metric in the latents' own unit."""
        return NATURAL.get(self.task.encoding, "mae")

    @property
    def metrics(self) -> tuple[str, ...]:
        """Those that each latent or label has by itself."""
        ranked = RANKED if self.task.kind == "multilabel" else ()
        return ("mse", "nmse", self.natural, *ranked)

    def squared_errors(self, predicted: Tensor, split: Split) -> Tensor:
        """Return (..., n, c) squared errors of (..., n, c) predictions.

        Those of a quaternion are to the nearer of q and −q, which are the same rotation.
        """
        target = self.encoded[split]
        if self.task.encoding == "quaternion":
            target = nearer_sign(predicted, target)
        return (predicted - target).square()

    def row_measures(self, predicted: Tensor, split: Split) -> dict[str, Tensor]:
        """Return (n,) values by metric for (n, c) predictions; each metric is a mean over rows.

        ``mse`` is the mean over components of the squared error, ``nmse`` the mean over components
        of the squared error over the training variance. The third is the error in the latent's own
        unit: ``mae``, ``circular-error``, or ``geodesic`` in degrees. Labels that may apply
        together have ``mean-average-precision`` and ``auroc`` besides, which are no means over
        rows: their values are the metric plus each row's influence on it.
        """
        squared = self.squared_errors(predicted, split)
        known = {"mse": squared.mean(1), "nmse": (squared / self.variance).mean(1)}
        known[self.natural] = self._natural_errors(predicted, split).mean(1)
        if self.task.kind == "multilabel":
            for metric, (over_labels, _) in RANKED.items():
                known[metric] = over_labels(predicted, self.latents[split])
        return known

    def losses(self, predicted: Tensor, split: Split) -> Tensor:
        """Return (n,) losses under the task's metric, whose mean falls as it gets better."""
        values = self.row_measures(predicted, split)[self.task.metric]
        return 1 - values if self.task.direction == "maximise" else values

    def losses_by_latent(self, predicted: Tensor, split: Split) -> Tensor:
        """Return losses of single latents or labels, by the task's metric of each alone.

        Args:
            predicted: (p, n, c) predictions.
            split: Whose rows these are.

        Returns:
            (p, n, g), whose mean over the rows falls as the metric gets better; NaN of a label for
            which it is not defined on the split.
        """
        metric = self.task.metric
        if metric in RANKED:
            _, of_one = RANKED[metric]
            rows = predicted.transpose(0, 1)
            return 1 - of_one(rows, self.latents[split][:, None]).transpose(0, 1)
        if metric in ("mse", "nmse"):
            squared = self.squared_errors(predicted, split)
            return self.over_components(squared / self.variance if metric == "nmse" else squared)
        return self._natural_errors(predicted, split)

    def over_components(self, values: Tensor) -> Tensor:
        """Return (..., g) means over the components of each latent, of (..., c) values."""
        return values.reshape(*values.shape[:-1], -1, self.each).mean(-1)

    def _natural_errors(self, predicted: Tensor, split: Split) -> Tensor:
        """Return (..., n, g) errors in the latents' own unit."""
        latents = self.latents[split]
        if self.task.encoding == "quaternion":
            angle = geodesic_angle(predicted, self.encoded[split])
            return torch.rad2deg(angle)[..., None]
        if self.task.encoding == "circular":
            points = predicted.reshape(*predicted.shape[:-1], -1, 2)
            return circular_distance(points, latents, _period(self.task))
        return (predicted - latents).abs()


def read_regression(view: LayerView, task: Task) -> Regression:
    """Read a task's latents and encode them.

    Raises:
        EstimatorError: The latents have another shape than their encoding needs, are not finite,
            or do not vary over the training rows.
    """
    latents = {split: _latents(view, task, split) for split in SPLITS}
    encoded = {split: encode(values, task) for split, values in latents.items()}
    variance = encoded["train"].var(0, correction=0)
    if bool((variance <= 1e-24 * encoded["train"].square().mean(0)).any()):
        raise EstimatorError(
            f"A component of {task.name!r} is the same in every training row.",
            hint="There is nothing to predict; leave the task out or use more training images.",
        )
    return Regression(task, latents, encoded, variance)


def encode(latents: Tensor, task: Task) -> Tensor:
    """Return (n, c) regression targets of (n, k) latents.

    ``raw``: as they are, c = k. ``circular``: sine and cosine of each, c = 2k. ``quaternion``: of
    the Euler angles in radians, k = 3 and c = 4, all with a scalar part of at least zero.

    Raises:
        EstimatorError: A quaternion is asked of other than three angles, or a circular latent has
            no period.
    """
    if task.encoding == "quaternion":
        if latents.shape[1] != 3:
            raise EstimatorError(
                f"The rotation {task.name!r} has {latents.shape[1]} angles.",
                hint="A quaternion is made of three Euler angles about x, y and z, in radians.",
            )
        return quaternion_from_euler(latents)
    if task.encoding == "circular":
        turns = [circle_from_angle(angle, _period(task)) for angle in latents.unbind(1)]
        return torch.cat(turns, 1)
    return latents


def _latents(view: LayerView, task: Task, split: Split) -> Tensor:
    values = np.asarray(read_target(view, task.name, split), dtype=np.float64)
    if values.ndim == 1:
        values = values[:, None]
    if values.ndim != 2 or not np.isfinite(values).all():
        raise EstimatorError(
            f"The {split} latents of {task.name!r} are not a table of finite numbers.",
            hint="Give (n, k) numbers, one row for each image.",
        )
    return torch.tensor(values)


def _period(task: Task) -> float:
    if not task.period:
        raise EstimatorError(
            f"The circular latent {task.name!r} has no period.",
            hint="Set the task's period to the length of a full turn in the latent's own unit.",
        )
    return task.period
