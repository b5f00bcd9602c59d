"""The ridge probe of latent variables: all of a layer's tasks from one eigendecomposition."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from layerscope.estimators import estimators
from layerscope.estimators.cell import require_metric
from layerscope.estimators.classification import HELD_OUT
from layerscope.estimators.layer import LoadedLayer, read_layer
from layerscope.estimators.predictions import Predictions, regression_scores
from layerscope.estimators.refits import (
    Refits,
    ridge_refits,
    share_left_out,
    training_blocks,
    validation_weights,
)
from layerscope.estimators.regression import RANKED, Regression, read_regression
from layerscope.stats.moments import BLOCK, RunningCrossMoments
from layerscope.stats.ridge import (
    Choice,
    RidgePath,
    choose_penalties,
    grid,
    ridge_path,
    strongest_of_least,
)
from layerscope.types import Estimator, LayerView, Replicates, Score, Task

PREDICTED = 1 << 22
"""Predictions under several λ that are judged at a time."""


@estimators.register("ridge")
class Ridge(Estimator):
    """Linear regression of latent variables with L2 penalties chosen on the validation split.

    Labels of which any number may apply are regressed as zeros and ones. Features are standardised
    and targets centred by their training statistics. Every latent and every label has a λ of its
    own, by the task's metric of it alone on the validation rows, which are not trained on: a
    rotation is one latent, and so are sine and cosine of one angle. Of λ that order the rows of a
    label equally well the squared error decides, and of equals the strongest is taken. Everything
    reported as ``test`` comes from the disjoint test rows.

    Args:
        seed: Of the resamples behind the standard errors.
    """

    name = "ridge"
    refits = "own"

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed

    def handles(self, task: Task) -> bool:
        return task.kind in ("latents", "multilabel")

    def score(self, view: LayerView, tasks: Sequence[Task]) -> Iterator[Score]:
        """Yield mse, nmse, r2 and the error in the latent's own unit, for each task.

        Of labels the last is joined by their mean average precision and the mean area under their
        ROC curves.

        Raises:
            EstimatorError: Features or targets on which no regression is defined, or a metric that
                is none of single latents.
        """
        layer = read_layer(view)
        regressions = [read_regression(view, task) for task in tasks]
        for item in regressions:
            require_metric(item.task, item.metrics, self.name)
        targets = torch.cat([item.encoded["train"] for item in regressions], 1)
        path = ridge_on_training_rows(layer, torch.split(targets, BLOCK))
        known, start = [], 0
        for item in regressions:
            own = path.only(slice(start, start + item.components))
            fitted = _fit_one(layer, item, own)
            known.append(replace(fitted, replicates=_refitted(view, layer, fitted, own)))
            start += item.components
        yield from regression_scores(view, layer, self.name, self._seed, known)


def _refitted(
    view: LayerView, layer: LoadedLayer, fitted: Predictions, path: RidgePath
) -> tuple[Replicates, ...]:
    """Return the losses of fits to fewer training rows, and at λ that other rows would choose."""
    blocks, regression = training_blocks(view), fitted.regression
    if blocks is None:
        return ()
    # Precision depends on order alone, which a small change leaves as it is.
    share = share_left_out(view, path) if regression.task.kind == "latents" else 1.0
    penalties, rule = _penalties(fitted), path.spectrum.standardiser
    targets = regression.encoded["train"]
    # Losses at once, because the predictions of all refits together may fill the memory.
    without = [
        regression.losses(
            torch.cat([rule(block) @ weights + intercept for block in layer.blocks("test")]), "test"
        )
        for weights, intercept in ridge_refits(layer, blocks, path, targets, penalties, share)
    ]
    others = _other_choices(layer.rows("val"), fitted, path, validation_weights(view))
    rows, each = layer.rows("test"), others.repeat_interleave(regression.each, 1)
    chosen = [regression.losses(path.predict_each(rows, it), "test") for it in each]
    return Refits(without, chosen, share).replicates()


def _penalties(fitted: Predictions) -> Tensor:
    """Return (c,) λ of each encoded component."""
    each = torch.tensor(fitted.settings["lambda"], dtype=torch.float64).reshape(-1)
    return each.repeat_interleave(fitted.regression.each)


def _other_choices(rows: Tensor, fitted: Predictions, path: RidgePath, weights: Tensor) -> Tensor:
    """Return (m, g) λ that samples of the validation rows choose, on each latent's own grid."""
    regression = fitted.regression
    low, high = (
        torch.tensor(fitted.settings[end], dtype=torch.float64).reshape(-1)
        for end in ("lambda_low", "lambda_high")
    )
    tried = grid(float(low.min()), float(high.max()))
    together = max(1, PREDICTED // (len(rows) * regression.components))
    errors = torch.cat([
        torch.einsum(
            "mn,png->mpg",
            weights,
            regression.losses_by_latent(path.predict(rows, some), "val").nan_to_num(0.0),
        )
        for some in torch.split(tried, together)
    ], 1)  # fmt: skip
    outside = (tried[:, None] < low * 0.99) | (tried[:, None] > high * 1.01)
    best = strongest_of_least(errors.masked_fill(outside, torch.inf), 1)
    return tried[best]


def ridge_on_training_rows(layer: LoadedLayer, targets: Iterable[Tensor]) -> RidgePath:
    """Solve for blocks of targets, in float64: least squares divides by small eigenvalues."""
    running: RunningCrossMoments | None = None
    for block, wanted in zip(layer.blocks("train"), targets, strict=True):
        running = running or RunningCrossMoments(layer.width, wanted.shape[1])
        running.update(block.double(), wanted)
    assert running is not None, "a layer without training rows is refused when it is read"
    return ridge_path(running.compute())


def ridge_settings(path: RidgePath, *choices: Choice) -> dict[str, Any]:
    """Return what the table says of a λ that was chosen, or lists of several in their order."""
    columns: dict[str, list[Any]] = {
        "lambda": [it.penalty for it in choices],
        "lambda_low": [it.low for it in choices],
        "lambda_high": [it.high for it in choices],
        "edge": [it.edge for it in choices],
    }
    several = len(choices) > 1
    known = {name: values if several else values[0] for name, values in columns.items()}
    return {**known, "rank": path.spectrum.rank}


def _fit_one(layer: LoadedLayer, regression: Regression, path: RidgePath) -> Predictions:
    choices = choose_penalties(lambda penalties: _val_errors(layer, regression, path, penalties))
    each = torch.tensor([it.penalty for it in choices], dtype=torch.float64)
    chosen = each.repeat_interleave(regression.each)
    predicted = {split: path.predict_each(layer.rows(split), chosen) for split in HELD_OUT}
    return Predictions(regression, predicted, ridge_settings(path, *choices))


def _val_errors(
    layer: LoadedLayer, regression: Regression, path: RidgePath, penalties: Tensor
) -> list[Tensor]:
    """Return (p, g) errors of each latent by the task's metric, and of labels squared ones.

    A label whose order the validation rows do not tell has only squared errors that differ.
    """
    rows, metric = layer.rows("val"), regression.task.metric
    squares = path.errors(rows, regression.encoded["val"], penalties)
    if regression.task.encoding != "quaternion" and metric in ("mse", "nmse"):
        weighed = squares / regression.variance if metric == "nmse" else squares
        return [regression.over_components(weighed)]
    together = max(1, PREDICTED // (len(rows) * regression.components))
    errors = torch.cat([
        regression.losses_by_latent(path.predict(rows, some), "val").mean(1)
        for some in torch.split(penalties, together)
    ])  # fmt: skip
    return [errors.nan_to_num(0.0), squares] if metric in RANKED else [errors]
