from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from layerscope.errors import EstimatorError
from layerscope.report import table
from layerscope.report.sections import across
from layerscope.types import Interval, Losses, Score
from layerscope.verdicts.common_cut import CommonCut, common_cuts, find_common_cut, sentence
from layerscope.verdicts.comparison import Comparison, verdict
from tests.report.planted import score

N = 300
CUTS = ("stem", "layer1", "layer2", "trunk", "head.1")


def comparison(
    task: str,
    val: dict[str, float],
    test: dict[str, float] | None = None,
    *,
    estimator: str = "ridge",
    spread: float = 0.05,
    rows: str = "row",
    checkpoint: str = "net",
) -> Comparison:
    rng = np.random.default_rng(sum(map(ord, task)))
    scores, losses = [], []
    for index, cut in enumerate(CUTS):
        if cut not in val:
            continue
        scores.append(planted_score(checkpoint, task, estimator, cut, index))
        noise = [spread * rng.standard_normal(N) for _ in range(2)]
        means = (val[cut], (test or val)[cut])
        losses.append(Losses(*(m * (1 + e - e.mean()) for m, e in zip(means, noise, strict=True))))
    return Comparison(
        tuple(scores), tuple(losses), np.array([f"{rows}{i // 2}" for i in range(N)]), ""
    )


def planted_score(checkpoint: str, task: str, estimator: str, cut: str, index: int) -> Score:
    asked = {"checkpoint": checkpoint, "task": task, "estimator": estimator}
    return score(cut, index, 4, source="memory", n_val=N, n_test=N, n_groups=N // 2, **asked)


def curve(*values: float) -> dict[str, float]:
    return dict(zip(CUTS, values, strict=True))


# By hand, in units of an average cut's loss: hue .5, 0, .25, .5, 1; pose (in a smaller unit) .85,
# .85, 0, .25, 1.3. Means .675, .425, .125, .375, 1.15: layer2, which is best for pose alone.
HUE = {cut: value * 2 for cut, value in curve(1.05, 0.55, 0.8, 1.05, 1.55).items()}
POSE = {cut: value / 50 for cut, value in curve(1.2, 1.2, 0.35, 0.6, 1.65).items()}


def test_the_cut_has_the_least_mean_regret_in_units_of_an_average_cut():
    found = find_common_cut([comparison("hue", HUE), comparison("pose", POSE)])
    assert (found.checkpoint, found.cut, found.trunk) == ("net", "layer2", "trunk")
    hue, pose = found.tasks
    assert (hue.own, pose.own) == ("layer1", "layer2")
    assert hue.regret.estimate == pytest.approx(0.25)
    assert hue.gain.estimate == pytest.approx(0.25)
    assert pose.regret == Interval(0.0, 0.0, 0.0)
    assert pose.gain.estimate == pytest.approx(0.25)
    assert found.regret.estimate == pytest.approx(0.125)
    assert found.gain.estimate == pytest.approx(0.25)
    assert found.regret.low < 0.125 < found.regret.high
    assert found.gain.low > 0.2


def test_units_of_a_task_do_not_matter():
    plain = find_common_cut([comparison("hue", HUE), comparison("pose", POSE)])
    large = {cut: 1000 * value for cut, value in POSE.items()}
    scaled = find_common_cut([comparison("hue", HUE), comparison("pose", large)])
    assert scaled.cut == plain.cut
    assert scaled.regret.estimate == pytest.approx(plain.regret.estimate)
    assert scaled.regret.high == pytest.approx(plain.regret.high)


def test_a_task_with_itself_has_its_own_cut_and_no_regret():
    found = find_common_cut([comparison("hue", HUE), comparison("hue2", HUE)])
    assert found.cut == verdict(comparison("hue", HUE)).best == "layer1"
    assert found.regret == Interval(0.0, 0.0, 0.0)


def test_estimators_that_were_judged_by_another_metric_are_not_compared():
    pose, less = comparison("pose", POSE), {cut: value / 10 for cut, value in HUE.items()}
    ridge, other = comparison("hue", HUE), comparison("hue", less, estimator="mlp")
    assert find_common_cut([ridge, other, pose]).tasks[0].estimator == "mlp"
    by_another = replace(other, scores=tuple(replace(it, metric="mae") for it in other.scores))
    assert find_common_cut([ridge, by_another, pose]).tasks[0].estimator == "ridge"


def test_it_is_chosen_on_validation_and_judged_on_test():
    # On the test rows the cut of the choice is the worst of all; that must be said, not avoided.
    bad = {**POSE, "layer2": 0.05}
    found = find_common_cut([comparison("hue", HUE), comparison("pose", POSE, bad)])
    assert found.cut == "layer2"
    assert found.gain.estimate < 0
    assert "worse than trunk by" in sentence(found, {})


def test_of_equal_cuts_the_shallowest():
    flat = dict.fromkeys(CUTS, 1.0)
    assert find_common_cut([comparison(task, flat, spread=0.0) for task in "ab"]).cut == "stem"


def test_a_cut_that_a_task_lacks_is_left_out_and_said():
    lacking = {cut: value for cut, value in HUE.items() if cut != "layer2"}
    found = find_common_cut([comparison("hue", lacking), comparison("pose", POSE)])
    assert found.left_out == ("layer2",)
    assert found.cut == "trunk"
    # The task that has it still compares with it.
    assert found.tasks[1].own == "layer2"
    assert "left out, without a score in every task: layer2" in sentence(found, {})
    assert "it is the usual cut" in sentence(found, {})


def test_without_a_trunk_its_last_common_cut_stands_for_it():
    headed = {cut: value for cut, value in HUE.items() if cut != "trunk"}
    found = find_common_cut([comparison("hue", headed), comparison("pose", POSE)])
    assert found.trunk == "layer2"
    assert "'layer2' stands for it" in found.note


def test_of_several_estimators_the_better_one_counts_and_the_task_once():
    worse = comparison("pose", {c: 3 * v for c, v in POSE.items()}, estimator="mlp")
    both = find_common_cut([comparison("hue", HUE), worse, comparison("pose", POSE)])
    assert both == find_common_cut([comparison("hue", HUE), comparison("pose", POSE)])


def test_tasks_on_the_same_rows_share_their_resamples():
    # One task's losses mirror the other's: their errors cancel in the mean only if paired.
    first = comparison("a", HUE, spread=0.3)
    mirrored = tuple(
        Losses(loss.val, 2 * loss.test.mean() - loss.test) if i != 3 else loss
        for i, loss in enumerate(first.losses)
    )
    scores = tuple(replace(one, task="b") for one in first.scores)
    second = replace(first, scores=scores, losses=mirrored)
    elsewhere = replace(second, groups=np.array([f"other{i // 2}" for i in range(N)]))
    # The own best is `layer1` in both; compare the gain of the mean, whose trunk is not mirrored.
    paired, apart = (find_common_cut([first, other]) for other in (second, elsewhere))

    def width(found: CommonCut) -> float:
        return found.gain.high - found.gain.low

    assert width(paired) != pytest.approx(width(apart), rel=0.02)


def test_the_interval_covers_the_true_mean_regret():
    covered = 0
    for study in range(60):
        rng = np.random.default_rng(study)
        tasks = []
        for task, means in (("hue", HUE), ("pose", POSE)):
            plain = comparison(task, means)
            noisy = tuple(
                Losses(loss.val, means[row.cut] * (1 + 0.8 * rng.standard_normal(N)))
                for loss, row in zip(plain.losses, plain.scores, strict=True)
            )
            tasks.append(replace(plain, losses=noisy))
        found = find_common_cut(tasks, resamples=500, seed=study)
        covered += found.regret.low <= 0.125 <= found.regret.high
    assert covered / 60 >= 0.86


@pytest.mark.parametrize(
    ("comparisons", "message"),
    [
        ([comparison("hue", HUE)], "needs 2 tasks, and there are 1"),
        ([comparison("a", {"stem": 1.0}), comparison("b", {"trunk": 1.0})], "No cut has a score"),
        ([comparison("hue", HUE), comparison("b", dict.fromkeys(CUTS, 0.0))], "'b' is solved"),
    ],
)
def test_what_cannot_be_compared_is_refused(comparisons, message):
    with pytest.raises(EstimatorError, match=message) as caught:
        find_common_cut(comparisons)
    assert caught.value.hint


def test_every_checkpoint_has_its_own_and_a_reason_where_it_has_none():
    comparisons = [
        comparison("hue", HUE),
        comparison("pose", POSE),
        comparison("hue", HUE, checkpoint="single"),
        comparison("hue", {"stem": 1.0}, checkpoint="torn"),
        comparison("pose", {"trunk": 1.0}, checkpoint="torn"),
    ]
    found, reasons = common_cuts(comparisons)
    assert [one.checkpoint for one in found] == ["net"]
    assert len(reasons) == 1
    assert reasons[0].startswith("torn: no cut for all tasks. No cut has a score in every task.")


def test_the_table_has_a_row_for_each_task_and_one_for_the_mean():
    found = find_common_cut([comparison("hue", HUE), comparison("pose", POSE)])
    rows = across.cells([found])
    assert [row[1] for row in rows] == ["hue", "pose", "mean of 2"]
    assert {len(row) for row in rows} == {len(across.HEADER)}
    assert table.records([found])[0]["tasks"][0]["own"] == "layer1"
