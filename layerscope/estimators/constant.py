"""The constant answer: what is said of every row without a look at any feature.

It is the contestant that every layer has to beat. Of numbers, and of labels that may apply
together, the answer is the mean of the training targets as they are encoded, which is what a linear
probe answers where λ leaves nothing of the features; of classes it is their shares among the
training rows, so that the predicted class is the most frequent one. Hence R² is about 0, nMSE about
1, top-1 the share of that class, the mean over c classes of their accuracy 1/c, the mean average
precision the mean over labels of their share, and the log-likelihood that of the shares.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from layerscope.errors import EstimatorError
from layerscope.estimators.classification import HELD_OUT, classify_rows, read_classes
from layerscope.estimators.regression import read_regression
from layerscope.types import METRICS, Constant, LayerView, Losses, Split, Task

CALIBRATION = frozenset({"ece", "mce"})
"""Metrics by which an answer that knows nothing is as good as one that knows all."""
RowValues = Mapping[str, Tensor]
"""(n,) values by metric, of which the metric is the mean."""


def constant_answer(view: LayerView, task: Task) -> Constant:
    """Return what the constant answer to a task is worth on validation and test rows.

    Args:
        view: Any cut of the cache: its targets are read, and no features.
        task: Of classes, labels or latents.

    Raises:
        EstimatorError: The targets are none that can be learnt, or the task's metric is not defined
            for a constant answer.
    """
    by_split = _of_classes(view, task) if task.kind == "classes" else _of_numbers(view, task)
    values = {name: float(rows.mean()) for name, rows in by_split["test"].items()}
    known = {
        name: value
        for name, value in values.items()
        if math.isfinite(value) and name not in CALIBRATION
    }
    if task.metric not in known:
        raise EstimatorError(
            f"By {task.metric!r}, the metric of {task.name!r}, no constant answer can be judged.",
            hint="Whether any layer reads the task has to be seen from another metric.",
        )
    val, test = (by_split[split][task.metric].double() for split in HELD_OUT)
    if METRICS[task.kind][task.metric] == "maximise":
        val, test = 1 - val, 1 - test
    return Constant(known, Losses(val.numpy(), test.numpy()))


def _of_classes(view: LayerView, task: Task) -> dict[Split, RowValues]:
    target = read_classes(view, task)
    counts = torch.bincount(target.places("train"), minlength=len(target.classes))
    shares = (counts.double() / counts.sum()).log()
    return {
        split: classify_rows(
            lambda rows: shares.expand(len(rows), -1),
            torch.empty(len(target.labels[split]), 0),
            target,
            split,
        ).columns()
        for split in HELD_OUT
    }


def _of_numbers(view: LayerView, task: Task) -> dict[Split, RowValues]:
    regression = read_regression(view, task)
    mean = regression.encoded["train"].mean(0)
    return {
        split: regression.row_measures(mean.expand(len(regression.encoded[split]), -1), split)
        for split in HELD_OUT
    }
