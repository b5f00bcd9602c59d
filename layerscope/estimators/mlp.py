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
from layerscope.estimators.cell import require_metric
from layerscope.estimators.classification import (
    HELD_OUT,
    FittedClassifier,
    Target,
    classify_rows,
    read_targets,
)
from layerscope.estimators.layer import Features, read_layer, standardised
from layerscope.estimators.predictions import Predictions, regression_scores
from layerscope.estimators.regression import Regression, read_regression
from layerscope.stats.perceptron import (
    Perceptron,
    PerceptronTraining,
    TrainedPerceptron,
    ValidationLoss,
    train,
)
from layerscope.stats.rows import BLOCK
from layerscope.types import Estimator, LayerView, Score, Split, Task

TRAINING = PerceptronTraining(hidden=(2048, 2048))


@estimators.register("mlp")
class Mlp(Estimator):
    """A perceptron of 2,048-2,048 hidden units, stopped early by the validation split.

    Classes are learned by cross-entropy and latents by the squared error of their standardised
    components, from standardised features, with AdamW. Training ends when the task's metric on the
    validation rows has not improved for ten epochs, ties by their negative log-likelihood; the best
    epoch is what is judged.

    Args:
        seed: Of the first weights and of the order of the rows.
        training: Widths, learning rate, epochs and patience.
    """

    name = "mlp"
    refits = "none"

    def __init__(self, seed: int = 0, training: PerceptronTraining = TRAINING) -> None:
        self._seed, self._training = seed, training

    def with_seed(self, seed: int) -> Mlp:
        """Return the same with another seed."""
        return Mlp(seed, self._training)

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
            val, test = (classify_rows(trained.best, features[it], target, it) for it in HELD_OUT)
            fitted = FittedClassifier(layer, target, val, test, self._settings(trained))
            yield from fitted.scores(view, self.name, self._seed)
        if regressions:
            known = [self._regress(features, regression) for regression in regressions]
            yield from regression_scores(view, layer, self.name, self._seed, known)

    def _classify(self, features: Features, target: Target) -> TrainedPerceptron:
        def validate(network: Perceptron) -> ValidationLoss:
            val = classify_rows(network, features["val"], target, "val")
            return val.rank(target.task.metric) if val.sound else (math.nan,)

        labels, classes = target.places("train"), len(target.classes)
        rows, training = features["train"], self._training
        trained = train(rows, labels, classes, cross_entropy, validate, training, self._seed)
        _require_convergence(trained, target.task)
        return trained

    def _regress(self, features: Features, regression: Regression) -> Predictions:
        task = regression.task
        mean, scale = regression.encoded["train"].mean(0), regression.variance.sqrt()

        def predict(network: Perceptron, split: Split) -> Tensor:
            outputs = [network(block) for block in torch.split(features[split], BLOCK)]
            return torch.cat(outputs).double() * scale + mean

        def validate(network: Perceptron) -> ValidationLoss:
            measures = regression.row_measures(predict(network, "val"), "val")
            require_metric(task, measures, self.name)
            return (float(measures[task.metric].mean()),)

        wanted = ((regression.encoded["train"] - mean) / scale).float()
        rows, width, training = features["train"], regression.components, self._training
        trained = train(rows, wanted, width, mse_loss, validate, training, self._seed)
        _require_convergence(trained, task)
        predicted = {split: predict(trained.best, split) for split in HELD_OUT}
        return Predictions(regression, predicted, self._settings(trained))

    def _settings(self, trained: TrainedPerceptron) -> dict[str, Any]:
        training = self._training
        return {
            "hidden": list(training.hidden),
            "epochs": trained.epochs,
            "best_epoch": trained.at,
            "stopped_early": trained.epochs < training.epochs,
            "rate": training.rate,
            "decay": training.decay,
            "batch": training.batch,
        }


def _require_convergence(trained: TrainedPerceptron, task: Task) -> None:
    if not trained.at:
        raise EstimatorError(
            f"The perceptron for {task.name!r} diverged in its first {trained.epochs} epochs.",
            hint="Some features may be extreme; look at the layer, or use a linear probe.",
        )
