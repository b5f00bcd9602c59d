"""Predictions of latents or labels by any regressor, and the scores that follow from them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from layerscope.estimators.cell import DRAWS, Cell, MetricValue, losses, require_metric
from layerscope.estimators.layer import LoadedLayer
from layerscope.estimators.regression import RANKED, Regression
from layerscope.stats.bootstrap import Resampled, resample
from layerscope.types import Direction, LayerView, Replicates, Score, Split


@dataclass(frozen=True, slots=True)
class Predictions:
    """What a regressor makes of the rows of one task."""

    regression: Regression
    by_split: Mapping[Split, Tensor]
    """(n, c) encoded components, of val and of test."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What was chosen and how."""
    note: str = ""
    replicates: tuple[Replicates, ...] = ()
    """Of the losses of the test rows under the task's metric."""

    def measures(self, split: Split) -> dict[str, Tensor]:
        """Return (n,) values by metric, of which the metric is the mean."""
        return self.regression.row_measures(self.by_split[split], split)

    def columns(self, split: Split) -> Tensor:
        """Return (n, m + 3c) values whose means give every metric: m of rows, then R²'s parts."""
        target = self.regression.encoded[split]
        centred = target - target.mean(0)
        squared = self.regression.squared_errors(self.by_split[split], split)
        rowwise = torch.stack(list(self.measures(split).values()), 1)
        return torch.cat((rowwise, squared, centred, centred.square()), 1)

    def by_target(self) -> dict[str, Any]:
        """Return the errors of each component over the test rows, None where one is not defined."""
        c = self.regression.components
        means = self.columns("test").mean(0)
        return {
            "mse_by_target": _plain(means[-3 * c :][:c]),
            "r2_by_target": _plain(_each_r2(means, c)),
        }


def regression_scores(
    view: LayerView, layer: LoadedLayer, estimator: str, seed: int, known: Sequence[Predictions]
) -> Iterator[Score]:
    """Yield the scores of several tasks, whose standard errors come from the same resamples.

    Args:
        view: The cut.
        layer: Its rows.
        estimator: The name in the table.
        seed: Of the resamples.
        known: One for each task.

    Raises:
        EstimatorError: A task's primary metric is none that is a mean over rows.
    """
    columns = [one.columns("test") for one in known]
    resampled = resample(torch.cat(columns, 1), layer.groups, resamples=DRAWS, seed=seed)
    start = 0
    for one, width in zip(known, (part.shape[1] for part in columns), strict=True):
        settings = {
            **one.settings,
            "encoding": one.regression.task.encoding or "raw",
            "components": one.regression.components,
            **one.by_target(),
        }
        cell = Cell(view, layer, one.regression.task, estimator, seed, settings, one.note)
        own = slice(start, start + width)
        part = Resampled(resampled.estimate[own], resampled.draws[:, own], resampled.groups)
        yield from _scores(cell, one, part)
        start += width


def _scores(cell: Cell, known: Predictions, resampled: Resampled) -> Iterator[Score]:
    val, test = known.measures("val"), known.measures("test")
    primary = cell.task.metric
    require_metric(cell.task, val, cell.estimator)
    of_val, of_test = (
        1 - rows[primary] if primary in RANKED else rows[primary] for rows in (val, test)
    )
    rowwise = losses(of_val, of_test, known.by_split["test"].numpy(), known.replicates)
    errors = resampled.standard_error()
    for position, metric in enumerate(val):
        estimate, stderr = float(resampled.estimate[position]), float(errors[position])
        mean = float(val[metric].mean())
        yield cell.score(MetricValue(metric, _direction(metric), mean, estimate, stderr), rowwise)
    yield cell.score(_explained(known, resampled), rowwise)


def _plain(values: Tensor) -> list[float | None]:
    """Return values as JSON can hold them."""
    return [value if math.isfinite(value) else None for value in values.tolist()]


def _direction(metric: str) -> Direction:
    return "maximise" if metric in RANKED else "minimise"


def _each_r2(means: Tensor, components: int) -> Tensor:
    """Return (..., c) R² of each component about its own mean in the rows."""
    error, first, second = torch.split(means[..., -3 * components :], components, dim=-1)
    explained: Tensor = 1 - error / (second - first.square())
    return explained


def _r2(means: Tensor, components: int) -> Tensor:
    """Return (...) R², of each component about its own mean, averaged uniformly.

    One mean for all components would credit a predictor for knowing that they differ.
    """
    return _each_r2(means, components).mean(-1)


def _explained(known: Predictions, resampled: Resampled) -> MetricValue:
    c = known.regression.components
    estimate, draws = _r2(resampled.estimate, c)[None], _r2(resampled.draws, c)[:, None]
    share = Resampled(estimate, draws, resampled.groups)
    val = float(_r2(known.columns("val").mean(0), c))
    return MetricValue("r2", "maximise", val, float(estimate), float(share.standard_error()))
