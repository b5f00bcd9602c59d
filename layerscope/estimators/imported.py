"""Anyone's own estimator by its import path: what scikit-learn's contract is enough for."""

from __future__ import annotations

import importlib
import inspect
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from layerscope.errors import EstimatorError, SettingsError
from layerscope.estimators.classification import (
    HELD_OUT,
    ClassifiedRows,
    FittedClassifier,
    OutputKind,
    Target,
    classify,
    read_classes,
    require_classes,
)
from layerscope.estimators.layer import Features, LoadedLayer, read_layer, standardised
from layerscope.estimators.predictions import Predictions, regression_scores
from layerscope.estimators.regression import Regression, read_regression
from layerscope.types import Estimator, LayerView, Score, Split, Task

WARNINGS = 3
"""Different warnings that a note repeats."""

Array = npt.NDArray[Any]


class Imported(Estimator):
    """An estimator of scikit-learn's kind, fitted on standardised training features.

    A classifier is asked for probabilities where it has any, else for decision values, which rank
    the classes, and else for its predictions alone; its predictions decide what is right in every
    case. A regressor is fitted once for each component of a task's targets. A class that says to be
    neither is tried on either. Whatever it raises fails the cell, and what it warns
    of is in the note. Nothing is chosen on the validation rows.

    Args:
        name: In the table.
        kind: The class.
        arguments: Its keyword arguments.
        seed: Its ``random_state``, where it has one that is not among the arguments.

    Raises:
        SettingsError: The class cannot be made with these arguments, or has no fit and predict.
    """

    refits = "none"

    def __init__(self, name: str, kind: type, arguments: Mapping[str, Any], seed: int) -> None:
        self.name, self._seed, self._kind = name, seed, kind
        self._given = arguments
        self._arguments = _with_seed(kind, arguments, seed)
        try:
            model = self._new_model()
        except Exception as error:  # whatever the class raises, its arguments are the user's
            raise SettingsError(
                f"{name} cannot be made: {type(error).__name__}: {error}",
                hint="Look at the arguments that the class takes.",
            ) from error
        missing = [it for it in ("fit", "predict") if not callable(getattr(model, it, None))]
        if missing:
            raise SettingsError(
                f"{name} has no {' and no '.join(missing)}, and so is no estimator.",
                hint="Name a class with scikit-learn's fit and predict.",
            )
        self._type = _model_type(model)
        if self._type not in (None, "classifier", "regressor"):
            raise SettingsError(
                f"{name} is a {self._type}, which predicts no target.",
                hint="Name a classifier or a regressor.",
            )

    def with_seed(self, seed: int) -> Imported:
        """Return the same with another seed; of a class without one this one itself."""
        if "random_state" not in self._arguments or "random_state" in self._given:
            return self
        return Imported(self.name, self._kind, self._given, seed)

    def handles(self, task: Task) -> bool:
        if task.kind == "classes":
            return self._type != "regressor"
        return task.kind in ("latents", "multilabel") and self._type != "classifier"

    def score(self, view: LayerView, tasks: Sequence[Task]) -> Iterator[Score]:
        """Yield what a classifier has of classes, and what ``ridge`` has of latents and labels.

        Raises:
            EstimatorError: Features or targets on which nothing is defined, or the class raised.
        """
        targets = [read_classes(view, task) for task in tasks if task.kind == "classes"]
        regressions = [read_regression(view, task) for task in tasks if task.kind != "classes"]
        layer = read_layer(view)
        features = standardised(layer)
        for target in targets:
            yield from self._classify(view, layer, features, target)
        if regressions:
            known = [self._regress(features, regression) for regression in regressions]
            yield from regression_scores(view, layer, self.name, self._seed, known)

    def _classify(
        self, view: LayerView, layer: LoadedLayer, features: Features, target: Target
    ) -> Iterator[Score]:
        with _as_estimator_errors(self.name) as warned:
            model = self._new_model()
            model.fit(features["train"].numpy(), target.labels["train"])
            outputs = {it: _predict(model, features[it].numpy(), target) for it in HELD_OUT}
        kind = outputs["test"].kind
        require_classes(target, self.name, kind)
        val, test = (outputs[it].classified(target, it) for it in HELD_OUT)
        settings = {**self._settings(), "answers": kind}
        fitted = FittedClassifier(layer, target, val, test, settings, _note(warned))
        yield from fitted.scores(view, self.name, self._seed)

    def _regress(self, features: Features, regression: Regression) -> Predictions:
        columns: dict[Split, list[Array]] = {split: [] for split in HELD_OUT}
        with _as_estimator_errors(self.name) as warned:
            for component in regression.encoded["train"].numpy().T:
                model = self._new_model()
                model.fit(features["train"].numpy(), component)
                for split, known in columns.items():
                    rows = features[split].numpy()
                    known.append(_column(model.predict(rows), len(rows)))
        predicted = {split: torch.from_numpy(np.stack(it, 1)) for split, it in columns.items()}
        return Predictions(regression, predicted, self._settings(), _note(warned))

    def _new_model(self) -> Any:
        return self._kind(**self._arguments)

    def _settings(self) -> dict[str, Any]:
        return {"arguments": {key: repr(value) for key, value in self._arguments.items()}}


def import_class(path: str) -> type:
    """Return the class of an import path.

    Args:
        path: ``package.module.Class``.

    Raises:
        SettingsError: There is no such module or class, or importing it fails.
    """
    module, _, name = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except Exception as error:  # whatever importing the user's module raises
        raise SettingsError(
            f"The estimator {path!r} cannot be imported: {type(error).__name__}: {error}",
            hint="Give the import path of a class, as in sklearn.svm.LinearSVC.",
        ) from error
    if not inspect.isclass(found):
        raise SettingsError(
            f"{path!r} is a {type(found).__name__} and no class.",
            hint="Give the import path of a class, as in sklearn.svm.LinearSVC.",
        )
    return found


@dataclass(frozen=True, slots=True)
class _Output:
    """What a classifier gives of some rows."""

    kind: OutputKind
    predicted: Array
    """(n,) labels."""
    scores: Array | None = None
    """(n, c) probabilities or decision values, where there are any."""

    def classified(self, target: Target, split: Split) -> ClassifiedRows:
        """Return what follows for the metrics."""
        predicted = self.predicted.astype(np.int64)
        if self.scores is None:
            return ClassifiedRows(target.labels[split], predicted)
        scores = torch.from_numpy(self.scores)
        if self.kind == "scores":
            return replace(classify(scores, target, split, "scores"), predicted=predicted)
        # Of the class that is predicted, which need not be the likeliest, as in SVC.
        place = torch.from_numpy(np.searchsorted(target.classes, predicted))
        likeliest = classify(scores.log(), target, split)
        confidence = scores.gather(1, place[:, None])[:, 0]
        return replace(likeliest, predicted=predicted, confidence=confidence)


def _predict(model: Any, rows: Array, target: Target) -> _Output:
    predicted = np.asarray(model.predict(rows))
    if predicted.shape != (len(rows),) or not np.isin(predicted, target.classes).all():
        raise ValueError(
            f"predict gives {predicted.dtype} of shape {predicted.shape}, and not one of the "
            f"{len(target.classes)} classes for each of {len(rows)} rows"
        )
    kinds: tuple[tuple[str, OutputKind], ...] = (
        ("predict_proba", "probabilities"),
        ("decision_function", "scores"),
    )
    # Decisions between pairs of classes rank none of them, and of three classes there are three.
    pairs = getattr(model, "decision_function_shape", "") == "ovo" and len(target.classes) > 2
    for method, kind in kinds:
        if hasattr(model, method) and not (pairs and kind == "scores"):
            scores = np.asarray(getattr(model, method)(rows), dtype=np.float64)
            if scores.ndim == 1:  # of two classes: that of the second over the first
                scores = np.stack((-scores, scores), 1)
            if scores.shape == (len(rows), len(target.classes)):
                return _Output(kind, predicted, scores)
    return _Output("labels", predicted)


def _column(predicted: object, rows: int) -> Array:
    column = np.asarray(predicted, dtype=np.float64)
    if column.size != rows:
        raise ValueError(f"predict gives shape {column.shape} for {rows} rows")
    return column.reshape(rows)


def _with_seed(kind: type, arguments: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Return the arguments and the seed, where the class takes one that is not given."""
    try:
        takes = "random_state" in inspect.signature(kind).parameters
    except (TypeError, ValueError):
        takes = False  # a class written in C that tells nothing of itself
    return {"random_state": seed, **arguments} if takes else dict(arguments)


def _model_type(model: Any) -> str | None:
    """Return what scikit-learn's tags call a model: classifier, regressor, clusterer, or nothing.

    scikit-learn 1.5 had an attribute in their place.
    """
    tags = getattr(model, "__sklearn_tags__", None)
    found = tags().estimator_type if tags else getattr(model, "_estimator_type", None)
    return None if found is None else str(found)


@contextmanager
def _as_estimator_errors(name: str) -> Iterator[list[warnings.WarningMessage]]:
    """Turn whatever someone's own code raises into an EstimatorError, and keep its warnings."""
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            yield warned
        except Exception as error:
            raise EstimatorError(
                f"{name} raised {type(error).__name__}: {_first_line(str(error))}",
                hint="Its other cells are not affected.",
            ) from error


def _note(warned: Sequence[warnings.WarningMessage]) -> str:
    lines = (f"{it.category.__name__}: {_first_line(str(it.message))}" for it in warned)
    return " ".join(list(dict.fromkeys(lines))[:WARNINGS])


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0]
