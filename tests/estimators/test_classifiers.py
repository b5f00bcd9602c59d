"""What holds for every classifier, and what is true of each in closed form."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import log_softmax
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import RidgeClassifier
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid

from layerscope.errors import EstimatorError
from layerscope.estimators import classification, estimators
from layerscope.estimators.discriminants import SHRINKAGES
from layerscope.estimators.knn import TEMPERATURE
from layerscope.estimators.naming import make
from layerscope.types import Task
from tests.estimators.blobs import UNFIT, N, blobs

TRAIN, VAL, TEST = slice(0, 300), slice(300, 400), slice(400, 500)
TASK = Task("y", "memory", "classes", "top-1", "maximise")
CLOSED = ("ncm", "lda", "knn", "ridge-classifier")


def scores(name: str, view, task: Task = TASK):
    return {score.metric: score for score in estimators[name](0).score(view, [task])}


def standardised(rows: np.ndarray) -> np.ndarray:
    wide = rows.astype(np.float64)
    return (wide - wide[TRAIN].mean(0)) / wide[TRAIN].std(0)


def surprise(scores: np.ndarray, labels: np.ndarray) -> float:
    return float(-log_softmax(scores, 1)[np.arange(len(labels)), labels].mean())


@pytest.mark.parametrize("name", CLOSED)
def test_separated_classes_are_told_apart(name, view):
    rows, labels = blobs(4, 0.05)
    row = scores(name, view(rows, y=labels))
    assert row["top-1"].test == row["top-1"].val == 1.0
    assert not row["top-1"].losses.test.any()


@pytest.mark.parametrize("name", CLOSED)
def test_noise_is_chance(name, view):
    rng = np.random.default_rng(3)
    row = scores(name, view(rng.standard_normal((N, 4)), y=rng.integers(0, 4, N)))
    assert row["top-1"].test == pytest.approx(0.25, abs=0.15)


@pytest.mark.parametrize("name", CLOSED)
def test_it_handles_classes_only(name):
    assert estimators[name](0).handles(TASK)
    assert not estimators[name](0).handles(
        Task("z", "m", "latents", "mse", "minimise", encoding="raw")
    )


@pytest.mark.parametrize("name", CLOSED)
def test_several_tasks_at_once_are_the_same_as_each_alone(name, view):
    rows, labels = blobs(7, 1.0)
    data = view(rows, y=labels, half=labels % 2)
    tasks = [TASK, Task("half", "memory", "classes", "mean-per-class", "maximise")]
    together = list(estimators[name](0).score(data, tasks))
    alone = [score for task in tasks for score in estimators[name](0).score(data, [task])]
    assert together == alone


@pytest.mark.parametrize("name", CLOSED)
def test_a_class_that_val_or_test_lacks_is_fine(name, view):
    rows, labels = blobs(3, 0.05)
    labels[VAL], labels[TEST] = labels[VAL] % 2, labels[TEST] % 2 + 1
    row = scores(name, view(rows, y=labels))
    assert all(np.isfinite([it.val, it.test, it.stderr]).all() for it in row.values())


@pytest.mark.parametrize("name", CLOSED)
def test_a_class_that_training_lacks_is_wrong(name, view):
    rows, labels = blobs(3, 0.05)
    labels[TEST] = 9
    row = scores(name, view(rows, y=labels))
    assert row["top-1"].test == 0.0
    if "nll" in row:
        assert row["nll"].test == pytest.approx(-np.log(classification.FLOOR))


@pytest.mark.parametrize("name", ("logistic", *CLOSED))
@UNFIT
def test_what_cannot_be_computed_is_refused_with_a_hint(name, change, message, view):
    rows, labels = change(*blobs(3, 1.0))
    with pytest.raises(EstimatorError, match=message) as caught:
        scores(name, view(rows, y=labels))
    assert caught.value.hint


@pytest.mark.parametrize("name", CLOSED)
def test_constant_features_beside_others_change_nothing(name, view):
    rows, labels = blobs(3, 1.0)
    wider = np.concatenate((rows, np.zeros((N, 2), np.float32)), 1)
    plain, padded = scores(name, view(rows, y=labels)), scores(name, view(wider, y=labels))
    assert padded["top-1"].test == plain["top-1"].test
    if name != "lda":  # whose shrunk covariance has a mean variance over all features
        assert padded["top-1"].losses.test.tolist() == plain["top-1"].losses.test.tolist()


# Each against scikit-learn.


def test_nearest_class_mean_is_that_of_scikit_learn(view):
    rows, labels = blobs(3, 1.0)
    z = standardised(rows)
    model = NearestCentroid().fit(z[TRAIN], labels[TRAIN])
    row = scores("ncm", view(rows, y=labels))
    right = model.predict(z[TEST]) == labels[TEST]
    assert row["top-1"].losses.test.tolist() == (1.0 - right).tolist()
    offsets = z[TRAIN] - model.centroids_[labels[TRAIN]]
    distances = np.square(z[TEST, None] - model.centroids_).sum(2)
    posterior = -distances / (2 * np.square(offsets).mean())
    assert row["nll"].test == pytest.approx(surprise(posterior, labels[TEST]), rel=1e-5)


def test_classes_that_are_points_have_a_nearest_mean(view):
    labels = np.arange(N) % 3
    row = scores("ncm", view(np.eye(3)[labels], y=labels))
    assert row["top-1"].test == 1.0
    assert row["nll"].test == pytest.approx(0.0, abs=1e-9)
    with pytest.raises(EstimatorError, match="No feature varies within a class"):
        scores("lda", view(np.eye(3)[labels], y=labels))


def test_lda_is_that_of_scikit_learn_at_the_chosen_shrinkage(view):
    rows, labels = blobs(3, 1.0)
    z = standardised(rows)
    row = scores("lda", view(rows, y=labels))
    accuracy = {}
    for shrinkage in SHRINKAGES:
        model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage)
        model.fit(z[TRAIN], labels[TRAIN])
        accuracy[shrinkage] = model.score(z[VAL], labels[VAL])
        if shrinkage == row["top-1"].settings["shrinkage"]:
            likelihood = surprise(model.decision_function(z[TEST]), labels[TEST])
            assert row["nll"].test == pytest.approx(likelihood, rel=1e-5)
            assert row["top-1"].test == model.score(z[TEST], labels[TEST])
    assert row["top-1"].val == max(accuracy.values())


def test_neighbours_are_those_of_scikit_learn_at_the_chosen_number(view):
    rows, labels = blobs(3, 1.0)
    row = scores("knn", view(rows, y=labels))
    accuracy = {}
    for k in row["top-1"].settings["ks"]:
        model = KNeighborsClassifier(
            k, metric="cosine", weights=lambda d: np.exp((1 - d) / TEMPERATURE)
        )
        model.fit(rows[TRAIN], labels[TRAIN])
        accuracy[k] = model.score(rows[VAL], labels[VAL])
        if k == row["top-1"].settings["k"]:
            assert row["top-1"].test == model.score(rows[TEST], labels[TEST])
    assert row["top-1"].val == max(accuracy.values())
    assert list(accuracy) == [10, 20, 100, 200]


def test_there_are_no_more_neighbours_than_training_rows(view):
    rng = np.random.default_rng(0)
    row = scores("knn", view(rng.standard_normal((100, 3)), y=rng.integers(0, 2, 100)))
    assert row["top-1"].settings["ks"] == [10, 20, 60]


def test_a_class_without_a_vote_is_not_among_the_found(view):
    labels = np.arange(N) % 30
    rows = np.eye(30)[labels] + 1e-3
    labels[TEST] = (labels[TEST] + 1) % 30
    assert scores("knn", view(rows, y=labels))["top-5"].test == 0.0


def test_the_ridge_classifier_is_that_of_scikit_learn_at_the_chosen_penalty(view):
    rows, labels = blobs(4, 1.0)
    z = standardised(rows)
    row = scores("ridge-classifier", view(rows, y=labels))
    model = RidgeClassifier(alpha=300 * row["top-1"].settings["lambda"])
    model.fit(z[TRAIN], labels[TRAIN])
    right = model.predict(z[TEST]) == labels[TEST]
    assert row["top-1"].losses.test.tolist() == (1.0 - right).tolist()
    assert row["top-1"].val == model.score(z[VAL], labels[VAL])


def test_the_ridge_classifier_ranks_classes_and_has_no_probabilities(view):
    rows, labels = blobs(7, 1.0)
    assert set(scores("ridge-classifier", view(rows, y=labels))) == {
        "top-1",
        "top-5",
        "mean-per-class",
    }
    by_likelihood = Task("y", "memory", "classes", "nll", "minimise")
    with pytest.raises(EstimatorError, match="cannot choose a cut of 'y' by 'nll'"):
        scores("ridge-classifier", view(rows, y=labels), by_likelihood)


# Metrics for classes of which some are rare.

BY_AREA = TASK.judged_by("auroc")
RANKING = (*CLOSED, "logistic", "sgd:vissl-in1k", "sklearn.svm.LinearSVC")


def rare_blobs(classes: int):
    """As blobs, of which every class but the first is rare."""
    rng = np.random.default_rng(4)
    labels = np.where(rng.random(N) < 0.8, 0, rng.integers(0, classes, N))
    labels[300:330] = labels[400:430] = np.arange(30) % classes
    centres = np.random.default_rng(0).standard_normal((classes, 6))
    return (centres[labels] + 1.5 * rng.standard_normal((N, 6))).astype(np.float32), labels


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("name", RANKING)
def test_every_classifier_that_ranks_is_judged_by_the_area_under_its_curves(name, classes, view):
    rows, labels = rare_blobs(classes)
    found = {it.metric: it for it in make(name, 0).score(view(rows, y=labels), [BY_AREA])}
    row = found["auroc"]
    assert row.primary
    assert row.direction == "maximise"
    assert 0.6 < row.test < 1
    assert 0.005 < row.stderr < 0.1
    assert [1 - row.losses.val.mean(), 1 - row.losses.test.mean()] == pytest.approx(
        [row.val, row.test], abs=1e-12
    )
    by_accuracy = {it.metric for it in make(name, 0).score(view(rows, y=labels), [TASK])}
    assert by_accuracy == set(found) - {"auroc"}


def test_the_area_is_that_of_scikit_learn_and_chooses_the_shrinkage(view):
    for classes in (2, 4):
        rows, labels = rare_blobs(classes)
        z = standardised(rows)
        row = scores("lda", view(rows, y=labels), BY_AREA)["auroc"]
        areas = {}
        for shrinkage in SHRINKAGES:
            model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage)
            model.fit(z[TRAIN], labels[TRAIN])
            for split in (VAL, TEST):
                p = model.predict_proba(z[split])
                p = p[:, 1] if classes == 2 else p
                area = roc_auc_score(labels[split], p, multi_class="ovr")
                areas[shrinkage, split.start] = area
        best = row.settings["shrinkage"]
        assert row.val == pytest.approx(max(areas[it, VAL.start] for it in SHRINKAGES), abs=1e-9)
        assert row.test == pytest.approx(areas[best, TEST.start], abs=1e-9)


@pytest.mark.parametrize("classes", [2, 4])
def test_scores_that_are_no_probabilities_are_ranked_as_they_are(view, classes):
    rows, labels = rare_blobs(classes)
    z = standardised(rows)
    row = scores("ridge-classifier", view(rows, y=labels), BY_AREA)["auroc"]
    model = RidgeClassifier(alpha=300 * row.settings["lambda"]).fit(z[TRAIN], labels[TRAIN])
    decision = model.decision_function(z[TEST]).reshape(100, -1)
    places = [1] if classes == 2 else range(classes)
    areas = [
        roc_auc_score(labels[TEST] == place, column)
        for place, column in zip(places, decision.T, strict=True)
    ]
    assert row.test == pytest.approx(np.mean(areas), abs=1e-9)


def test_balanced_accuracy_is_the_mean_per_class_and_that_of_scikit_learn(view):
    rows, labels = rare_blobs(4)
    z = standardised(rows)
    task = TASK.judged_by("balanced-accuracy")
    assert task.metric == "mean-per-class"
    row = scores("ridge-classifier", view(rows, y=labels), task)["mean-per-class"]
    model = RidgeClassifier(alpha=300 * row.settings["lambda"]).fit(z[TRAIN], labels[TRAIN])
    expected = balanced_accuracy_score(labels[TEST], model.predict(z[TEST]))
    assert row.primary
    assert row.test == pytest.approx(expected, abs=1e-12)
    draw = np.random.default_rng(0)
    drawn = (400 + draw.integers(0, 100, 100) for _ in range(1000))
    right = model.predict(z) == labels
    means = [np.mean([right[at][labels[at] == it].mean() for it in range(4)]) for at in drawn]
    assert row.stderr == pytest.approx(np.nanstd(means), rel=0.15)


def test_a_class_that_training_lacks_is_ranked_by_nothing(view):
    rows, labels = blobs(3, 0.05)
    labels[TEST][::2] = 9
    plain = scores("ncm", view(rows, y=labels), BY_AREA)["auroc"]
    # Each of the three others is told from the rest, the new class as well as by chance.
    assert 0.5 / 4 + 0.5 * 3 / 4 < plain.test < 0.5 / 4 + 3 / 4
    both = np.isin(labels, (0, 9))
    labels[TEST] = np.where(both[TEST], labels[TEST], 0)
    assert scores("ncm", view(rows, y=labels), BY_AREA)["auroc"].test < 0.95


@pytest.mark.parametrize("split", [VAL, TEST])
def test_rows_of_a_single_class_have_no_area(view, split):
    rows, labels = blobs(3, 1.0)
    labels[split] = 1
    with pytest.raises(EstimatorError, match="hold a single class, which no score") as caught:
        scores("lda", view(rows, y=labels), BY_AREA)
    assert caught.value.hint


@pytest.mark.parametrize("classes", [3, 4])
def test_what_gives_labels_alone_has_no_area(view, classes):
    # As many pairs as classes are pairs all the same.
    rows, labels = blobs(classes, 1.0)
    pairs = make("sklearn.svm.SVC(decision_function_shape='ovo')", 0)
    with pytest.raises(EstimatorError, match="cannot choose a cut of 'y' by 'auroc'") as caught:
        list(pairs.score(view(rows, y=labels), [BY_AREA]))
    assert "mean-per-class" in caught.value.hint
