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
from layerscope.stats.average_precision import mean_average_precision
from layerscope.stats.rotation import (
    circle_from_angle,
    circular_distance,
    geodesic_angle,
    quaternion_from_euler,
)
from layerscope.types import SPLITS, LayerView, Split, Task

PRECISION = "mean-average-precision"


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

    def row_measures(self, predicted: Tensor, split: Split) -> dict[str, Tensor]:
        """Return (n,) values by metric for (n, c) predictions; each metric is a mean over rows.

        ``mse`` is the mean over components of the squared error, ``nmse`` the mean over components
        of the squared error over the training variance. The third is the error in the latent's own
        unit: ``mae``, ``circular-error``, or ``geodesic`` in degrees. Labels that may apply
        together have ``mean-average-precision`` besides, which is no mean over rows: its values are
        the metric plus each row's influence on it.
        """
        squared = (predicted - self.encoded[split]).square()
        return {
            "mse": squared.mean(1),
            "nmse": (squared / self.variance).mean(1),
            **self._natural(predicted, self.latents[split]),
        }

    def losses(self, predicted: Tensor, split: Split) -> Tensor:
        """Return (n,) losses under the task's metric, whose mean falls as it gets better."""
        values = self.row_measures(predicted, split)[self.task.metric]
        return 1 - values if self.task.direction == "maximise" else values

    def _natural(self, predicted: Tensor, latents: Tensor) -> dict[str, Tensor]:
        if self.task.encoding == "quaternion":
            angle = geodesic_angle(predicted, quaternion_from_euler(latents))
            return {"geodesic": torch.rad2deg(angle)}
        if self.task.encoding == "circular":
            points = predicted.reshape(len(predicted), -1, 2).unbind(1)
            distances = [
                circular_distance(point, angle, _period(self.task))
                for point, angle in zip(points, latents.unbind(1), strict=True)
            ]
            return {"circular-error": torch.stack(distances, 1).mean(1)}
        error = {"mae": (predicted - latents).abs().mean(1)}
        if self.task.kind == "multilabel":
            error[PRECISION] = mean_average_precision(predicted, latents)
        return error


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
    the Euler angles in radians, k = 3 and c = 4.

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
