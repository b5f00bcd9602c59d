"""The ridge probe of latent variables: all of a layer's tasks from one eigendecomposition."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from layerscope.estimators import estimators
from layerscope.estimators.cell import DRAWS, Cell, Measure, losses, require_metric
from layerscope.estimators.layer import Layer, read_layer
from layerscope.estimators.regression import Regression, read_regression
from layerscope.nouns import LayerView, Score, Split, Task
from layerscope.stats.bootstrap import Resampled, resample
from layerscope.stats.moments import BLOCK, RunningCrossMoments
from layerscope.stats.ridge import Choice, RidgePath, choose_penalty, ridge_path


@dataclass(frozen=True, slots=True)
class _Fit:
    """One task's regression at its chosen λ."""

    regression: Regression
    choice: Choice
    rank: int
    predicted: dict[Split, Tensor]
    """(n, c) by split, val and test."""

    def measures(self, split: Split) -> dict[str, Tensor]:
        return self.regression.row_measures(self.predicted[split], split)

    def settings(self) -> dict[str, Any]:
        return {
            "lambda": self.choice.penalty,
            "lambda_low": self.choice.low,
            "lambda_high": self.choice.high,
            "edge": self.choice.edge,
            "rank": self.rank,
            "encoding": self.regression.task.encoding or "raw",
            "components": self.regression.components,
        }


@estimators.register("ridge")
class Ridge:
    """Linear regression of latent variables with an L2 penalty chosen on the validation split.

    Labels of which any number may apply are regressed as zeros and ones. Features are standardised
    and targets centred by their training statistics; λ minimises the mean squared error over the
    encoded components on the validation rows, which are not trained on; everything reported as
    ``test`` comes from the disjoint test rows.

    Args:
        seed: Of the resamples behind the standard errors.
    """

    name = "ridge"

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed

    def handles(self, task: Task) -> bool:
        return task.kind in ("latents", "multilabel")

    def score(self, view: LayerView, tasks: Sequence[Task]) -> Iterator[Score]:
        """Yield mse, nmse, r2 and the error in the latent's own unit, for each task.

        Raises:
            EstimatorError: Features or targets on which no regression is defined.
        """
        layer = read_layer(view)
        fits = _fit(layer, [read_regression(view, task) for task in tasks])
        columns = [_columns(fit, "test") for fit in fits]
        resampled = resample(torch.cat(columns, 1), layer.groups, resamples=DRAWS, seed=self._seed)
        start = 0
        for fit, width in zip(fits, (part.shape[1] for part in columns), strict=True):
            part = _select(resampled, slice(start, start + width))
            cell = Cell(view, layer, fit.regression.task, self.name, self._seed, fit.settings())
            yield from _scores(cell, fit, part)
            start += width


def _fit(layer: Layer, regressions: Sequence[Regression]) -> list[_Fit]:
    path = _path(layer, torch.cat([item.encoded["train"] for item in regressions], 1))
    fits, start = [], 0
    for item in regressions:
        fits.append(_fit_one(layer, item, path.only(slice(start, start + item.components))))
        start += item.components
    return fits


def _path(layer: Layer, targets: Tensor) -> RidgePath:
    """Solve on the training rows, in float64: least squares divides by small eigenvalues."""
    rows = layer.features["train"]
    running = RunningCrossMoments(rows.shape[1], targets.shape[1])
    for block, answers in zip(torch.split(rows, BLOCK), torch.split(targets, BLOCK), strict=True):
        running.update(block.double(), answers)
    return ridge_path(running.compute())


def _fit_one(layer: Layer, regression: Regression, path: RidgePath) -> _Fit:
    rows, targets = layer.features["val"], regression.encoded["val"]
    choice = choose_penalty(lambda penalties: path.errors(rows, targets, penalties).mean(1))
    chosen = torch.tensor([choice.penalty], dtype=torch.float64)
    splits: tuple[Split, ...] = ("val", "test")
    predicted = {split: path.predict(layer.features[split], chosen)[0] for split in splits}
    return _Fit(regression, choice, path.spectrum.rank, predicted)


def _columns(fit: _Fit, split: Split) -> Tensor:
    """Return (n, m + 3c) values whose means give every metric: m row-wise ones, then R²'s parts."""
    target = fit.regression.encoded[split]
    centred = target - target.mean(0)
    squared = (fit.predicted[split] - target).square()
    rowwise = torch.stack(list(fit.measures(split).values()), 1)
    return torch.cat((rowwise, squared, centred, centred.square()), 1)


def _r2(means: Tensor, components: int) -> Tensor:
    """Return (...) R², of each component about its own mean in the rows, averaged uniformly.

    One mean for all components would credit a predictor for knowing that they differ.
    """
    error, first, second = torch.split(means[..., -3 * components :], components, dim=-1)
    explained: Tensor = 1 - error / (second - first.square())
    return explained.mean(-1)


def _scores(cell: Cell, fit: _Fit, resampled: Resampled) -> Iterator[Score]:
    val, test = fit.measures("val"), fit.measures("test")
    require_metric(cell.task, val, cell.estimator)
    rowwise = losses(val[cell.task.metric], test[cell.task.metric])
    errors = resampled.standard_error()
    for position, metric in enumerate(val):
        estimate, stderr = float(resampled.estimate[position]), float(errors[position])
        mean = float(val[metric].mean())
        yield cell.score(Measure(metric, "minimise", mean, estimate, stderr), rowwise)
    yield cell.score(_explained(fit, resampled), rowwise)


def _explained(fit: _Fit, resampled: Resampled) -> Measure:
    c = fit.regression.components
    share = Resampled(
        _r2(resampled.estimate, c)[None], _r2(resampled.draws, c)[:, None], resampled.groups
    )
    val = float(_r2(_columns(fit, "val").mean(0), c))
    stderr = float(share.standard_error()[0])
    return Measure("r2", "maximise", val, float(share.estimate[0]), stderr)


def _select(resampled: Resampled, part: slice) -> Resampled:
    return Resampled(resampled.estimate[part], resampled.draws[:, part], resampled.groups)
