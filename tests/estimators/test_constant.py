"""A constant answer against scikit-learn's dummies, and against what it must be by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.metrics import average_precision_score, balanced_accuracy_score, log_loss

from layerscope.errors import EstimatorError
from layerscope.estimators.constant import constant_answer
from layerscope.testing.layers import HeldLayer
from layerscope.types import METRICS, Task

N = 400
CLASSES = Task("y", "memory", "classes", "top-1", "maximise")
LATENT = Task("z", "memory", "latents", "mse", "minimise", encoding="raw")


def layer(target: np.ndarray, task: Task) -> HeldLayer:
    return HeldLayer.of(np.zeros((N, 2)), **{task.name: target})


def parts(view: HeldLayer, task: Task) -> list[np.ndarray]:
    return [view.target(task.name, split) for split in ("train", "val", "test")]


def test_classes_are_answered_as_scikit_learns_prior_does():
    labels = np.random.default_rng(0).choice(4, N, p=(0.1, 0.5, 0.3, 0.1))
    view = layer(labels, CLASSES)
    train, val, test = parts(view, CLASSES)
    dummy = DummyClassifier(strategy="prior").fit(np.zeros((len(train), 1)), train)
    found = constant_answer(view, CLASSES)
    empty = np.zeros((len(test), 1))
    assert found.values["top-1"] == pytest.approx(dummy.score(empty, test))
    assert found.values["nll"] == pytest.approx(log_loss(test, dummy.predict_proba(empty)))
    balanced = balanced_accuracy_score(test, dummy.predict(empty))
    assert found.values["mean-per-class"] == pytest.approx(balanced) == pytest.approx(0.25)
    assert found.losses is not None
    np.testing.assert_array_equal(found.losses.test, dummy.predict(empty) != test)
    np.testing.assert_array_equal(found.losses.val, val != 1)


@pytest.mark.parametrize("metric", ["mse", "nmse", "mae"])
def test_latents_are_answered_with_the_mean_of_the_training_rows(metric):
    task = replace(LATENT, metric=metric)
    view = layer(np.random.default_rng(1).gamma(2.0, size=(N, 3)), task)
    train, val, test = parts(view, task)
    dummy = DummyRegressor().fit(np.zeros((len(train), 1)), train)
    off = [rows - dummy.predict(np.zeros((len(rows), 1))) for rows in (val, test)]
    by_metric = {
        "mse": [np.mean(it**2, 1) for it in off],
        "nmse": [np.mean(it**2 / train.var(0), 1) for it in off],
        "mae": [np.abs(it).mean(1) for it in off],
    }
    found = constant_answer(view, task)
    assert found.losses is not None
    np.testing.assert_allclose(found.losses.val, by_metric[metric][0])
    np.testing.assert_allclose(found.losses.test, by_metric[metric][1])
    assert found.values[metric] == pytest.approx(by_metric[metric][1].mean())


def test_a_circular_latent_is_answered_with_the_direction_of_the_mean_point():
    task = Task(
        "z", "memory", "latents", "circular-error", "minimise", encoding="circular", period=1.0
    )
    # Around the wrap at 0: the mean of the numbers would be half a turn off.
    hue = np.tile([0.02, 0.08, 0.92, 0.98], N // 4)
    found = constant_answer(layer(hue, task), task)
    assert found.values["circular-error"] == pytest.approx(0.05, abs=1e-6)


def test_a_rotation_is_answered_with_the_mean_quaternion():
    task = Task("z", "memory", "latents", "geodesic", "minimise", encoding="quaternion")
    view = layer(np.random.default_rng(3).uniform(-1.5, 1.5, (N, 3)), task)
    train, _, test = (Rotation.from_euler("xyz", rows) for rows in parts(view, task))
    mean = Rotation.from_quat(train.as_quat(canonical=True).mean(0))
    found = constant_answer(view, task)
    off = np.rad2deg((mean.inv() * test).magnitude())
    assert found.values["geodesic"] == pytest.approx(off.mean())


def test_labels_have_the_average_precision_of_their_share():
    task = Task("z", "memory", "multilabel", "mean-average-precision", "maximise")
    labels = (np.random.default_rng(2).random((N, 3)) < (0.1, 0.4, 0.7)).astype(np.int64)
    view = layer(labels, task)
    test = parts(view, task)[2]
    found = constant_answer(view, task)
    flat = [average_precision_score(own, np.zeros(len(own))) for own in test.T]
    assert found.values[task.metric] == pytest.approx(np.mean(flat))
    assert found.values[task.metric] == pytest.approx(test.mean())
    assert found.losses is not None
    assert found.losses.test.mean() == pytest.approx(1 - test.mean())


def test_a_class_that_training_lacks_is_no_error():
    view = layer(np.r_[np.tile([0, 1], N // 2 - 10), np.full(20, 7)], CLASSES)
    assert constant_answer(view, CLASSES).values["top-1"] < 0.5


def test_no_feature_is_read():
    class Blind(HeldLayer):
        def features(self, split):
            raise AssertionError(f"the features of {split} were read")

    plain = layer(np.arange(N) % 3, CLASSES)
    fields = {name: getattr(plain, name) for name in plain.__dataclass_fields__}
    assert constant_answer(Blind(**fields), CLASSES).losses is not None


@pytest.mark.parametrize(("metric", "classes"), [("top-5", 3), ("ece", 8)])
def test_a_metric_without_a_constant_is_refused_with_words(metric, classes):
    # Of three classes in training there is no top-5, and what is never sure is calibrated.
    task = replace(CLASSES, metric=metric, direction=METRICS["classes"][metric])
    with pytest.raises(EstimatorError, match=f"By '{metric}', the metric of 'y', no constant"):
        constant_answer(layer(np.arange(N) % classes, task), task)
