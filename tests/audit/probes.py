"""The definitions of probes at the settings that they chose, and of the metrics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.spatial.distance import cdist
from scipy.spatial.transform import Rotation
from scipy.special import log_softmax, logsumexp

from tests.audit.cases import Case
from tests.audit.table import KIND, MARKS, PLACE, POSE, TURN, Values, audited

SOUND = ("even", "offset", "steep")
RIDGE = "Hastie, Tibshirani and Friedman, eq. 3.44"


def standardised(case: Case, *splits: str) -> list[np.ndarray]:
    x = case.part("train").x
    return [(case.part(split).x - x.mean(0)) / x.std(0) for split in splits]


def ridge(case: Case, targets: np.ndarray, penalty: float | list[float]) -> np.ndarray:
    """Predictions of the test rows: Hastie, Tibshirani and Friedman, eq. 3.44."""
    z, test = standardised(case, "train", "test")
    n, d = z.shape
    each = np.repeat(penalty, targets.shape[1] // np.size(penalty))
    gram, cross = z.T @ z / n, z.T @ (targets - targets.mean(0)) / n
    weights = [
        np.linalg.solve(gram + it * np.eye(d), c) for it, c in zip(each, cross.T, strict=True)
    ]
    return test @ np.stack(weights, 1) + targets.mean(0)


def regressed(case: Case, train: np.ndarray, test: np.ndarray, settings: Mapping[str, Any]):
    predicted = ridge(case, train, settings["lambda"])
    if settings["encoding"] == "quaternion":  # q and −q are one rotation
        test = test * np.where((predicted * test).sum(1, keepdims=True) < 0, -1, 1)
    squares = (predicted - test) ** 2
    found = {
        "mse": squares.mean(),
        "nmse": (squares.mean(0) / train.var(0)).mean(),
        "r2": (1 - squares.mean(0) / test.var(0)).mean(),
    }
    return predicted, found


@audited("ridge", RIDGE, PLACE, within=1e-7, conditions=SOUND)
def ridge_of_numbers(case: Case, settings: Mapping[str, Any]) -> Values:
    train, test = (case.part(split).targets["place"] for split in ("train", "test"))
    predicted, found = regressed(case, train, test, settings)
    return found | {"mae": np.abs(predicted - test).mean()}


@audited("ridge", "sine and cosine; distance on the circle", TURN, within=1e-7, conditions=SOUND)
def ridge_of_a_circle(case: Case, settings: Mapping[str, Any]) -> Values:
    turns = [case.part(split).targets["turn"][:, 0] * 2 * np.pi for split in ("train", "test")]
    train, test = (np.column_stack((np.sin(a), np.cos(a))) for a in turns)
    predicted, found = regressed(case, train, test, settings)
    angle = np.angle((predicted[:, 1] + 1j * predicted[:, 0]) * np.exp(-1j * turns[1]))
    return found | {"circular-error": np.abs(angle).mean() / (2 * np.pi)}


@audited(
    "ridge", "scipy.spatial.transform; angle between rotations", POSE, within=1e-7, conditions=SOUND
)
def ridge_of_rotations(case: Case, settings: Mapping[str, Any]) -> Values:
    train, test = (
        Rotation.from_euler("xyz", case.part(split).targets["pose"]) for split in ("train", "test")
    )
    quaternions = (it.as_quat(canonical=True) for it in (train, test))
    predicted, found = regressed(case, *quaternions, settings)
    between = Rotation.from_quat(predicted) * test.inv()
    return found | {"geodesic": np.rad2deg(between.magnitude()).mean()}


@audited("ridge", "area under precision and recall, in steps", MARKS, within=1e-7, conditions=SOUND)
def ridge_of_labels(case: Case, settings: Mapping[str, Any]) -> Values:
    train, test = (case.part(split).targets["marks"] for split in ("train", "test"))
    predicted, found = regressed(case, train.astype(float), test.astype(float), settings)
    precisions = []
    for score, label in zip(predicted.T, test.T, strict=True):
        hits = label[np.argsort(-score)]
        precisions.append((hits * hits.cumsum() / np.arange(1, len(hits) + 1)).sum() / hits.sum())
    return found | {"mean-average-precision": np.mean(precisions)}


def classified(case: Case, scores: np.ndarray) -> Values:
    """The metrics of log-probabilities up to a constant of each row."""
    logp, y = np.maximum(log_softmax(scores, axis=1), np.log(1e-12)), case.test.y
    choice = scores.argmax(1)
    right, confidence = choice == y, np.exp(logp.max(1))
    bins = np.minimum((confidence * 15).astype(int), 14)
    gaps = [abs((confidence - right)[bins == b].sum()) for b in range(15)]
    return {
        "top-1": right.mean(),
        "mean-per-class": np.mean([right[y == k].mean() for k in np.unique(y)]),
        "nll": -logp[np.arange(len(y)), y].mean(),
        "ece": np.sum(gaps) / len(y),
    }


# Standardised features are of float32.
@audited("ncm", "Hastie, Tibshirani and Friedman, eq. 4.10", KIND, within=1e-6, conditions=SOUND)
def nearest_class_mean(case: Case, _: Mapping[str, Any]) -> Values:
    (z, test), y = standardised(case, "train", "test"), case.part("train").y
    means = np.stack([z[y == k].mean(0) for k in np.unique(y)])
    variance = ((z - means[y]) ** 2).mean()
    return classified(case, -cdist(test, means, "sqeuclidean") / (2 * variance))


@audited("lda", "Hastie, Tibshirani and Friedman, eq. 4.10", KIND, within=1e-4, conditions=SOUND)
def discriminant_analysis(case: Case, settings: Mapping[str, Any]) -> Values:
    (z, test), y = standardised(case, "train", "test"), case.part("train").y
    means = np.stack([z[y == k].mean(0) for k in np.unique(y)])
    within = (z - means[y]).T @ (z - means[y]) / len(z)
    s, d = settings["shrinkage"], len(within)
    inverse = np.linalg.inv((1 - s) * within + s * np.trace(within) / d * np.eye(d))
    priors = np.log(np.bincount(y) / len(y))
    return classified(
        case, test @ inverse @ means.T - (means @ inverse * means).sum(1) / 2 + priors
    )


@audited("knn", "Wu et al. 2018, section 3.4; Caron et al. 2021", KIND, within=2e-2,
         conditions=SOUND)  # fmt: skip
def nearest_neighbours(case: Case, settings: Mapping[str, Any]) -> Values:
    train, test = case.part("train"), case.test
    unit = [it.x / np.linalg.norm(it.x, axis=1, keepdims=True) for it in (train, test)]
    cosines = unit[1] @ unit[0].T
    order = np.argsort(-cosines, axis=1)[:, : settings["k"]]
    weights = np.take_along_axis(cosines, order, 1) / 0.07
    votes = [
        logsumexp(np.where(train.y[order] == k, weights, -np.inf), axis=1)
        for k in np.unique(train.y)
    ]
    return classified(case, np.stack(votes, 1))


@audited("ridge-classifier", "ridge of one-hot classes", KIND, conditions=SOUND)
def ridge_classifier(case: Case, settings: Mapping[str, Any]) -> Values:
    hot = np.eye(case.part("train").y.max() + 1)[case.part("train").y]
    found = classified(case, ridge(case, hot, settings["lambda"]))
    return {metric: found[metric] for metric in ("top-1", "mean-per-class")}


# The solver ends at a gap of 1e-5 of the objective, which leaves less of the weights.
@audited("logistic", "softmax regression with an L2 penalty; scipy.optimize", KIND, within=2e-2,
         conditions=SOUND)  # fmt: skip
def logistic(case: Case, settings: Mapping[str, Any]) -> Values:
    (z, test), y = standardised(case, "train", "test"), case.part("train").y
    n, d = z.shape
    hot = np.eye(y.max() + 1)[y]

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights, offsets = flat[: -len(hot[0])].reshape(d, -1), flat[-len(hot[0]) :]
        logp = log_softmax(z @ weights + offsets, axis=1)
        residual = (np.exp(logp) - hot) / n
        value = -(hot * logp).sum() / n + settings["lambda"] / 2 * (weights**2).sum()
        of_weights = z.T @ residual + settings["lambda"] * weights
        return value, np.concatenate((of_weights.ravel(), residual.sum(0)))

    start = np.zeros((d + 1) * hot.shape[1])
    found = minimize(objective, start, jac=True, method="L-BFGS-B",
                     options={"maxiter": 5000, "ftol": 1e-14, "gtol": 1e-9}).x  # fmt: skip
    weights, offsets = found[: -hot.shape[1]].reshape(d, -1), found[-hot.shape[1] :]
    known = classified(case, test @ weights + offsets)
    # A row at the border of two bins of confidence may change the calibration error.
    return {metric: known[metric] for metric in ("top-1", "mean-per-class", "nll")}
