"""The non-linear probe: a perceptron of two hidden layers on one layer's features.

Bordes, Balestriero and Vincent (2023), "Towards Democratizing Joint-Embedding Self-Supervised
Learning", section 3.3, probe with "a two layers MLP of size 2048-2048-1000" on features without
augmentation, and find that it over-fits within a few epochs, so that early stopping is needed. The
widths are read as those of the layers' outputs, as in that paper's projectors: features, 2,048
units, 2,048 units, classes. The paper names no normalisation between the layers, so there is none.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, mse_loss

from layerscope.errors import EstimatorError
from layerscope.estimators import estimators
from layerscope.estimators.cell import Cell, require_metric
from layerscope.estimators.classification import (
    Judged,
    Target,
    classification_scores,
    judge_all,
    read_targets,
)
from layerscope.estimators.layer import Features, read_layer, standardised
from layerscope.estimators.predictions import Predictions, regression_scores
from layerscope.estimators.regression import Regression, read_regression
from layerscope.stats.perceptron import Perceptron, Recipe, Trained, Worth, train
from layerscope.stats.rows import BLOCK
from layerscope.types import Estimator, LayerView, Score, Split, Task

RECIPE = Recipe(hidden=(2048, 2048))


@estimators.register("mlp")
class Mlp(Estimator):
    """A perceptron of 2,048-2,048 hidden units, stopped early by the validation split.

    Classes are learned by cross-entropy and latents by the squared error of their standardised
    components, from standardised features, with AdamW. Training ends when the task's metric on the
    validation rows has not improved for ten epochs, ties by their negative log-likelihood; the best
    epoch is what is judged.

    Args:
        seed: Of the first weights and of the order of the rows.
        recipe: Widths, learning rate, epochs and patience.
    """

    name = "mlp"

    def __init__(self, seed: int = 0, recipe: Recipe = RECIPE) -> None:
        self._seed, self._recipe = seed, recipe

    def with_seed(self, seed: int) -> Mlp:
        """Return the same with another seed."""
        return Mlp(seed, self._recipe)

    def handles(self, task: Task) -> bool:
        return task.kind in ("classes", "latents")

    def score(self, view: LayerView, tasks: Sequence[Task]) -> Iterator[Score]:
        """Yield what ``logistic`` has of classes, and what ``ridge`` has of latents.

        Raises:
            EstimatorError: Features or targets on which no probe is defined, or training diverged.
        """
        of_classes = [task for task in tasks if task.kind == "classes"]
        targets = read_targets(view, of_classes, self.name)
        regressions = [read_regression(view, task) for task in tasks if task.kind == "latents"]
        layer = read_layer(view)
        features = standardised(layer)
        for target in targets:
            trained = self._classify(features, target)
            cell = Cell(view, layer, target.task, self.name, self._seed, self._settings(trained))
            val, test = (_judged(trained.best, features, target, it) for it in ("val", "test"))
            yield from classification_scores(cell, val, test)
        if regressions:
            known = [self._regress(features, regression) for regression in regressions]
            yield from regression_scores(view, layer, self.name, self._seed, known)

    def _classify(self, features: Features, target: Target) -> Trained:
        def worth(network: Perceptron) -> Worth:
            judged = _judged(network, features, target, "val")
            return judged.rank(target.task.metric) if judged.sound else (math.nan,)

        labels, classes = target.places("train"), len(target.classes)
        rows, recipe = features["train"], self._recipe
        trained = train(rows, labels, classes, cross_entropy, worth, recipe, self._seed)
        return _required(trained, target.task)

    def _regress(self, features: Features, regression: Regression) -> Predictions:
        task = regression.task
        mean, scale = regression.encoded["train"].mean(0), regression.variance.sqrt()

        def predict(network: Perceptron, split: Split) -> Tensor:
            return _outputs(network, features[split]).double() * scale + mean

        def worth(network: Perceptron) -> Worth:
            measures = regression.row_measures(predict(network, "val"), "val")
            require_metric(task, measures, self.name)
            return (float(measures[task.metric].mean()),)

        wanted = ((regression.encoded["train"] - mean) / scale).float()
        rows, width, recipe = features["train"], regression.components, self._recipe
        trained = _required(train(rows, wanted, width, mse_loss, worth, recipe, self._seed), task)
        splits: tuple[Split, ...] = ("val", "test")
        predicted = {split: predict(trained.best, split) for split in splits}
        return Predictions(regression, predicted, self._settings(trained))

    def _settings(self, trained: Trained) -> dict[str, Any]:
        recipe = self._recipe
        return {
            "hidden": list(recipe.hidden),
            "epochs": trained.epochs,
            "best_epoch": trained.at,
            "stopped_early": trained.epochs < recipe.epochs,
            "rate": recipe.rate,
            "decay": recipe.decay,
            "batch": recipe.batch,
        }


def _required(trained: Trained, task: Task) -> Trained:
    if not trained.at:
        raise EstimatorError(
            f"The perceptron for {task.name!r} diverged in its first {trained.epochs} epochs.",
            hint="Some features may be extreme; look at the layer, or use a linear probe.",
        )
    return trained


def _outputs(network: Perceptron, rows: Tensor) -> Tensor:
    return torch.cat([network(block) for block in torch.split(rows, BLOCK)])


def _judged(network: Perceptron, features: Features, target: Target, split: Split) -> Judged:
    blocks = torch.split(features[split], BLOCK)
    return judge_all((network(block)[:, None] for block in blocks), target, split)[0]
