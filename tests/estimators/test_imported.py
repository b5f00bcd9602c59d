"""Anyone's own estimators by import path, and how names are read."""

from __future__ import annotations

import sys
import warnings
from types import ModuleType

import numpy as np
import pytest
from sklearn.base import BaseEstimator
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import RidgeClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import SVC, LinearSVC

from layerscope.errors import EstimatorError, SettingsError, UnknownNameError
from layerscope.estimators import estimators
from layerscope.estimators.naming import LONGEST, make, split_names
from layerscope.estimators.presets import PREFIX, PRESETS
from layerscope.types import Task
from tests.estimators.blobs import blobs

TRAIN, VAL, TEST = slice(0, 300), slice(300, 400), slice(400, 500)
TASK = Task("y", "memory", "classes", "top-1", "maximise")
LATENT = Task("z", "memory", "latents", "mse", "minimise", encoding="raw")


def standardised(rows: np.ndarray) -> np.ndarray:
    wide = rows.astype(np.float64)
    return ((wide - wide[TRAIN].mean(0)) / wide[TRAIN].std(0)).astype(np.float32)


def scores(name: str, view, *tasks: Task):
    found = make(name, 0).score(view, tasks or [TASK])
    return {(score.task, score.metric): score for score in found}


@pytest.fixture
def own(monkeypatch):
    """A module of the user's own, whose classes are set as attributes."""
    module = ModuleType("own_module")
    monkeypatch.setitem(sys.modules, "own_module", module)
    return module


# Names.


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("logistic", ["logistic"]),
        ("logistic, lda", ["logistic", "lda"]),
        ("a.B(c=1, d=2),lda", ["a.B(c=1, d=2)", "lda"]),
        ("a.B(c='x,(y', d=[1, (2, 3)]),e", ["a.B(c='x,(y', d=[1, (2, 3)])", "e"]),
    ],
)
def test_commas_inside_brackets_and_quotes_split_nothing(text, names):
    assert split_names(text) == names


@pytest.mark.parametrize("text", ["a,,b", "", "a.B(c=1", "a.B)", "a.B(c='x)", "lda,"])
def test_a_list_that_ends_in_the_middle_is_refused(text):
    with pytest.raises(SettingsError, match="open bracket or quote, or an empty name") as caught:
        split_names(text)
    assert caught.value.hint


def test_spellings_of_one_call_have_one_name():
    assert make("sklearn.svm.LinearSVC( C = 2.0 , loss='hinge')", 0).name == (
        make('sklearn.svm.LinearSVC(C=2.0,loss="hinge")', 0).name
    )
    assert make("sklearn.svm.LinearSVC", 0).name == "sklearn.svm.LinearSVC"


def test_registered_names_and_presets_are_made():
    assert make("lda", 3).name == "lda"
    assert make("sgd:moco", 3).name == "sgd:moco"


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(UnknownNameError, match="no estimator called 'rigde'"):
        make("rigde", 0)


def test_an_unknown_preset_is_answered_with_all_presets():
    with pytest.raises(SettingsError, match="no preset 'sgd:moko'") as caught:
        make("sgd:moko", 0)
    assert all(PREFIX + name in caught.value.hint for name in PRESETS)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("sklearn.svm.LinearSVC(C=print(1))", "have to be literals"),
        ("sklearn.svm.LinearSVC(C=)", "cannot be read"),
        ("sklearn.svm.LinearSVC(2)", "no import path with keyword arguments"),
        ("sklearn.svm.LinearSVC(**{'C': 2})", "no import path with keyword arguments"),
        ("__import__('os').system('x')", "no import path with keyword arguments"),
        ("sklearn.svm.LinearSVC().fit(X=1)", "no import path with keyword arguments"),
        ("[a.b][0](c=1)", "no import path with keyword arguments"),
        ("sklearn.svm.NoSuchThing", "cannot be imported: AttributeError"),
        ("nowhere.at_all.Thing", "cannot be imported: ModuleNotFoundError"),
        ("Thing(a=1)", "cannot be imported"),
        ("sklearn.base.clone", "is a function and no class"),
        ("sklearn.svm.LinearSVC(no_such=1)", "cannot be made: TypeError"),
        ("sklearn.preprocessing.StandardScaler", "has no predict"),
        ("sklearn.cluster.KMeans(n_clusters=3)", "is a clusterer"),
        (f"sklearn.svm.LinearSVC(loss={'x' * LONGEST!r})", "has a name of"),
    ],
)
def test_what_is_no_estimator_is_wrong_use_with_a_hint(name, message):
    with pytest.raises(SettingsError, match=message) as caught:
        make(name, 0)
    assert caught.value.hint


# Classifiers.


def test_probabilities_are_scikit_learns(view):
    rows, labels = blobs(7)
    row = scores("sklearn.neighbors.KNeighborsClassifier(n_neighbors=20)", view(rows, y=labels))
    z = standardised(rows)
    model = KNeighborsClassifier(20).fit(z[TRAIN], labels[TRAIN])
    assert row["y", "top-1"].test == model.score(z[TEST], labels[TEST])
    likelihood = model.predict_proba(z[TEST])[np.arange(100), labels[TEST]].clip(min=1e-12)
    assert row["y", "nll"].test == pytest.approx(-np.log(likelihood).mean())
    assert {metric for _, metric in row} == {"top-1", "top-5", "mean-per-class", "nll", "ece"}
    assert row["y", "nll"].settings["answers"] == "probabilities"
    assert row["y", "nll"].estimator == "sklearn.neighbors.KNeighborsClassifier(n_neighbors=20)"


@pytest.mark.parametrize(("classes", "top_5"), [(2, False), (7, True)])
def test_decision_values_rank_the_classes(view, classes, top_5):
    rows, labels = blobs(classes)
    row = scores("sklearn.linear_model.RidgeClassifier", view(rows, y=labels))
    z = standardised(rows)
    model = RidgeClassifier().fit(z[TRAIN], labels[TRAIN])
    assert row["y", "top-1"].test == model.score(z[TEST], labels[TEST])
    assert (("y", "top-5") in row) == top_5
    assert {metric for _, metric in row} <= {"top-1", "mean-per-class", "top-5"}
    if top_5:
        best = np.argsort(model.decision_function(z[TEST]))[:, -5:]
        found = (model.classes_[best] == labels[TEST][:, None]).any(1)
        assert row["y", "top-5"].test == pytest.approx(found.mean())


def test_decisions_between_pairs_rank_nothing(view):
    rows, labels = blobs(4)
    row = scores("sklearn.svm.SVC(decision_function_shape='ovo')", view(rows, y=labels))
    z = standardised(rows)
    model = SVC().fit(z[TRAIN], labels[TRAIN])
    assert row["y", "top-1"].test == model.score(z[TEST], labels[TEST])
    assert row["y", "top-1"].settings["answers"] == "labels"


def test_the_seed_is_the_random_state_unless_it_is_given(view):
    assert make("sklearn.svm.LinearSVC", 7)._arguments == {"random_state": 7}
    assert make("sklearn.svm.LinearSVC(random_state=1)", 7)._arguments == {"random_state": 1}
    rows, labels = blobs(3)
    row = scores("sklearn.svm.LinearSVC", view(rows, y=labels))["y", "top-1"]
    z = standardised(rows)
    model = LinearSVC(random_state=0).fit(z[TRAIN], labels[TRAIN])
    assert row.val == model.score(z[VAL], labels[VAL])


def test_a_metric_that_it_cannot_give_is_refused(view):
    rows, labels = blobs(3)
    task = Task("y", "memory", "classes", "nll", "minimise")
    with pytest.raises(EstimatorError, match="cannot choose a cut of 'y' by 'nll'"):
        scores("sklearn.svm.LinearSVC", view(rows, y=labels), task)


# Regressors.


def test_a_regressor_is_fitted_to_each_component(view):
    rows, _ = blobs(3)
    target = np.stack((rows[:, 0] ** 2, rows[:, 1]), 1).astype(np.float64)
    name = "sklearn.ensemble.RandomForestRegressor(n_estimators=5)"
    row = scores(name, view(rows, z=target), LATENT)["z", "mse"]
    z = standardised(rows)
    models = [
        RandomForestRegressor(5, random_state=0).fit(z[TRAIN], target[TRAIN, i]) for i in (0, 1)
    ]
    errors = [np.square(m.predict(z[TEST]) - target[TEST, i]).mean() for i, m in enumerate(models)]
    assert row.test == pytest.approx(np.mean(errors))
    assert row.settings["mse_by_target"] == pytest.approx(errors)


def test_labels_are_regressed_too(view):
    rows, _ = blobs(3)
    task = Task("marks", "memory", "multilabel", "mean-average-precision", "maximise")
    labels = (rows[:, :2] > 0).astype(np.int64)
    found = scores("sklearn.svm.SVR", view(rows, marks=labels), task)
    assert found["marks", "mean-average-precision"].test > 0.9


def test_classifiers_have_classes_and_regressors_latents():
    forest, machine = make("sklearn.ensemble.RandomForestRegressor", 0), make("sklearn.svm.SVC", 0)
    assert machine.handles(TASK) and not machine.handles(LATENT)
    assert forest.handles(LATENT) and not forest.handles(TASK)


# The user's own.


class Plain:
    """An estimator that owes nothing to scikit-learn but fit and predict."""

    def fit(self, rows, targets):
        self.first = targets[0]

    def predict(self, rows):
        return np.full(len(rows), self.first)


class Bare(BaseEstimator):
    """A class that says to be neither a classifier nor a regressor."""

    def fit(self, rows, targets):
        warnings.warn("it is bare", RuntimeWarning, stacklevel=2)
        warnings.warn("it is bare", RuntimeWarning, stacklevel=2)
        self.first = targets[0]
        return self

    def predict(self, rows):
        return np.full(len(rows), self.first)


class Broken(Plain):
    def predict(self, rows):
        raise KeyError("lost")


class Odd(Plain):
    def predict(self, rows):
        return np.zeros((len(rows), 3))


@pytest.mark.parametrize("kind", [Plain, Bare])
def test_a_class_of_ones_own_answers_whatever_it_is_asked(own, view, kind):
    own.Own = kind
    rows, labels = blobs(3)
    found = scores("own_module.Own", view(rows, y=labels, z=rows[:, 0]), TASK, LATENT)
    assert found["y", "top-1"].test == np.mean(labels[TEST] == labels[0])
    assert found["z", "mse"].test == pytest.approx(np.square(rows[TEST, 0] - rows[0, 0]).mean())
    assert found["y", "top-1"].note == ("RuntimeWarning: it is bare" if kind is Bare else "")


class Wordy(Plain):
    def predict_proba(self, rows):
        return np.array([["a", "b", "c"]] * len(rows))


@pytest.mark.parametrize(
    ("kind", "message"),
    [(Broken, r"own_module.Own raised KeyError: 'lost'"), (Odd, "gives .*shape")],
)
@pytest.mark.parametrize("task", [TASK, LATENT])
def test_whatever_a_class_of_ones_own_raises_fails_its_cell(own, view, kind, message, task):
    own.Own = kind
    rows, labels = blobs(3)
    with pytest.raises(EstimatorError, match=message) as caught:
        scores("own_module.Own", view(rows, y=labels, z=rows[:, 0]), task)
    assert caught.value.hint


def test_probabilities_that_are_no_numbers_fail_the_cell(own, view):
    own.Own = Wordy
    rows, labels = blobs(3)
    with pytest.raises(EstimatorError, match="raised ValueError: could not convert"):
        scores("own_module.Own", view(rows, y=labels))


def test_nothing_is_registered_by_being_named():
    make("sklearn.svm.LinearSVC", 0)
    assert "sklearn.svm.LinearSVC" not in estimators
