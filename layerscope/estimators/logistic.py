"""The linear probe of classes: multinomial logistic regression on one layer's features."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from layerscope.errors import EstimatorError
from layerscope.estimators import estimators
from layerscope.estimators.cell import DRAWS, Cell, Measure, losses, require_metric
from layerscope.estimators.layer import read_layer, read_target
from layerscope.estimators.linear import LinearProbe
from layerscope.nouns import SPLITS, Direction, LayerView, Score, Split, Task
from layerscope.stats.bootstrap import resample
from layerscope.stats.moments import RunningMoments
from layerscope.stats.spectrum import Standardiser, standardiser

PENALTIES = (1.0, 1e-1, 1e-2, 1e-3, 1e-4)
"""λ of (1/n) Σ cross-entropy + (λ/2)‖W‖² on standardised features; scikit-learn's C is 1/(λ n)."""
PATIENCE = 2
"""Fits in a row that may be worse than the best before the path ends: the weakest λ are slowest."""
ITERATIONS = 200
TOLERANCE = 1e-3
FLOOR = 1e-12
"""Least probability: what a class that training lacks is given."""

Labels = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Fit:
    """A probe at one λ, and how it does."""

    probe: LinearProbe
    wrong: dict[Split, Tensor]
    """(n,) 0 for right and 1 for wrong, for val and test."""
    surprise: dict[Split, Tensor]
    """(n,) negative log-probabilities of the true classes in nats."""
    stopped: bool
    """Whether the solver ran out of iterations."""

    def rank(self) -> tuple[float, float]:
        """Order fits by validation top-1, and equal ones by validation log-likelihood."""
        return float(self.wrong["val"].mean()), float(self.surprise["val"].mean())


@estimators.register("logistic")
class Logistic:
    """Multinomial logistic regression with an L2 penalty chosen on the validation split.

    The grid of λ runs from strong to weak, each fit starting from the one before, and ends early
    when two fits in a row were worse on validation than the best. λ is chosen by
    validation top-1, ties by the negative log-likelihood; ``test`` comes from disjoint rows.

    Args:
        seed: Of the resamples behind the standard errors; the fit itself is deterministic.
    """

    name = "logistic"

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed

    def handles(self, task: Task) -> bool:
        return task.kind == "classes"

    def score(self, view: LayerView, tasks: Sequence[Task]) -> Iterator[Score]:
        """Yield top-1, nll and mean-per-class for each task.

        Raises:
            EstimatorError: Features or targets on which no classifier is defined.
        """
        layer = read_layer(view)
        rule = _rule(layer.features["train"])
        rows = {split: rule(part).numpy() for split, part in layer.features.items()}
        for task in tasks:
            require_metric(task, ("top-1", "nll"), self.name)
            labels = {split: _labels(view, task, split) for split in SPLITS}
            path = _fit_path(rule, rows, labels, task)
            best = min(path, key=_Fit.rank)
            cell = Cell(
                view, layer, task, self.name, self._seed, _settings(path, best), _note(path, best)
            )
            yield from _scores(cell, best, labels)


def fit_probe(view: LayerView, task: Task) -> LinearProbe:
    """Return the probe of one task at one cut, its λ chosen on the validation split.

    Args:
        view: The cut, with its splits.
        task: Of classes.

    Raises:
        EstimatorError: Features or targets on which no classifier is defined.
    """
    layer = read_layer(view)
    rule = _rule(layer.features["train"])
    rows = {split: rule(part).numpy() for split, part in layer.features.items()}
    labels = {split: _labels(view, task, split) for split in SPLITS}
    return min(_fit_path(rule, rows, labels, task), key=_Fit.rank).probe


def _rule(rows: Tensor) -> Standardiser:
    running = RunningMoments(rows.shape[1])
    running.update(rows)
    return standardiser(running.compute())


def _labels(view: LayerView, task: Task, split: Split) -> Labels:
    target = read_target(view, task.name, split)
    if target.ndim != 1 or not np.issubdtype(target.dtype, np.integer):
        raise EstimatorError(
            f"The {split} classes of {task.name!r} are {target.dtype} of shape {target.shape}.",
            hint="Give one whole number for each image.",
        )
    if split == "train" and len(np.unique(target)) < 2:
        raise EstimatorError(
            f"The training rows of {task.name!r} hold a single class.",
            hint="Give at least two classes; check how the splits were made.",
        )
    return target.astype(np.int64)


def _fit_path(
    rule: Standardiser,
    rows: dict[Split, npt.NDArray[np.float64]],
    labels: dict[Split, Labels],
    task: Task,
) -> list[_Fit]:
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(max_iter=ITERATIONS, tol=TOLERANCE, warm_start=True)
    path = []
    for penalty in PENALTIES:
        model.set_params(C=1 / (penalty * len(labels["train"])))
        stopped = _train(model, rows["train"], labels["train"], task)
        parts = {split: _judge(model, rows[split], labels[split]) for split in SPLITS[1:]}
        wrong = {split: part[0] for split, part in parts.items()}
        surprise = {split: part[1] for split, part in parts.items()}
        path.append(_Fit(_probe(model, rule, penalty), wrong, surprise, stopped))
        if _is_past_its_best(path):
            break
    return path


def _probe(model: Any, rule: Standardiser, penalty: float) -> LinearProbe:
    weights, intercept = model.coef_, model.intercept_
    if len(weights) == 1:  # of two classes scikit-learn keeps the second's
        weights = np.concatenate((np.zeros_like(weights), weights))
        intercept = np.concatenate((np.zeros_like(intercept), intercept))
    return LinearProbe(
        rule,
        torch.tensor(weights.T, dtype=torch.float64),
        torch.tensor(intercept, dtype=torch.float64),
        model.classes_.astype(np.int64),
        penalty,
    )


def _is_past_its_best(path: Sequence[_Fit]) -> bool:
    """Return whether the last fits were all worse than an earlier one: weaker λ only over-fit."""
    best = min(range(len(path)), key=lambda i: path[i].rank())
    return len(path) - 1 - best >= PATIENCE


def _train(model: Any, rows: npt.NDArray[np.float64], labels: Labels, task: Task) -> bool:
    """Fit, and return whether the solver stopped before it converged."""
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", ConvergenceWarning)
        model.fit(rows, labels)
    if not np.isfinite(model.coef_).all():
        raise EstimatorError(
            f"The logistic regression of {task.name!r} diverged.",
            hint="Look for features of enormous range in this cut.",
        )
    return bool(caught)


def _judge(model: Any, rows: npt.NDArray[np.float64], labels: Labels) -> tuple[Tensor, Tensor]:
    probability = model.predict_proba(rows)
    place = np.searchsorted(model.classes_, labels).clip(max=len(model.classes_) - 1)
    known = model.classes_[place] == labels
    of_truth = np.where(known, probability[np.arange(len(labels)), place], 0.0)
    wrong = model.classes_[probability.argmax(1)] != labels
    return torch.tensor(wrong).double(), -torch.tensor(of_truth).clamp(min=FLOOR).log()


def _settings(path: list[_Fit], best: _Fit) -> dict[str, Any]:
    ends = {PENALTIES[0]: "high", PENALTIES[-1]: "low"}
    return {
        "lambda": best.probe.penalty,
        "lambda_low": path[-1].probe.penalty,
        "lambda_high": max(PENALTIES),
        "edge": ends.get(best.probe.penalty, "none"),
        "unconverged": [fit.probe.penalty for fit in path if fit.stopped],
    }


def _note(path: list[_Fit], best: _Fit) -> str:
    if not best.stopped:
        return ""
    penalty = best.probe.penalty
    return f"The solver stopped at {ITERATIONS} iterations for the chosen λ = {penalty:g}."


def _scores(cell: Cell, fit: _Fit, labels: dict[Split, Labels]) -> Iterator[Score]:
    val = _columns(fit, labels, "val").mean(0)
    columns = _columns(fit, labels, "test")
    spread = resample(columns, cell.layer.groups, resamples=DRAWS, seed=cell.seed).standard_error()
    chosen = fit.surprise if cell.task.metric == "nll" else fit.wrong
    rowwise = losses(chosen["val"], chosen["test"])
    metrics: tuple[tuple[str, Direction], ...] = (
        ("top-1", "maximise"),
        ("mean-per-class", "maximise"),
        ("nll", "minimise"),
    )
    test = columns.mean(0)
    for i, (metric, direction) in enumerate(metrics):
        values = float(val[i]), float(test[i]), float(spread[i])
        yield cell.score(Measure(metric, direction, *values), rowwise)


def _columns(fit: _Fit, labels: dict[Split, Labels], split: Split) -> Tensor:
    right = 1 - fit.wrong[split]
    balanced = _balanced(right, torch.tensor(labels[split]))
    return torch.stack((right, balanced, fit.surprise[split]), 1)


def _balanced(right: Tensor, labels: Tensor) -> Tensor:
    """Return (n,) values whose mean is the mean over the split's classes of their accuracy.

    Each is the mean itself plus the row's first-order influence on it, so that their standard
    error is that of the ratio and not of a sum with fixed class sizes.
    """
    _, place, count = torch.unique(labels, return_inverse=True, return_counts=True)
    accuracy = torch.zeros(len(count), dtype=torch.float64).index_add_(0, place, right) / count
    weight = len(labels) / (len(count) * count[place])
    balanced: Tensor = accuracy.mean() + (right - accuracy[place]) * weight
    return balanced
