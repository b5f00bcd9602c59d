from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from layerscope.errors import LayerScopeError
from layerscope.results.store import Results, failed
from layerscope.types import Constant, Control, Interval, Losses
from layerscope.verdicts.comparison import comparisons, verdict, verdicts
from layerscope.verdicts.scorecard import MeasureScore, scorecard, sentences
from tests.report.planted import CUTS, folder, losses, measure, of_kind, probe

# The probe's own choice is layer3; every step away from it costs 5 points or more.
ACCURACY = dict(zip(CUTS, (0.40, 0.55, 0.70, 0.90, 0.80, 0.60, 0.45), strict=True))


def layers(accuracy=ACCURACY, **more):
    return [probe(cut, value, **more) for cut, value in accuracy.items()]


def score_of(path: Path, values: dict[str, float], scores=None, **more) -> MeasureScore:
    rows = [measure(cut, value, **more) for cut, value in values.items()]
    stored = folder(path, [*(scores or layers()), *rows])
    (found,) = scorecard(comparisons(stored), of_kind(stored, "measure"), resamples=2000)
    return found


def test_a_perfect_measure_ranks_as_the_probe_and_costs_nothing(tmp_path):
    found = score_of(tmp_path, {cut: 10 * value**2 for cut, value in ACCURACY.items()})
    assert (found.tau.estimate, found.rho.estimate) == (1.0, 1.0)
    # Steps of 5 points on 400 images with the same hard ones are told apart almost always.
    assert found.tau.low > 0.7
    assert (found.cut, found.best) == ("layer3", "layer3")
    assert found.regret == Interval(0.0, 0.0, 0.0)
    assert not found.costs


def test_a_measure_that_points_the_other_way_is_inverse_and_loses_exactly_what_it_loses(tmp_path):
    found = score_of(tmp_path, {cut: -value for cut, value in ACCURACY.items()})
    assert (found.tau.estimate, found.rho.estimate) == (-1.0, -1.0)
    assert found.cut == "stem"
    assert found.regret.estimate == pytest.approx(0.90 - 0.40)
    assert 0.40 < found.regret.low < 0.50 < found.regret.high < 0.60
    assert found.costs


def test_its_direction_turns_it(tmp_path):
    values = {cut: -value for cut, value in ACCURACY.items()}
    found = score_of(tmp_path, values, direction="minimise")
    assert found.tau.estimate == 1.0
    assert found.cut == "layer3"


def test_a_measure_that_knows_nothing_has_an_interval_around_nought(tmp_path):
    # By hand, of the 21 pairs 9 agree with the probe's order and 12 do not.
    order = dict(zip(CUTS, (3.0, 7.0, 1.0, 4.0, 5.0, 2.0, 6.0), strict=True))
    found = score_of(tmp_path, order, stderr=0.5)
    assert found.tau.estimate == pytest.approx(-3 / 21)
    assert found.tau.low < 0 < found.tau.high
    assert found.cut == "layer1"
    assert found.regret.estimate == pytest.approx(0.35)


def test_the_usual_cut_and_a_random_one_stand_beside_it(tmp_path):
    found = score_of(tmp_path, {cut: i for i, cut in enumerate(CUTS)})
    assert found.cut == "head.2"
    assert found.regret.estimate == pytest.approx(0.45)
    assert found.regret_usual.estimate == pytest.approx(0.10)
    mean = sum(ACCURACY.values()) / len(ACCURACY)
    assert found.regret_random.estimate == pytest.approx(0.90 - mean)
    assert found.regret_random.low < 0.90 - mean < found.regret_random.high


def test_regret_is_judged_on_test_and_the_probes_choice_on_validation(tmp_path):
    # Validation prefers layer3, on the test rows layer2 is better by 3 points.
    scores = [probe(c, v, {"layer3": 0.67}.get(c, v)) for c, v in ACCURACY.items()]
    values = dict.fromkeys(CUTS, 0.0) | {"layer2": 1.0}
    found = score_of(tmp_path, values, scores)
    assert (found.best, found.cut) == ("layer3", "layer2")
    assert found.regret.estimate == pytest.approx(-0.03)
    assert not found.costs


def test_regret_of_the_trunk_is_the_verdicts_gain(tmp_path):
    values = dict.fromkeys(CUTS, 0.0) | {"trunk": 1.0}
    found = score_of(tmp_path, values)
    (comparison,) = comparisons(Results(tmp_path))
    assert found.regret == found.regret_usual == verdict(comparison, resamples=2000).gain


def test_errors_lose_as_accuracies_do(tmp_path):
    turned = [
        replace(it, metric="error", direction="minimise", val=1 - it.val, test=1 - it.test)
        for it in layers()
    ]
    values = {cut: -value for cut, value in ACCURACY.items()}
    found = score_of(tmp_path, values, turned)
    assert found.metric == "error"
    assert (found.tau.estimate, found.regret.estimate) == (-1.0, pytest.approx(0.5))


def test_a_cut_that_lacks_the_measure_is_left_out_and_said(tmp_path):
    values = {cut: value for cut, value in ACCURACY.items() if cut != "layer3"}
    found = score_of(tmp_path, values)
    # What the measure cannot choose still counts against it.
    assert (found.cut, found.best, found.cuts) == ("trunk", "layer3", 6)
    assert found.regret.estimate == pytest.approx(0.10)
    assert found.note == "Left out, without the measure: layer3."


def test_fewer_than_four_cuts_have_no_interval_and_a_flat_measure_no_rank(tmp_path):
    three = score_of(tmp_path / "a", {cut: ACCURACY[cut] for cut in CUTS[:3]})
    assert three.tau.estimate == 1.0
    assert math.isnan(three.tau.low)
    assert "Fewer than 4 cuts" in three.note
    flat = score_of(tmp_path / "b", dict.fromkeys(CUTS, 5.0))
    assert math.isnan(flat.tau.estimate)
    assert "same at every cut" in flat.note
    assert flat.cut == "stem"


def test_measures_have_no_verdict_and_need_no_losses(tmp_path):
    rows = [measure(cut, 1.0, name="coding-rate", task="toy-kind") for cut in CUTS]
    lost = failed(measure("stem", 1.0), "no rows")
    unlabelled = [measure(cut, 1.0) for cut in CUTS[1:]]
    stored = folder(tmp_path, [*layers(), *rows, lost, *unlabelled])
    assert [it.estimator for it in verdicts(stored)] == ["logistic"]
    probes, measures = of_kind(stored, "probe"), of_kind(stored, "measure")
    assert {it.estimator for it in probes} == {"logistic"}
    assert len(measures) == 2 * len(CUTS)


def test_a_measure_of_another_task_or_cache_or_a_failed_one_does_not_count(tmp_path):
    good = measure("stem", 1.0)
    rows = [
        replace(good, task="toy-pose"),
        replace(good, fingerprint="sha256:old", estimator="old"),
        failed(replace(good, estimator="lost"), "no rows"),
        replace(good, control=Control("width", 4), estimator="narrow"),
        replace(good, primary=False, estimator="beside"),
    ]
    stored = folder(tmp_path, layers())
    assert scorecard(comparisons(stored), rows, resamples=100) == []
    (found,) = scorecard(comparisons(stored), [*rows, good], resamples=100)
    assert (found.measure, found.cuts) == ("rankme", 1)


def test_measures_of_views_stand_beside_and_those_of_the_images_come_first(tmp_path):
    of_views = [
        replace(
            measure(cut, value), source="toy.views2", views_of="toy", fingerprint="sha256:views"
        )
        for cut, value in ACCURACY.items()
    ]
    lidar = [replace(it, estimator="lidar", metric="lidar") for it in of_views]
    reversed_ = [replace(it, test=-it.test) for it in of_views]
    images = [measure(cut, value) for cut, value in ACCURACY.items()]
    stored = folder(tmp_path, layers())
    found = scorecard(comparisons(stored), [*reversed_, *lidar, *images], resamples=100)
    assert [(it.measure, round(it.tau.estimate)) for it in found] == [("rankme", 1), ("lidar", 1)]
    stranger = [replace(it, source="other.views2", views_of="other") for it in lidar]
    assert scorecard(comparisons(stored), stranger, resamples=100) == []


def test_a_verdict_on_views_says_so(tmp_path):
    of_views = [replace(score, source="toy.views2", views_of="toy") for score in layers()]
    (plain,) = verdicts(folder(tmp_path / "a", layers()))
    (found,) = verdicts(folder(tmp_path / "b", of_views))
    assert "augmented views: toy.views2" in found.note
    assert "views" not in plain.note


def test_where_the_probe_reads_nothing_its_order_says_nothing(tmp_path):
    values = dict(zip(CUTS, range(len(CUTS)), strict=True))
    stored = folder(tmp_path, [*layers(), *(measure(cut, v) for cut, v in values.items())])
    for chance, unread in ((0.3, False), (0.9, True)):
        constant = Constant({"top-1": chance}, Losses(losses(chance), losses(chance, 30)))
        stored.keep_constant("net", "toy", "toy-kind", constant, "sha256:net")
        measures = of_kind(stored, "measure")
        (found,) = scorecard(comparisons(stored), measures, resamples=200)
        assert ("the probe's order says nothing" in found.note) == unread


def test_labels_are_told_and_each_metric_is_a_line_of_its_own(tmp_path):
    rows = [measure(cut, v, name="coding-rate") for cut, v in ACCURACY.items()]
    rows += [replace(it, task="toy-kind", metric="delta-r") for it in rows]
    stored = folder(tmp_path, layers())
    found = scorecard(comparisons(stored), rows, resamples=100)
    assert [(it.measure_metric, it.labels) for it in found] == [
        ("rankme", False),
        ("delta-r", True),
    ]
    assert {it.convention for it in found} == {"paper"}


def test_one_sentence_for_each_measure(tmp_path):
    rows = [
        *[measure(cut, value) for cut, value in ACCURACY.items()],
        *[measure(cut, -value, name="nesum", metric="nesum") for cut, value in ACCURACY.items()],
    ]
    stored = folder(tmp_path, layers())
    found = scorecard(comparisons(stored), rows, resamples=500)
    good, bad = sentences(found, {"toy-kind": "Kind"})
    labelled = replace(found[0], labels=True)
    assert sentences([labelled], {})[0].startswith("rankme (with labels): ")
    other = replace(labelled, measure_metric="delta-r")
    assert sentences([other], {})[0].startswith("rankme (delta-r, with labels): ")
    assert good == (
        "rankme: Kendall's τ with the probe 1.00; cutting at its best is not shown to "
        "cost anything."
    )
    assert bad.startswith("nesum: Kendall's τ with the probe -1.00; cutting at its best ")
    assert "is shown to cost 0.5 top-1 [" in bad
    assert bad.endswith("(net, Kind: stem instead of layer3; a cut at random costs 0.271).")


def test_settings_of_checkpoints_come_back(tmp_path):
    stored = Results(tmp_path)
    assert stored.settings() == {}
    stored.keep_settings("runs/b 10", {"epoch": 10, "lr": 0.3, "method": "SimCLR"})
    stored.keep_settings("a", {})
    stored.keep_settings("a", {"epoch": 2})
    kept = Results(tmp_path).settings()
    assert list(kept) == ["a", "runs/b 10"]
    assert kept == {"a": {"epoch": 2}, "runs/b 10": {"epoch": 10, "lr": 0.3, "method": "SimCLR"}}
    assert isinstance(kept["a"]["epoch"], int)


@pytest.mark.parametrize("text", ["{", "[]", json.dumps({"checkpoint": "a", "settings": 3})])
def test_damaged_settings_are_a_sentence_and_a_hint(tmp_path, text):
    stored = Results(tmp_path)
    stored.keep_settings("a", {"epoch": 1})
    (path,) = tmp_path.glob("checkpoints/*.json")
    path.write_text(text)
    with pytest.raises(
        LayerScopeError, match="does not say what sets a checkpoint apart"
    ) as caught:
        stored.settings()
    assert caught.value.hint


def test_a_measure_is_current_where_its_cache_is(tmp_path):
    old = measure("stem", 1.0)
    stored = folder(tmp_path, [old])
    assert stored.current([old]) == [old]  # nothing newer is known
    stored = folder(tmp_path, layers())
    assert stored.current([old]) == [old]
    older = replace(old, fingerprint="sha256:old")
    assert stored.current([older]) == []
