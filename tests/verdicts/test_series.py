from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from layerscope.errors import EstimatorError
from layerscope.results.store import Results
from layerscope.types import Interval
from layerscope.verdicts.comparison import comparisons
from layerscope.verdicts.grid import Grid, grids
from layerscope.verdicts.grid import sentence as grid_sentence
from layerscope.verdicts.runs import training_runs
from layerscope.verdicts.series import Series, every_series, sentence, series
from tests.report.planted import folder, measure, of_kind, probe

EPOCHS = tuple(range(2, 21, 2))
SHOWN = ("stem", "layer1", "layer2", "trunk", "head.2")


def early(epoch: int) -> float:
    return 0.6 + 0.01 * epoch


def last(epoch: int) -> float:
    """Rises to epoch 10 and falls from there, two points an epoch."""
    return 0.5 + 0.02 * min(epoch, 10) - 0.02 * max(epoch - 10, 0)


def run_of(
    path: Path, accuracies: dict, measures=(), names="net_epoch_{:03d}", **settings
) -> Results:
    """A folder of snapshots, with the accuracy of each cut by epoch."""
    scores, known = [], {}
    for epoch in EPOCHS:
        name = names.format(epoch)
        known[name] = {"epoch": epoch, **settings}
        # Some rows differ from epoch to epoch, as they do where a network goes on training.
        scores += [
            probe(cut, accuracy(epoch), checkpoint=name, shift=epoch if accuracy is flat else 0)
            for cut, accuracy in accuracies.items()
        ]
        scores += [
            replace(make(epoch), checkpoint=name, fingerprint=f"sha256:{name}") for make in measures
        ]
    return folder(path, scores, known)


def flat(epoch: int) -> float:
    return 0.7


OVERFITS = {cut: early for cut in SHOWN[:-1]} | {"head.2": last}


def only(stored: Results) -> Series:
    measures = of_kind(stored, "measure")
    (found,), reasons = every_series(
        comparisons(stored), training_runs(stored.settings()), measures
    )
    assert reasons == []
    return found


def test_the_last_layer_over_fits_from_its_peak_on_and_the_early_one_does_not(tmp_path):
    found = only(run_of(tmp_path, OVERFITS))
    assert (found.run, found.axis, found.epochs) == ("net", "epoch", tuple(map(float, EPOCHS)))
    assert found.shown == ("layer1", "trunk", "head.2")
    head, layer = found.curve("head.2"), found.curve("layer1")
    assert head.peak == 10
    # The mean of epochs 8 to 12 minus that of 18 and 20.
    assert head.smoothed[4] == pytest.approx((0.66 + 0.70 + 0.66) / 3)
    assert head.smoothed[-1] == pytest.approx((0.54 + 0.50) / 2)
    assert head.fall.estimate == pytest.approx(head.smoothed[4] - head.smoothed[-1])
    assert 0.05 < head.fall.low < head.fall.estimate < head.fall.high < 0.25
    assert head.falls
    # What looks like noise is the kink at the peak, in one of five pseudo-residuals of the stretch.
    explained = 0.08**2 / 6 / 5 - head.noise**2
    assert 0 < explained < 0.02**2
    # A straight line has none.
    assert layer.noise == 0
    assert head.test == pytest.approx([last(epoch) for epoch in EPOCHS])
    # The early layer is best at the end, where there is nothing that it could have lost.
    assert (layer.peak, layer.fall, layer.falls) == (20, Interval(0.0, 0.0, 0.0), False)
    assert found.contrast.estimate == pytest.approx(head.fall.estimate)
    assert found.contrast.low > 0.05
    assert found.plateau[0] <= 10 <= found.plateau[1] < 20
    text = sentence(found, {"toy-kind": "Kind"})
    assert text.startswith("net, Kind: head.2 over-fits after epoch 10 (its best by validation")
    assert "layer1 is at its best at the end, at epoch 20" in text
    assert "head.2 loses 0.153 more than layer1 [" in text


def test_a_flat_run_cannot_be_told(tmp_path):
    found = only(run_of(tmp_path, dict.fromkeys(SHOWN, flat)))
    for curve in found.curves:
        assert not curve.falls
        assert curve.fall.low <= 0 <= curve.fall.high
    # Of equal epochs the first is the peak, and all of them are tied with it.
    assert found.curve("head.2").peak == 2
    assert found.plateau == (2.0, 20.0)
    text = sentence(found, {})
    assert "of head.2 it cannot be told whether it falls after epoch 2" in text
    assert "the two are not told apart" in text


def test_the_peak_is_validations_and_the_fall_the_test_rows(tmp_path):
    stored = run_of(tmp_path, OVERFITS)
    # Validation prefers epochs 2 to 8, at which the test rows are worse than at the end.
    rows = [
        probe(
            "head.2",
            0.9 if epoch < 9 else 0.5,
            0.3 if epoch < 9 else 0.6,
            checkpoint=f"net_epoch_{epoch:03d}",
        )
        for epoch in EPOCHS
    ]
    stored.append(rows)
    found = only(stored)
    curve = found.curve("head.2")
    assert (curve.peak, curve.falls) == (2, False)
    assert curve.fall.estimate == pytest.approx(-0.3)
    assert "head.2 is better at the end than at epoch 2, which validation preferred: by 0.3" in (
        sentence(found, {})
    )


def test_one_lucky_snapshot_is_no_over_fitting(tmp_path):
    def lucky(epoch):
        return 0.75 if epoch == 8 else 0.7

    found = only(run_of(tmp_path, dict.fromkeys(SHOWN, lucky)))
    head = found.curve("head.2")
    assert head.test[3] - head.test[-1] == pytest.approx(0.05)
    assert not head.falls


def test_too_few_snapshots_do_not_tell_their_noise(tmp_path):
    stored = run_of(tmp_path, OVERFITS)
    (run,) = training_runs(stored.settings())
    few = series(run, [6.0, 10.0, 16.0, 20.0], [comparisons(stored)[i] for i in (2, 4, 7, 9)])
    head = few.curve("head.2")
    assert (head.peak, head.falls) == (10, False)
    assert head.fall.estimate == pytest.approx(0.20)
    assert math.isnan(head.fall.low)
    assert math.isnan(head.noise)
    assert few.plateau == (6, 20)
    text = sentence(few, {})
    assert "of head.2 it cannot be told whether it falls after epoch 10: 4 snapshots do not" in text
    assert "the two are not told apart" in text


def test_both_over_fitting_alike_is_no_contrast(tmp_path):
    found = only(run_of(tmp_path, dict.fromkeys(SHOWN, last)))
    assert found.curve("layer1").falls
    assert found.curve("head.2").falls
    assert found.contrast.low <= 0 <= found.contrast.high
    assert found.contrast.estimate == pytest.approx(0.0)


def test_a_measure_that_falls_with_accuracy_follows_it_and_another_does_not(tmp_path):
    measures = (
        lambda epoch: measure("head.2", 10 * last(epoch), name="coding-rate", metric="delta-r"),
        lambda epoch: measure("head.2", epoch, name="rankme"),
        lambda epoch: measure("layer1", -early(epoch), direction="minimise", name="rankme"),
    )
    found = only(run_of(tmp_path, OVERFITS, measures))
    by_name = {(it.cut, it.measure): it for it in found.measures}
    follows, against = by_name["head.2", "coding-rate"], by_name["head.2", "rankme"]
    assert follows.values == pytest.approx([10 * last(epoch) for epoch in EPOCHS])
    assert follows.tau_from_peak.estimate == 1.0
    assert follows.tau_from_peak.low > 0.5
    # It rises with the epoch while accuracy falls from the peak on.
    assert against.tau_from_peak.estimate == -1.0
    # The measure of another cut has none here.
    assert math.isnan(by_name["layer1", "coding-rate"].tau.estimate)


def test_snapshots_without_the_same_test_rows_are_refused_with_a_reason(tmp_path):
    stored = run_of(tmp_path, OVERFITS)
    others = np.array([f"other{i}" for i in range(400)])
    stored.keep_groups("net_epoch_020", "toy", "toy-kind", others, "sha256:net_epoch_020")
    found, reasons = every_series(comparisons(stored), training_runs(stored.settings()))
    assert found == []
    assert reasons == [
        "net: no series. The snapshots of 'net' have different test rows for 'toy-kind', so that "
        "they cannot be compared row by row. Extract all snapshots from the same source, and "
        "probe them again."
    ]


def test_a_cut_that_some_snapshot_lacks_is_left_out_and_said(tmp_path):
    stored = run_of(tmp_path, OVERFITS)
    stored.append([probe("head.1", 0.5, checkpoint="net_epoch_002")])
    found = only(stored)
    assert found.last == "head.2"
    assert found.note == "Left out, not in every snapshot: head.1."


def test_one_snapshot_is_no_series(tmp_path):
    stored = run_of(tmp_path, OVERFITS)
    (run,) = training_runs(stored.settings())
    with pytest.raises(EstimatorError, match="needs 2 snapshots, and 'net' has 1"):
        series(run, [2.0], comparisons(stored)[:1])


def test_checkpoints_that_differ_in_the_epoch_alone_are_one_run():
    settings = {f"x{i}": {"epoch": i, "lr": lr} for i, lr in ((3, 0.1), (1, 0.1), (2, 0.3))}
    found = {run.name: run for run in training_runs(settings)}
    assert set(found) == {"lr 0.1", "lr 0.3"}
    assert found["lr 0.1"].snapshots == ((1.0, "x1"), (3.0, "x3"))
    assert found["lr 0.1"].settings == {"lr": 0.1}
    assert found["lr 0.1"].last == "x3"


def test_names_tell_runs_apart_where_settings_do_not():
    names = [f"{method}/epoch_{epoch:03d}" for method in ("simclr", "vicreg") for epoch in (1, 10)]
    found = training_runs({name: {"epoch": int(name[-3:])} for name in names})
    assert [(run.name, len(run.snapshots)) for run in found] == [("simclr", 2), ("vicreg", 2)]


def test_what_nothing_tells_apart_is_no_run_of_several():
    found = training_runs({"a": {"epoch": 1}, "b": {"epoch": 1}, "c": {}})
    assert sorted((run.name, len(run.snapshots)) for run in found) == [("a", 1), ("b", 1)]
    plain = training_runs({"a": {"lr": 0.1}, "b": {"lr": 0.1}})
    assert [len(run.snapshots) for run in plain] == [1, 1]
    assert training_runs({}) == []


def grid_of(path: Path, trunk: list[float], head: list[float | None], epoch=None) -> Results:
    scores, known = [], {}
    for i, (a, b) in enumerate(zip(trunk, head, strict=True)):
        name = f"run{i}"
        known[name] = {"lr": 0.1 * (i + 1)} | ({} if epoch is None else {"epoch": epoch})
        scores.append(probe("trunk", a, checkpoint=name))
        if b is not None:
            scores += [probe("head.1", 0.1, checkpoint=name), probe("head.2", b, checkpoint=name)]
    return folder(path, scores, known)


def grid(stored: Results) -> Grid:
    (found,) = grids(comparisons(stored), training_runs(stored.settings()))
    return found


# Exact hundredths of 400 rows.
STABLE = [0.70, 0.71, 0.69, 0.72, 0.705, 0.695, 0.715, 0.685]
SHAKEN = [0.10, 0.60, 0.40, 0.30, 0.50, 0.55, 0.20, 0.35]


def test_a_stable_trunk_and_a_head_that_is_anything(tmp_path):
    found = grid(grid_of(tmp_path, STABLE, SHAKEN))
    assert [point.at_trunk for point in found.points] == pytest.approx(STABLE)
    assert [point.at_head for point in found.points] == pytest.approx(SHAKEN)
    assert found.points[0].head == "head.2"
    assert found.tau.low < 0 < found.tau.high
    assert found.p_value > 0.3
    assert found.spread.estimate == pytest.approx(np.std(SHAKEN) / np.std(STABLE))
    assert found.spread.low > 4
    text = grid_sentence(found, {"toy-kind": "Kind"})
    assert text.startswith("Kind, logistic: over 8 runs Kendall's τ of trunk and head is ")


def test_a_head_that_follows_the_trunk_has_its_order_and_no_interval_of_no_width(tmp_path):
    found = grid(grid_of(tmp_path, STABLE, [value - 0.2 for value in STABLE]))
    assert (found.tau.estimate, found.rho.estimate) == (1.0, 1.0)
    assert math.isnan(found.tau.low)
    assert found.p_value == pytest.approx(1 / 10_001)
    assert found.spread.estimate == pytest.approx(1.0)
    assert "1.00 (no interval); p = 0.0001" in grid_sentence(found, {})


def test_runs_without_a_head_are_left_out_and_too_few_make_no_grid(tmp_path):
    found = grid(grid_of(tmp_path / "a", STABLE[:5], [*SHAKEN[:4], None]))
    assert len(found.points) == 4
    assert found.note == "Left out, without a head: lr 0.5."
    few = grid_of(tmp_path / "b", STABLE[:2], SHAKEN[:2])
    assert grids(comparisons(few), training_runs(few.settings())) == []


def test_a_run_counts_once_with_its_last_snapshot(tmp_path):
    stored = grid_of(tmp_path, STABLE[:4], SHAKEN[:4], epoch=10)
    earlier = [probe(cut, 0.2, checkpoint="run0-early") for cut in ("trunk", "head.2")]
    folder(tmp_path, earlier, {"run0-early": {"epoch": 5, "lr": 0.1}})
    assert [point.checkpoint for point in grid(stored).points] == ["run0", "run1", "run2", "run3"]
