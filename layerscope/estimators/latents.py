"""The ridge probe of latent variables: all of a layer's tasks from one eigendecomposition."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from layerscope.estimators import estimators
from layerscope.estimators.classification import HELD_OUT
from layerscope.estimators.layer import LoadedLayer, read_layer
from layerscope.estimators.predictions import Predictions, regression_scores
from layerscope.estimators.regression import Regression, read_regression
from layerscope.stats.moments import BLOCK, RunningCrossMoments
from layerscope.stats.ridge import Choice, RidgePath, choose_penalty, ridge_path
from layerscope.types import Estimator, LayerView, Score, Task


@estimators.register("ridge")
class Ridge(Estimator):
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

        Of labels the last is joined by their mean average precision.

        Raises:
            EstimatorError: Features or targets on which no regression is defined.
        """
        layer = read_layer(view)
        regressions = [read_regression(view, task) for task in tasks]
        targets = torch.cat([item.encoded["train"] for item in regressions], 1)
        path = ridge_on_training_rows(layer, torch.split(targets, BLOCK))
        known, start = [], 0
        for item in regressions:
            known.append(_fit_one(layer, item, path.only(slice(start, start + item.components))))
            start += item.components
        yield from regression_scores(view, layer, self.name, self._seed, known)


def ridge_on_training_rows(layer: LoadedLayer, targets: Iterable[Tensor]) -> RidgePath:
    """Solve for blocks of targets, in float64: least squares divides by small eigenvalues."""
    running: RunningCrossMoments | None = None
    for block, wanted in zip(layer.blocks("train"), targets, strict=True):
        running = running or RunningCrossMoments(layer.width, wanted.shape[1])
        running.update(block.double(), wanted)
    assert running is not None, "a layer without training rows is refused when it is read"
    return ridge_path(running.compute())


def ridge_settings(path: RidgePath, choice: Choice) -> dict[str, Any]:
    """Return what the table says of a λ that was chosen."""
    return {
        "lambda": choice.penalty,
        "lambda_low": choice.low,
        "lambda_high": choice.high,
        "edge": choice.edge,
        "rank": path.spectrum.rank,
    }


def _fit_one(layer: LoadedLayer, regression: Regression, path: RidgePath) -> Predictions:
    rows, targets = layer.rows("val"), regression.encoded["val"]
    choice = choose_penalty(lambda penalties: path.errors(rows, targets, penalties).mean(1))
    chosen = torch.tensor([choice.penalty], dtype=torch.float64)
    predicted = {split: path.predict(layer.rows(split), chosen)[0] for split in HELD_OUT}
    return Predictions(regression, predicted, ridge_settings(path, choice))
