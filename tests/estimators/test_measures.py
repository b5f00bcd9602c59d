"""What holds for every measure: what it declares, what it refuses, and what it makes of a truth."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from layerscope.errors import EstimatorError, SettingsError
from layerscope.estimators import estimators
from layerscope.estimators.naming import make
from layerscope.stats.partitioned_rate import partitioned_rates
from layerscope.testing import HeldLayer, check_estimator
from layerscope.types import UNLABELLED, CutPoint, Measure, Task

TASK = Task("y", "memory", "classes", "top-1", "maximise")
NAMES = (
    "coding-rate",
    "rankme",
    "effective-rank",
    "stable-rank",
    "nesum",
    "alpha-req(first=0, last=9)",
    "lidar",
    "matrix-entropy",
    "alignment",
    "uniformity",
    "twonn",
    "mle-dimension",
    "class-separation",
    "neural-collapse",
    "fisher",
)
SETTINGS = (
    "coding-rate(normalisation='frobenius')",
    "coding-rate(normalisation='none')",
    "coding-rate(partition='instances')",
    "coding-rate(partition='pairs')",
    "coding-rate(width=4)",
    "matrix-entropy(order=2)",
)
BOTH = [(name, task) for name in (*NAMES, *SETTINGS) for task in (UNLABELLED, TASK)]
CASES = [(name, task) for name, task in BOTH if make(name, 0).handles(task)]
IMAGES, Q, WIDTH = 200, 2, 12


def layer() -> HeldLayer:
    """Images of three classes, an offset, unequal lengths, and twelve unequal directions."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, IMAGES)
    images = rng.standard_normal((IMAGES, WIDTH)) * np.linspace(2, 0.4, WIDTH) + 0.7
    images += 2 * rng.standard_normal((3, WIDTH))[labels]
    rows = np.repeat(images, Q, axis=0) + 0.3 * rng.standard_normal((IMAGES * Q, WIDTH))
    return HeldLayer.of(rows, Q, augmented=True, y=np.repeat(labels, Q))


def scores(name: str, view, task: Task = UNLABELLED, seed: int = 0):
    measure = make(name, seed)
    return {score.metric: score for score in measure.score(view, [task])}


def headline(name: str, view, task: Task) -> float:
    found = scores(name, view, task)[make(name, 0).definition(task).metric]
    assert found.primary
    return found.test


@pytest.mark.parametrize("name", [*NAMES, *SETTINGS])
def test_it_is_what_its_definition_says(name: str):
    assert check_estimator(name) == []


@pytest.mark.parametrize(("name", "task"), CASES, ids=lambda it: getattr(it, "name", it))
def test_it_has_a_standard_error(name: str, task: Task):
    assert all(it.stderr > 0 or it.metric == "nc4" for it in scores(name, layer(), task).values())


def test_every_name_on_the_command_line_is_a_measure():
    plain = {name.partition("(")[0] for name in NAMES}
    registered = {name for name, maker in estimators.items() if isinstance(maker(0), Measure)}
    assert registered == plain


@pytest.mark.parametrize(
    ("name", "task"),
    [case for case in CASES if case[0] in NAMES or "pairs" in case[0] or "frob" in case[0]],
    ids=lambda it: getattr(it, "name", it),
)
def test_standard_errors_are_near_the_spread_of_samples(name: str, task: Task):
    rng = np.random.default_rng(5)
    values, errors = [], []
    centres = 2 * rng.standard_normal((3, 6))
    for _ in range(25):
        labels = rng.integers(0, 3, 300)
        images = rng.standard_normal((300, 6)) * np.linspace(2, 0.4, 6) + 0.7 + centres[labels]
        rows = np.repeat(images, Q, axis=0) + 0.3 * rng.standard_normal((600, 6))
        view = HeldLayer.of(rows, Q, augmented=True, y=np.repeat(labels, Q))
        given = name.replace("last=9", "last=5")
        score = next(it for it in scores(given, view, task).values() if it.primary)
        values.append(score.test)
        errors.append(score.stderr)
    assert 0.6 < np.mean(errors) / np.std(values) < 1.7


# Planted truths.


def in_memory(rows: np.ndarray, labels: np.ndarray | None = None) -> HeldLayer:
    return HeldLayer.of(rows, **({} if labels is None else {"y": labels}))


@pytest.mark.parametrize("rank", [1, 4, 9])
def test_a_planted_rank_is_found(rank: int):
    rng = np.random.default_rng(0)
    turn = np.linalg.qr(rng.standard_normal((30, rank)))[0]
    view = in_memory(rng.standard_normal((4000, rank)) @ turn.T)
    for name in ("rankme", "effective-rank", "stable-rank", "nesum"):
        assert headline(name, view, UNLABELLED) == pytest.approx(rank, rel=0.15)


@pytest.mark.parametrize("dimension", [1, 3])
def test_a_planted_dimension_is_found(dimension: int):
    rng = np.random.default_rng(0)
    turn = rng.standard_normal((dimension, 25))
    view = in_memory(np.tanh(rng.uniform(-0.3, 0.3, (6000, dimension)) @ turn) + 4)
    for name in ("twonn", "mle-dimension"):
        found = next(it for it in scores(name, view).values() if it.primary)
        assert found.test == pytest.approx(dimension, rel=0.12)
        assert found.settings["plateau"] == pytest.approx(dimension, rel=0.12)
        assert [rows for rows, _ in found.settings["curve"]] == [1200, 600, 300, 150]


def test_a_collapsed_layer_is_told_from_one_that_is_not():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 1000)
    corners = np.eye(4)[labels]
    collapsed = in_memory(corners + 0.01 * rng.standard_normal((1000, 4)), labels)
    spread = in_memory(corners + 0.5 * rng.standard_normal((1000, 4)), labels)
    for name, better in (
        ("neural-collapse", min),
        ("class-separation", max),
        ("fisher", max),
        ("coding-rate", max),
    ):
        values = [headline(name, view, TASK) for view in (collapsed, spread)]
        assert better(values) == values[0]
    row = scores("neural-collapse", collapsed, TASK)
    assert row["nc1"].test < 1e-3
    assert row["nc3"].test < 0.05
    assert row["nc4"].test == 0
    assert row["nc1"].settings["train"]["nc1"] < 1e-3


def test_a_head_that_nulls_the_directions_of_one_task_loses_that_task_alone():
    rng = np.random.default_rng(0)
    kept, lost = rng.integers(0, 3, 1500), rng.integers(0, 3, 1500)
    trunk = 0.3 * rng.standard_normal((1500, 8))
    trunk[:, :3] += np.eye(3)[kept]
    trunk[:, 3:6] += np.eye(3)[lost]
    head = trunk.copy()
    head[:, 3:6] = 0.0
    other = replace(TASK, name="lost")
    for name in ("coding-rate", "class-separation", "fisher"):
        before, after = (
            {
                task.name: headline(name, HeldLayer.of(rows, **targets), task)
                for task in (TASK, other)
            }
            for rows in (trunk, head)
            for targets in [{"y": kept, "lost": lost}]
        )
        assert after["lost"] < 0.2 * before["lost"]
        assert after["y"] > 0.9 * before["y"]


# Coding rates.


def test_the_reduction_is_that_of_the_rows_of_the_split():
    view = layer()
    labels = torch.from_numpy(view.target("y", "test"))
    rates = partitioned_rates(torch.from_numpy(view.features("test")), labels, 0.5).whole
    row = scores("coding-rate", view, TASK)
    assert row["coding-rate-reduction"].test == pytest.approx(rates.reduction, rel=1e-9)
    assert row["reduction-share"].test == pytest.approx(rates.reduction / rates.rate, rel=1e-9)
    assert row["rate-per-dimension"].test == pytest.approx(rates.rate / WIDTH, rel=1e-9)
    assert 0 < row["bound-share"].test < row["reduction-share"].test < 1


def test_pairs_are_instances_of_two_views():
    view = layer()
    pairs, instances = (
        scores(f"coding-rate(partition='{name}')", view) for name in ("pairs", "instances")
    )
    for metric, score in pairs.items():
        assert score.test == pytest.approx(instances[metric].test, rel=1e-6)
        assert score.stderr == pytest.approx(instances[metric].stderr, rel=1e-4)


def test_cuts_have_the_width_of_the_narrowest_under_one_projection():
    view = layer()
    cuts = [replace(view.cut, width=width) for width in (5, WIDTH)]
    among = make("coding-rate", 0).among(cuts)
    (_, wide, *_) = found = list(among.score(view, [TASK]))
    assert wide.settings["projected_to"] == 5
    narrow = replace(view, rows=view.rows[:, :5])
    same = {it.metric: it.test for it in among.score(narrow, [TASK])}
    own = scores("coding-rate(width='own')", narrow, TASK)
    assert {metric: own[metric].test for metric in same} == same
    other = {it.metric: it.test for it in among.with_seed(1).score(view, [TASK])}
    assert other != {it.metric: it.test for it in found}
    assert make("coding-rate(width='own')", 0).with_seed(1).seed == 0
    assert make("coding-rate(width=7)", 0).among(cuts).width == 7


def test_a_projection_keeps_the_mean_squared_length():
    rng = np.random.default_rng(0)
    view = in_memory(rng.standard_normal((5000, 200)))
    name = "coding-rate(normalisation='none', width=40, eps_sq=1.0)"
    # Forty directions that share the two hundred's variance, d/ε² times which is beside the 1.
    expected = 20 * math.log1p(40 * 200 / 40)
    assert headline(name, view, UNLABELLED) == pytest.approx(expected, rel=0.02)


def test_a_window_is_common_to_all_cuts():
    view = layer()
    cuts = [CutPoint(0, "a", "a", "trunk", 9, "mean", 0.0), view.cut]
    among = make("alpha-req(first=2, last=99)", 0).among(cuts)
    score, _ = among.score(view, [UNLABELLED])
    assert (score.settings["first"], score.settings["last"]) == (2, 8)
    alpha = scores("alpha-req(first=2, last=8)", view)
    assert score.test == alpha["alpha-distance"].test == abs(alpha["alpha"].test - 1)


# What cannot be computed, and what is right although it looks odd.


@pytest.mark.parametrize(
    "name", [it for it in NAMES if it not in ("lidar", "alignment")] + list(SETTINGS[:2])
)
def test_few_rows_of_many_features_are_a_number_or_refused(name: str):
    rng = np.random.default_rng(0)
    view = in_memory(rng.standard_normal((60, 90)), rng.integers(0, 2, 60))
    task = TASK if make(name, 0).handles(TASK) else UNLABELLED
    if name == "mle-dimension":
        with pytest.raises(EstimatorError, match="20 neighbours need 21 rows"):
            scores(name, view, task)
    else:
        assert all(math.isfinite(score.test) for score in scores(name, view, task).values())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rankme", 1.0),
        ("stable-rank", 1.0),
        ("matrix-entropy", 0.0),
        ("uniformity", 0.0),
        ("coding-rate", 0.5 * math.log1p(4 / 0.5)),
        ("effective-rank", "alike"),
        ("nesum", "alike"),
        ("alpha-req", "alike"),
        ("twonn", "different rows"),
        ("mle-dimension", "different rows"),
        ("class-separation", "one direction"),
        ("neural-collapse", "are the same"),
        ("fisher", "varies within"),
    ],
)
def test_constant_features_have_one_direction_or_none(name: str, value: float | str):
    view = in_memory(np.full((200, 4), 0.1), np.arange(200) % 2)
    task = UNLABELLED if make(name, 0).handles(UNLABELLED) else TASK
    if isinstance(value, str):
        with pytest.raises(EstimatorError, match=value):
            scores(name, view, task)
    else:
        assert headline(name, view, task) == pytest.approx(value, abs=1e-4)


def test_rows_of_zeros_have_no_rank_and_no_rate():
    view = in_memory(np.zeros((100, 4)), np.arange(100) % 2)
    assert headline("coding-rate", view, TASK) == headline("coding-rate", view, UNLABELLED) == 0
    for name in ("rankme", "stable-rank", "matrix-entropy"):
        with pytest.raises(EstimatorError, match="all zero"):
            scores(name, view)


def test_classes_of_one_row_are_a_rate_and_no_geometry():
    rng = np.random.default_rng(0)
    view = in_memory(rng.standard_normal((100, 4)), np.arange(100))
    row = scores("coding-rate", view, TASK)
    assert row["conditional-coding-rate"].test == pytest.approx(0.5 * math.log1p(4 / 0.5))
    for name, reason in (("neural-collapse", "one row"), ("fisher", "varies within")):
        with pytest.raises(EstimatorError, match=reason):
            scores(name, view, TASK)


def test_float16_features_lose_nothing_that_counts():
    view = layer()
    stored = replace(view, rows=view.rows.astype(np.float16).astype(np.float32))
    for name, task in CASES:
        assert headline(name, stored, task) == pytest.approx(headline(name, view, task), rel=0.02)


def test_features_that_are_not_finite_are_refused():
    rows = np.ones((100, 4), np.float32)
    rows[95, 2] = np.inf
    with pytest.raises(EstimatorError, match="1 features of 'stem' are not finite in test"):
        scores("rankme", in_memory(rows))


@pytest.mark.parametrize(
    "name", ["lidar", "alignment", "coding-rate(partition='instances')", SETTINGS[3]]
)
def test_what_compares_views_says_that_there_are_none(name: str):
    with pytest.raises(EstimatorError, match="one row to each") as caught:
        scores(name, in_memory(np.eye(100)))
    assert "--views 2" in caught.value.hint


def test_pairs_want_two_views_of_each_image():
    view = HeldLayer.of(layer().rows, 4, augmented=True)
    with pytest.raises(EstimatorError, match="2 views of each image, and some have 4"):
        scores("coding-rate(partition='pairs')", view)


@pytest.mark.parametrize("eps_sq", [0.0, -1.0])
def test_a_distortion_of_nought_is_refused(eps_sq: float):
    with pytest.raises(EstimatorError, match="not positive"):
        scores(f"coding-rate(eps_sq={eps_sq})", layer(), TASK)


def test_a_cut_that_is_narrower_than_the_width_is_refused():
    with pytest.raises(EstimatorError, match="'stem' has 12 features, fewer than the width of 99"):
        scores("coding-rate(width=99)", layer())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("coding-rate(normalisation='cube')", "'cube' is no way"),
        ("coding-rate(partition='thirds')", "'thirds' is no way"),
        ("coding-rate(width=0)", "width of 0"),
        ("coding-rate(epsilon=1)", "has no setting 'epsilon'"),
        ("logistic(C=1)", "has no setting 'C'"),
        ("lidar(delta=0)", "δ of 0"),
        ("lidar(delta='much')", "wrong kind"),
        ("mle-dimension(k=1)", "from 1 neighbours"),
        ("cka", "compares layers with each other"),
    ],
)
def test_settings_that_are_wrong_are_refused(name: str, message: str):
    with pytest.raises(SettingsError, match=message):
        make(name, 0)


def test_an_entropy_wants_an_order():
    with pytest.raises(EstimatorError, match="order 0 is not defined"):
        scores("matrix-entropy(order=0)", layer())
    with pytest.raises(EstimatorError, match="whatever they are"):
        scores("matrix-entropy", in_memory(np.ones((50, 1))))


def test_measures_of_one_spectrum_read_the_layer_once():
    view, reads = layer(), []

    class Counted(HeldLayer):
        def features(self, split):
            reads.append(split)
            return super().features(split)

    counted = Counted(**{f.name: getattr(view, f.name) for f in dataclasses.fields(view)})
    for name in ("rankme", "effective-rank", "stable-rank", "nesum", "matrix-entropy"):
        scores(name, counted)
    assert sorted(reads) == ["test", "val"]
    assert scores("rankme", view)["rankme"] == scores("rankme", layer())["rankme"]
