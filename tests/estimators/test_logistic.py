from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from layerscope.errors import EstimatorError
from layerscope.estimators import classification, estimators, logistic, streamed_layer
from layerscope.stats import softmax
from layerscope.testing import HeldLayer
from layerscope.types import SPLITS, Task
from tests.estimators.blobs import N, blobs

RNG = np.random.default_rng(0)
TASK = Task("y", "memory", "classes", "top-1", "maximise")


@pytest.fixture(autouse=True)
def from_the_start(monkeypatch):
    """No test's numbers depend on which others ran before it."""
    monkeypatch.setitem(globals(), "RNG", np.random.default_rng(0))


def scores(view, task: Task = TASK):
    return {score.metric: score for score in estimators["logistic"](0).score(view, [task])}


def test_it_handles_classes_only():
    assert estimators["logistic"](0).handles(TASK)
    assert not estimators["logistic"](0).handles(
        Task("z", "m", "latents", "mse", "minimise", encoding="raw")
    )


def test_separated_classes_are_told_apart(view):
    rows, labels = blobs(4, 0.05)
    row = scores(view(rows, y=labels))
    assert row["top-1"].test == row["top-1"].val == 1.0
    assert row["top-1"].stderr == 0.0
    assert not row["top-1"].losses.test.any()


def test_it_is_scikit_learn_at_the_chosen_penalty(view):
    rows, labels = blobs(3, 1.0)
    row = scores(view(rows, y=labels))
    wide = rows.astype(np.float32).astype(np.float64)
    z = (wide - wide[:300].mean(0)) / wide[:300].std(0)
    penalty = row["top-1"].settings["lambda"]
    model = LogisticRegression(C=1 / (penalty * 300), tol=1e-8, max_iter=2000)
    model.fit(z[:300], labels[:300])
    assert row["top-1"].test == pytest.approx(model.score(z[400:], labels[400:]), abs=0.011)
    likelihood = -model.predict_log_proba(z[400:])[np.arange(100), labels[400:]].mean()
    assert row["nll"].test == pytest.approx(likelihood, rel=0.01)


def test_losses_are_the_complement_of_top_1(view):
    row = scores(view(*blobs(3, 1.0)[:1], y=RNG.integers(0, 3, N)))
    assert 1 - row["top-1"].losses.test.mean() == pytest.approx(row["top-1"].test)
    assert [m for m, score in row.items() if score.losses is not None] == ["top-1"]


def test_the_likelihood_may_be_the_primary_metric(view):
    rows, labels = blobs(3, 1.0)
    row = scores(view(rows, y=labels), Task("y", "memory", "classes", "nll", "minimise"))
    assert row["nll"].primary
    assert row["nll"].losses.test.mean() == pytest.approx(row["nll"].test)


def test_classes_count_equally_in_the_mean_per_class(view):
    labels = (np.arange(N) % 10 == 0).astype(int)
    row = scores(view(RNG.standard_normal((N, 2)), y=labels))
    assert row["top-1"].test == pytest.approx(0.9)
    assert row["mean-per-class"].test == pytest.approx(0.5)
    assert row["mean-per-class"].settings["lambda_high"] >= 1


def test_a_class_that_val_and_test_lack_is_fine(view):
    rows, labels = blobs(3, 0.05)
    labels[0], labels[300:] = 7, labels[300:] % 2
    assert scores(view(rows, y=labels))["top-1"].n_test == 100


def test_a_class_that_training_lacks_is_wrong_and_of_least_probability(view):
    rows, labels = blobs(3, 0.05)
    labels[400:] = 9
    row = scores(view(rows, y=labels))
    assert row["top-1"].test == 0.0
    assert row["nll"].test == pytest.approx(-np.log(classification.FLOOR))


def test_an_unconverged_solver_is_reported_and_not_raised(view, monkeypatch):
    monkeypatch.setattr(softmax, "PASSES", 1)
    rows, labels = blobs(3, 1.0)
    row = scores(view(rows, y=labels))["top-1"]
    assert row.settings["unconverged"]
    assert "The solver stopped" in row.note


def test_scale_and_offset_change_nothing(view):
    rows, labels = blobs(3, 1.0)
    plain = scores(view(rows, y=labels))["nll"]
    moved = scores(view(rows * [1e-3, 1e3, 1, 1, 1, 9] + 2, y=labels))["nll"]
    assert moved.test == pytest.approx(plain.test, rel=1e-3)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros(N, dtype=int), "a single class"),
        (RNG.standard_normal(N), "float64"),
        (np.zeros((N, 2), dtype=int), "shape"),
    ],
)
def test_what_cannot_be_computed_is_refused_with_a_hint(view, labels, message):
    with pytest.raises(EstimatorError, match=message) as caught:
        scores(view(RNG.standard_normal((N, 3)), y=labels))
    assert caught.value.hint


def test_a_metric_that_it_does_not_have_is_refused(view):
    rows, labels = blobs(3, 1.0)
    with pytest.raises(EstimatorError, match="cannot choose a cut"):
        scores(view(rows, y=labels), Task("y", "memory", "classes", "mce", "minimise"))


# The path of λ, and what the type and the size of a layer may not change.


def over_fitted() -> HeldLayer:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, 2 * N)
    rows = rng.standard_normal((2 * N, 200))
    rows[:, 0] += 2.5 * labels
    return HeldLayer.of(rows, y=labels)


def test_a_grid_grows_no_further_where_its_end_is_clearly_worse():
    settings = scores(over_fitted())["top-1"].settings
    assert settings["edge"] == "none"
    assert settings["ended_low"] == "worse"
    assert settings["lambda_low"] == pytest.approx(10.0**logistic.LOW)
    assert settings["lambda"] > settings["lambda_low"]


def test_what_is_clear_counts_groups_and_not_rows():
    rows = over_fitted()
    alone = np.where(rows.splits == "val", 0, 1 + rows.members)
    settings = scores(replace(rows, members=alone))["top-1"].settings
    assert settings["ended_low"] != "worse"
    assert settings["lambda_low"] < 10.0**logistic.LOW


def test_a_grid_grows_no_further_where_nothing_changes_any_more(view):
    rows, labels = blobs(4, 0.05)
    settings = scores(view(rows, y=labels))["top-1"].settings
    assert settings["ended_low"] == "settled"
    assert settings["lambda_low"] == pytest.approx(10.0**logistic.LOW)
    # Of separated classes weaker is likelier without end.
    assert settings["edge"] == "low"


def test_a_grid_grows_where_its_end_wins_and_says_where_one_still_does(view):
    rows, labels = blobs(4, 0.05)
    by_likelihood = Task("y", "memory", "classes", "nll", "minimise")
    settings = scores(view(rows, y=labels), by_likelihood)["nll"].settings
    assert settings["edge"] == "low"
    assert settings["ended_low"] == "grid"
    assert settings["lambda"] == pytest.approx(10.0 ** (logistic.LOW - logistic.EXTENSIONS["low"]))


PATH = np.logspace(0, -9, 10)


def in_weak_directions(power: float, n: int, classes: int, strong: bool = False) -> HeldLayer:
    """Turned features whose eigenvalues fall as i to the power, and classes of the weaker half.

    Args:
        power: Below zero.
        n: Training rows.
        classes: Their number.
        strong: Whether the strongest eight directions tell something of the class as well.
    """
    rng = np.random.default_rng(0)
    d, sizes = 64, (n, 400, 800)
    plain = rng.standard_normal((sum(sizes), d))
    labels = (plain[:, d // 2 :] @ rng.standard_normal((d // 2, classes))).argmax(1)
    if strong:
        plain[:, :8] += 0.35 * rng.standard_normal((classes, 8))[labels]
    turned = np.linalg.qr(rng.standard_normal((d, d)))[0]
    rows = plain * np.arange(1, d + 1) ** (power / 2) @ turned
    splits = np.repeat(np.array(SPLITS), sizes)
    return HeldLayer(np.float32(rows), {"y": labels}, splits, np.arange(len(rows)))


def whole_path(view: HeldLayer) -> np.ndarray:
    """Return (l, 2) accuracies of scikit-learn's fits on validation and test."""
    wide = {split: view.features(split).astype(np.float64) for split in SPLITS}
    mean, deviation = wide["train"].mean(0), wide["train"].std(0)
    z = {split: (rows - mean) / deviation for split, rows in wide.items()}
    found = []
    for penalty in PATH:
        model = LogisticRegression(C=1 / (penalty * len(z["train"])), solver="newton-cholesky")
        model.fit(z["train"], view.target("y", "train"))
        found.append([model.score(z[it], view.target("y", it)) for it in SPLITS[1:]])
    return np.array(found)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.filterwarnings("ignore::scipy.linalg.LinAlgWarning")
@pytest.mark.parametrize("power", [-2, -3, -4])
@pytest.mark.parametrize(("n", "classes"), [(300, 2), (900, 2), (900, 5)])
def test_it_is_as_good_as_the_best_of_the_whole_path(power, n, classes):
    view = in_weak_directions(power, n, classes)
    path = whole_path(view)
    row = scores(view)["top-1"]
    chosen = path[path[:, 0].argmax()]
    assert chosen[1] > 1.5 / classes
    assert row.val >= chosen[0] - 0.02
    assert row.test >= chosen[1] - 0.02


def test_a_rise_behind_a_dip_is_found():
    row = scores(in_weak_directions(-4, 200, 2, strong=True))["top-1"]
    assert row.settings["lambda"] < 1e-6
    assert row.test > 0.8


@pytest.fixture
def ill_conditioned(view):
    """Twelve features of deviations from 1 to 1e-3, turned, and the class in the least of them."""
    rng = np.random.default_rng(2)
    scale = np.logspace(0, -3, 12)
    plain = rng.standard_normal((N, 12)) * scale
    labels = (plain[:, -1] > 0).astype(int)
    return view(plain @ np.linalg.qr(rng.standard_normal((12, 12)))[0], y=labels)


def test_directions_that_float32_products_hide_are_not_lost(ill_conditioned, monkeypatch):
    monkeypatch.setattr(logistic, "SMALL", 0)
    assert scores(ill_conditioned)["top-1"].test > 0.9


def test_a_large_layer_is_not_held_twice_and_gets_the_same_probe(view, monkeypatch):
    rows, labels = blobs(3, 1.0)
    held = scores(view(rows, y=labels))
    monkeypatch.setattr(logistic, "LARGE", 0)
    monkeypatch.setattr(logistic, "standardised", None)  # whatever calls it fails
    streamed = scores(view(rows, y=labels))
    assert streamed["nll"].test == pytest.approx(held["nll"].test, rel=1e-6)


@dataclass
class Drip:
    """A view that gives its rows in blocks alone."""

    whole: object

    def __getattr__(self, name):
        return getattr(self.whole, name)

    def features(self, split):
        raise AssertionError(f"all of {split} were asked for at once")

    def blocks(self, split, size):
        rows = self.whole.features(split)
        for start in range(0, len(rows), 37):
            yield rows[start : start + 37].copy()

    def target(self, task, split):
        return self.whole.target(task, split)

    def groups(self, split):
        return self.whole.groups(split)


def test_a_layer_that_memory_does_not_hold_is_streamed_and_gets_the_same_probe(view, monkeypatch):
    rows, labels = blobs(3, 1.0)
    rows = np.concatenate((rows, np.zeros((len(rows), 2))), 1)
    rows[3, -1] = 5.0  # a feature that one training row alone makes vary
    held = scores(view(rows, y=labels))
    monkeypatch.setattr(streamed_layer, "memory", lambda: 0)
    streamed = scores(Drip(view(rows, y=labels)))
    assert streamed["top-1"].settings["rare_features"] == 1
    assert streamed["top-1"].note == held["top-1"].note != ""
    for metric, score in held.items():
        assert streamed[metric].test == pytest.approx(score.test, rel=1e-4, abs=1e-5)
        assert streamed[metric].settings["lambda"] == score.settings["lambda"]


@pytest.mark.parametrize("value", [np.nan, 1.5])
def test_a_streamed_layer_is_refused_like_a_held_one(view, monkeypatch, value):
    rows, labels = blobs(3, 1.0)
    rows[:] = value
    with pytest.raises(EstimatorError) as held:
        scores(view(rows, y=labels))
    monkeypatch.setattr(streamed_layer, "memory", lambda: 0)
    with pytest.raises(EstimatorError, match=r"constant|not finite") as streamed:
        scores(Drip(view(rows, y=labels)))
    assert streamed.value.hint == held.value.hint


def test_the_calibration_error_is_that_of_bins_of_confidence(view):
    rows, labels = blobs(3, 1.5)
    row = scores(view(rows, y=labels))
    probe = logistic.fit_probe(view(rows, y=labels), TASK)
    test = torch.tensor(np.float32(rows[400:]))
    p = torch.softmax(probe.logits(test), 1).max(1).values.numpy()
    right = probe.predict(test) == labels[400:]
    bins = np.minimum((p * 15).astype(int), 14)
    gaps = [abs((p - right)[bins == b].sum()) for b in range(15)]
    assert row["ece"].test == pytest.approx(sum(gaps) / 100, rel=1e-6)
    assert len({b for b in range(15) if (bins == b).any()}) > 3
