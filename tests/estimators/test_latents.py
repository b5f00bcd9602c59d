from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from sklearn.linear_model import Ridge as SklearnRidge
from sklearn.metrics import average_precision_score, roc_auc_score

from layerscope.errors import EstimatorError
from layerscope.estimators import estimators
from layerscope.estimators.regression import read_regression
from layerscope.stats.ridge import GRID, grid
from layerscope.testing import HeldLayer
from layerscope.types import Task

RNG = np.random.default_rng(0)
N = 600


@pytest.fixture(autouse=True)
def from_the_start(monkeypatch):
    """No test's numbers depend on which others ran before it."""
    monkeypatch.setitem(globals(), "RNG", np.random.default_rng(0))


def latent(name: str, encoding: str = "raw", **more) -> Task:
    return Task(name, "memory", "latents", "mse", "minimise", encoding=encoding, **more)


def scores(view, *tasks: Task):
    found = estimators["ridge"](0).score(view, tasks)
    return {(score.task, score.metric): score for score in found}


def noise(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape)


def test_labels_are_regressed_as_zeros_and_ones(view):
    rows = noise(N, 8)
    labels = (rows[:, :2] + 0.1 * noise(N, 2) > 0).astype(np.int64)
    task = Task("marks", "memory", "multilabel", "mse", "minimise", classes=("a", "b"))
    row = scores(view(rows, marks=labels), task)
    as_numbers = scores(view(rows, z=labels.astype(float)), latent("z"))
    assert row["marks", "mse"].test == as_numbers["z", "mse"].test
    # A linear rule explains 2/π of the variance of the sign of a normal variable.
    assert row["marks", "r2"].test == pytest.approx(2 / np.pi, abs=0.08)


def test_it_handles_latents_and_labels_only():
    ridge = estimators["ridge"](0)
    assert ridge.handles(latent("a"))
    assert ridge.handles(Task("m", "memory", "multilabel", "mse", "minimise"))
    assert not ridge.handles(Task("c", "memory", "classes", "top-1", "maximise"))


def test_a_linear_latent_is_found_exactly(view):
    rows = noise(N, 8)
    row = scores(view(rows, z=rows.astype(np.float32) @ np.arange(8.0) + 3), latent("z"))
    assert row["z", "mse"].test < 1e-9
    assert row["z", "r2"].test > 1 - 1e-9
    assert row["z", "mae"].test < 1e-4
    assert row["z", "mse"].settings["edge"] == "low"


def test_the_value_is_that_of_scikit_learn_at_the_chosen_penalty(view):
    rows = noise(N, 40).astype(np.float32)
    target = rows @ noise(40, 2) + 6 * noise(N, 2)
    row = scores(view(rows, z=target), latent("z"))["z", "mse"]
    train, val, test = slice(0, 360), slice(360, 480), slice(480, 600)
    wide = rows.astype(np.float64)
    z = (wide - wide[train].mean(0)) / wide[train].std(0)
    alphas = 360 * np.array(row.settings["lambda"])
    model = SklearnRidge(alpha=alphas).fit(z[train], target[train])
    for split, value, kept in ((val, row.val, row.losses.val), (test, row.test, row.losses.test)):
        losses = np.square(model.predict(z[split]) - target[split]).mean(1)
        np.testing.assert_allclose(kept, losses, rtol=1e-7)
        assert value == pytest.approx(losses.mean(), rel=1e-9)


def test_only_the_primary_metric_carries_losses(view):
    found = scores(view(noise(N, 4), z=noise(N)), latent("z"))
    assert {metric for (_, metric), score in found.items() if score.losses} == {"mse"}
    assert {metric for (_, metric), score in found.items() if score.primary} == {"mse"}


def test_several_tasks_at_once_are_the_same_as_each_alone(view):
    rows = noise(N, 10)
    data = view(rows, a=rows @ noise(10) + noise(N), b=rows[:, :2] + noise(N, 2), c=noise(N))
    tasks = latent("a"), latent("b"), latent("c", "circular", period=2.0)
    together = scores(data, *tasks)
    alone = {key: score for task in tasks for key, score in scores(data, task).items()}
    assert together.keys() == alone.keys()
    for key, score in together.items():
        assert score.test == pytest.approx(alone[key].test, rel=1e-9)
        assert score.stderr == pytest.approx(alone[key].stderr, rel=1e-6)
        assert score.settings.keys() == alone[key].settings.keys()
        for name, value in score.settings.items():
            exact = isinstance(value, str) or name == "edge"
            assert alone[key].settings[name] == (value if exact else pytest.approx(value, rel=1e-9))


def test_a_predictor_of_each_components_mean_explains_nothing(view):
    # Components of very different means: one global mean would call this 0.46 and more.
    target = noise(N, 2) * 0.1 + np.array([0.0, 10.0])
    row = scores(view(noise(N, 5), z=target), latent("z"))
    assert row["z", "r2"].test == pytest.approx(0.0, abs=0.06)
    assert row["z", "nmse"].test == pytest.approx(1.0, abs=0.2)


def test_nmse_weighs_components_by_their_own_variance(view):
    rows = noise(N, 3)
    target = np.stack((rows[:, 0], 100 * (rows[:, 1] + noise(N))), 1)
    row = scores(view(rows, z=target), latent("z"))
    assert row["z", "nmse"].test == pytest.approx(0.25, abs=0.06)
    assert row["z", "mse"].test > 1000


def test_a_rotation_is_regressed_as_a_quaternion_and_judged_in_degrees(view):
    angles = RNG.uniform(-np.pi / 2, np.pi / 2, (N, 3))
    quaternions = Rotation.from_euler("xyz", angles).as_quat()
    row = scores(view(quaternions, z=angles), latent("z", "quaternion"))
    assert row["z", "mse"].settings["components"] == 4
    assert row["z", "mse"].settings["encoding"] == "quaternion"
    assert row["z", "geodesic"].test < 0.1
    blind = scores(view(noise(N, 3), z=angles), latent("z", "quaternion"))
    assert blind["z", "geodesic"].test == pytest.approx(83, abs=8)
    assert blind["z", "mse"].test == pytest.approx(0.117, abs=0.02)


def test_a_rotation_beyond_half_a_turn_is_regressed_on_one_hemisphere(view):
    angles = RNG.uniform(-np.pi, np.pi, (N, 3))
    known = Rotation.from_euler("xyz", angles)
    row = scores(view(known.as_quat(canonical=True), z=angles), latent("z", "quaternion"))
    assert row["z", "mse"].test < 1e-9
    assert row["z", "nmse"].test < 1e-9
    assert row["z", "r2"].test > 1 - 1e-9
    assert row["z", "geodesic"].test < 0.1


@pytest.mark.parametrize("metric", ["mse", "nmse", "geodesic"])
def test_a_quaternion_and_its_negative_are_equally_right(view, metric):
    task = latent("z", "quaternion").judged_by(metric)
    angles = RNG.uniform(-np.pi, np.pi, (N, 3))
    regression = read_regression(view(noise(N, 3), z=angles), task)
    right = regression.encoded["test"]
    signs = torch.from_numpy(RNG.choice([-1.0, 1.0], (len(right), 1)))
    for values in regression.row_measures(signs * right, "test").values():
        assert float(values.max()) < 1e-12
    predicted = torch.from_numpy(noise(len(right), 4))
    for sign, other in ((1, -1), (1, signs)):
        one, turned = (
            regression.losses_by_latent((it * predicted)[None], "test") for it in (sign, other)
        )
        torch.testing.assert_close(one, turned)
        assert one.shape == (1, len(right), 1)


def test_a_circular_latent_is_judged_around_the_circle(view):
    hue = RNG.uniform(0, 1, N)
    rows = np.stack((np.sin(2 * np.pi * hue), np.cos(2 * np.pi * hue)), 1)
    row = scores(view(rows, z=hue), latent("z", "circular", period=1.0))
    assert row["z", "circular-error"].test < 1e-3
    blind = scores(view(noise(N, 3), z=hue), latent("z", "circular", period=1.0))
    assert blind["z", "circular-error"].test == pytest.approx(0.25, abs=0.05)
    assert blind["z", "mse"].test == pytest.approx(0.5, abs=0.05)


def test_scale_offset_and_dead_features_change_nothing(view):
    rows = noise(N, 6)
    target = rows @ noise(6) + noise(N)
    plain = scores(view(rows, z=target), latent("z"))["z", "mse"]
    odd = np.concatenate((rows * [1e-3, 1e3, 1, 7, 1, 1] + 5, np.full((N, 2), 0.1)), 1)
    moved = scores(view(odd, z=target), latent("z"))["z", "mse"]
    assert moved.test == pytest.approx(plain.test, rel=1e-4)
    assert moved.settings["rank"] == plain.settings["rank"] == 6


def test_fewer_rows_than_features_are_no_trouble(view):
    rows = noise(100, 150)
    row = scores(view(rows, z=rows @ noise(150)), latent("z"))["z", "mse"]
    assert math.isfinite(row.test)
    assert row.settings["rank"] == 59


def test_the_standard_error_heeds_groups(view):
    shared = np.repeat(noise(N // 10), 10)
    rows = noise(N, 3)
    alone = scores(view(rows, z=shared), latent("z"))["z", "mse"]
    grouped = scores(view(rows, group_size=10, z=shared), latent("z"))["z", "mse"]
    assert grouped.n_groups == 12
    assert grouped.stderr > 2 * alone.stderr


@pytest.mark.parametrize(
    ("features", "target", "task", "message"),
    [
        (np.full((N, 2), np.nan), noise(N), latent("z"), "not finite"),
        (np.full((N, 2), 0.1), noise(N), latent("z"), "constant"),
        (noise(N, 2), np.full(N, 2.0), latent("z"), "the same in every"),
        (noise(N, 2), noise(N, 2), latent("z", "quaternion"), "2 angles"),
        (noise(N, 2), noise(N, 1, 1), latent("z"), "not a table"),
        (noise(N, 2), np.full(N, np.inf), latent("z"), "not a table"),
        (noise(N, 2), noise(N), latent("z", "circular"), "no period"),
        (noise(2, 2), noise(2), latent("z"), "needs rows"),
    ],
)
def test_what_cannot_be_computed_is_refused_with_a_hint(view, features, target, task, message):
    with pytest.raises(EstimatorError, match=message) as caught:
        scores(view(features, z=target), task)
    assert caught.value.hint


def test_targets_of_other_rows_are_refused():
    class Longer(HeldLayer):
        def target(self, task, split):
            return np.append(super().target(task, split), 0.0)

    plain = HeldLayer.of(noise(N, 2), z=noise(N))
    longer = Longer(plain.rows, plain.targets, plain.splits, plain.members)
    with pytest.raises(EstimatorError, match="have shape"):
        scores(longer, latent("z"))


def test_a_metric_that_it_does_not_have_is_refused(view):
    task = Task("z", "memory", "latents", "r2", "maximise", encoding="raw")
    with pytest.raises(EstimatorError, match="cannot choose a cut"):
        scores(view(noise(N, 2), z=noise(N)), task)


def labels_of(rows: np.ndarray) -> np.ndarray:
    return (rows[:, :3] + noise(N, 3) > [0.0, 0.5, 1.0]).astype(np.int64)


def test_labels_have_the_mean_average_precision_of_scikit_learn(view):
    rows = noise(N, 8).astype(np.float32)
    labels = labels_of(rows)
    task = Task("marks", "memory", "multilabel", "mean-average-precision", "maximise")
    row = scores(view(rows, marks=labels), task)["marks", "mean-average-precision"]
    wide = rows.astype(np.float64)
    z = (wide - wide[:360].mean(0)) / wide[:360].std(0)
    alphas = 360 * np.array(row.settings["lambda"])
    predicted = SklearnRidge(alpha=alphas).fit(z[:360], labels[:360]).predict(z[480:])
    expected = average_precision_score(labels[480:], predicted, average="macro")
    assert row.test == pytest.approx(expected, rel=1e-9)
    areas = roc_auc_score(labels[480:], predicted, average="macro")
    assert scores(view(rows, marks=labels), task)["marks", "auroc"].test == pytest.approx(areas)
    assert row.primary
    assert 1 - row.losses.test.mean() == pytest.approx(row.test)
    assert 0.005 < row.stderr < 0.1


def test_a_label_that_no_test_row_has_is_left_out_of_the_mean_average_precision(view):
    rows = noise(N, 8)
    labels = labels_of(rows)
    labels[480:, 2] = 0
    task = Task("marks", "memory", "multilabel", "mse", "minimise")
    row = scores(view(rows, marks=labels), task)["marks", "mean-average-precision"]
    alone = scores(view(rows, marks=labels[:, :2]), task)["marks", "mean-average-precision"]
    assert math.isfinite(row.test)
    assert row.test == pytest.approx(alone.test, abs=0.02)
    assert row.settings["r2_by_target"][2] is None


def test_every_target_has_its_own_error_beside_the_mean(view):
    rows = noise(N, 3)
    target = np.stack((rows[:, 0], 0.1 * noise(N)), 1)
    row = scores(view(rows, z=target), latent("z"))
    settings = row["z", "mse"].settings
    assert np.mean(settings["mse_by_target"]) == pytest.approx(row["z", "mse"].test)
    assert np.mean(settings["r2_by_target"]) == pytest.approx(row["z", "r2"].test)
    assert settings["r2_by_target"] == pytest.approx([1.0, 0.0], abs=0.1)


# The λ of each latent and of each label.


def chosen(view, task: Task) -> dict[str, list]:
    found = scores(view, task)[task.name, task.metric].settings
    return {name: found[name] for name in ("lambda", "lambda_low", "lambda_high", "edge")}


def hard(latents: int, each: float = 8.0) -> tuple[np.ndarray, np.ndarray]:
    """Rows of falling eigenvalues, and latents that are ever harder to read from them."""
    rows = noise(N, 60) * np.arange(1, 61) ** -0.5 @ np.linalg.qr(noise(60, 60))[0]
    strength = each ** -np.arange(latents)
    return rows, rows @ noise(60, latents) * strength + 0.3 * noise(N, latents)


@pytest.mark.parametrize("metric", ["mse", "nmse", "mae"])
def test_every_latent_has_the_penalty_that_it_has_alone(view, metric):
    rows, target = hard(3)
    together = chosen(view(rows, z=target), latent("z").judged_by(metric))
    for i in range(3):
        alone = chosen(view(rows, z=target[:, i]), latent("z").judged_by(metric))
        assert {name: values[i] for name, values in together.items()} == alone
    assert len(set(together["lambda"])) > 1


@pytest.mark.parametrize("metric", ["mse", "nmse", "circular-error"])
def test_sine_and_cosine_of_one_angle_share_a_penalty(view, metric):
    rows, target = hard(2)
    task = latent("z", "circular", period=20.0).judged_by(metric)
    together = chosen(view(rows, z=target), task)
    assert [len(values) for values in together.values()] == [2] * 4
    for i in range(2):
        alone = chosen(view(rows, z=target[:, i]), task)
        assert {name: values[i] for name, values in together.items()} == alone


def test_a_rotation_is_one_latent_with_one_penalty(view):
    angles = RNG.uniform(-3, 3, (N, 3))
    for metric in ("mse", "nmse", "geodesic"):
        task = latent("z", "quaternion").judged_by(metric)
        assert isinstance(chosen(view(noise(N, 5), z=angles), task)["lambda"], float)


def test_the_penalty_of_each_metric_is_the_best_by_that_metric(view):
    rows, target = hard(1)
    data = view(rows, z=target)
    by = {it: latent("z").judged_by(it) for it in ("mse", "mae")}
    found = {it: scores(data, task) for it, task in by.items()}
    for metric in by:
        values = {it: found[it]["z", metric].val for it in by}
        assert values[metric] == min(values.values())


MARKS = Task("marks", "memory", "multilabel", "mean-average-precision", "maximise")


def marked(n: int, share: float, hopeless: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of falling eigenvalues, two labels that differ in where they lie, and labels of chance.

    The first is in the leading directions; the second is spread over all of them.
    """
    hidden = noise(n, 80)
    rows = hidden * np.arange(1, 81) ** -0.5 @ np.linalg.qr(noise(80, 80))[0]
    leading, spread = hidden[:, :4].sum(1), hidden.sum(1) / 3
    signal = np.stack((leading, spread), 1) + noise(n, 2)
    known = signal > np.quantile(signal, 1 - share, axis=0)
    return rows, np.concatenate((known, RNG.random((n, hopeless)) < share), 1).astype(np.int64)


@pytest.mark.parametrize("metric", ["mean-average-precision", "auroc", "mse"])
@pytest.mark.parametrize(("n", "share"), [(300, 0.3), (600, 0.1), (1500, 0.02)])
@pytest.mark.parametrize("hopeless", [1, 20])
def test_labels_that_nobody_can_learn_decide_nothing(view, metric, n, share, hopeless):
    rows, labels = marked(n, share, hopeless)
    task = MARKS.judged_by(metric)
    together = chosen(view(rows, marks=labels), task)
    for label in range(2):
        alone = chosen(view(rows, marks=labels[:, label]), task)
        assert {name: values[label] for name, values in together.items()} == alone


def test_the_penalty_of_a_label_is_the_best_by_its_own_precision(view):
    rows, labels = marked(1500, 0.1, 12)
    rows = rows.astype(np.float32)
    z = (rows - rows[:900].mean(0)) / rows[:900].std(0)
    val, test, on_val, on_test, squares = labels[900:1200], labels[1200:], {}, {}, {}
    for penalty in grid(*GRID).tolist():
        model = SklearnRidge(alpha=900 * penalty).fit(z[:900], labels[:900])
        predicted = model.predict(z[900:1200])
        on_val[penalty] = average_precision_score(val, predicted, average=None)[:2]
        on_test[penalty] = average_precision_score(test, model.predict(z[1200:]), average=None)[:2]
        squares[penalty] = np.square(predicted - val).mean()
    found = scores(view(rows, marks=labels), MARKS)["marks", MARKS.metric].settings["lambda"][:2]
    pooled = min(squares, key=squares.__getitem__)
    for label, penalty in enumerate(found):
        nearest = min(on_val, key=lambda it, penalty=penalty: abs(np.log(it / penalty)))
        best = max(values[label] for values in on_val.values())
        assert on_val[nearest][label] == pytest.approx(best, abs=1e-9)
    # One λ for all labels, by their pooled squared error, is that of the hopeless ones.
    assert on_test[pooled].mean() < np.mean([on_test[it][i] for i, it in enumerate(found)]) - 0.05


def test_of_penalties_that_order_a_label_alike_the_squared_error_decides(view):
    labels = (np.arange(N)[:, None] % 3 == 0).astype(np.int64)
    row = scores(view(labels + 0.01 * noise(N, 1), marks=labels), MARKS)
    assert row["marks", MARKS.metric].test == 1.0
    assert row["marks", "r2"].test > 0.99


def test_a_label_that_no_val_row_has_is_chosen_by_its_squared_error(view):
    rows, labels = marked(N, 0.3, 1)
    labels[360:480, 0] = 0
    by_precision, by_square = (
        chosen(view(rows, marks=labels), it) for it in (MARKS, MARKS.judged_by("mse"))
    )
    assert by_precision["lambda"][0] == by_square["lambda"][0]
