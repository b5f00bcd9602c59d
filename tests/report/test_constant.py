"""What a report shows of constant answers, and of cuts that are equal."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import pytest

from layerscope.report import write_report
from layerscope.report.curve import curves
from layerscope.report.sections.verdicts import HEADER, cells
from layerscope.report.table import csv_text
from layerscope.types import Constant, Interval, Losses
from layerscope.verdicts.comparison import with_sentence
from tests.report.conftest import CHECKPOINTS, CUTS, SHAPES, figures
from tests.report.planted import TASK, folder, losses, probe
from tests.report.test_figures import cut_names, lines, panel, panels

CONSTANTS = {
    (checkpoint, "objects3d", task): Constant({"mse": 1.0, "nmse": 1.01, "top-1": 0.1})
    for checkpoint in CHECKPOINTS
    for task in SHAPES
}


def unread(verdict):
    gain = Interval(0.001, -0.02, 0.022)
    return replace(verdict, reads=False, constant=1.0, over_constant=gain)


def test_every_panel_has_a_line_at_what_a_constant_answer_is_worth(scores, verdicts):
    drawn = figures(scores, verdicts, constants=CONSTANTS)
    for axes in panels(drawn["depth-objects3d"]):
        (line,) = lines(axes, "constant")
        height = 0.1 if axes.get_title(loc="left") == "Category" else 1.0
        assert set(line.get_ydata()) == {height}
        low, high = axes.get_ylim()
        assert low < height < high
    for axes in panels(drawn["latents-objects3d"]):
        assert [line.get_ydata()[0] for line in lines(axes, "constant")] == [1.01]
    for name in ("depth-objects3d", "latents-objects3d"):
        (legend,) = drawn[name].legends
        assert "constant answer (chance)" in [it.get_text() for it in legend.get_texts()]


def test_without_constants_there_is_no_line_and_no_word_of_them(scores, verdicts):
    drawn = figures(scores, verdicts)
    for name in ("depth-objects3d", "latents-objects3d"):
        assert not [line for axes in panels(drawn[name]) for line in lines(axes, "constant")]
        (legend,) = drawn[name].legends
        assert "constant answer (chance)" not in [it.get_text() for it in legend.get_texts()]
    assert drawn["overview"].axes[-1].get_xlabel() == "share of the task's best cut (1 = best)"


def test_the_map_is_coloured_by_what_is_removed_of_a_constants_error(scores, verdicts):
    # One task is at the constant or above it everywhere, the others are as they were.
    dull = [
        replace(row, test=1.0 - 0.002 * (row.index == 3) + 0.05 * (row.index == 5))
        if row.task == "objects3d-spot-theta" and row.metric == "mse"
        else row
        for row in scores
    ]
    found = [unread(it) if it.task == "objects3d-spot-theta" else it for it in verdicts]
    figure = figures(dull, found, constants=CONSTANTS)["overview"]
    tasks = list(SHAPES)
    for axes, checkpoint in zip(panels(figure), CHECKPOINTS, strict=True):
        shares = np.asarray(axes.images[0].get_array())
        assert shares.min() >= 0
        assert shares[tasks.index("objects3d-spot-theta")].max() == pytest.approx(0.002)
        for task in ("objects3d-floor-hue", "objects3d-category"):
            worth = [r.test for r in dull if (r.checkpoint, r.task) == (checkpoint, task)][:13]
            classes = task == "objects3d-category"
            error, chance = (1 - np.array(worth), 0.9) if classes else (np.array(worth), 1.0)
            expected = np.clip(1 - error / chance, 0, None)
            np.testing.assert_allclose(shares[tasks.index(task)], expected)
        squares = [patch for patch in axes.patches if patch.get_gid() == "best"]
        assert len(squares) == len(tasks) - 1
    assert "no square: no cut is shown to read the task" in figure.get_suptitle()
    assert figure.axes[-1].get_xlabel().startswith("share of a constant answer's error")


def test_a_row_without_a_constant_has_no_colour_beside_rows_that_have_one(scores, verdicts):
    some = {key: it for key, it in CONSTANTS.items() if key[2] != "objects3d-rotation"}
    axes = panels(figures(scores, verdicts, constants=some)["overview"])[0]
    shares = np.asarray(axes.images[0].get_array().filled(np.nan))
    assert np.isnan(shares[0]).all()
    assert np.isfinite(shares[1:]).all()
    assert len(axes.texts) == len(SHAPES) * len(CUTS)


def test_no_mark_stands_at_the_cut_of_a_task_that_no_layer_reads(scores, verdicts):
    found = [unread(it) if it.task == "objects3d-floor-hue" else it for it in verdicts]
    figure = figures(scores, found, constants=CONSTANTS)["depth-objects3d"]
    for title, marks in (("Floor hue", 0), ("Rotation", len(CHECKPOINTS))):
        axes = panel(figure, title)
        assert len(lines(axes, "best")) == marks
        assert bool(lines(axes, "tied")) == bool(marks)


def test_the_cut_table_names_no_cut_where_nothing_is_read(verdicts):
    row = dict(zip(HEADER, cells([unread(verdicts[0])])[0], strict=True))
    assert (row["best cut"], row["tied cuts"], row["shallowest"]) == ("none", "", "")
    assert row["gain over a constant"] == "+0.001 [-0.020, 0.022]"
    assert dict(zip(HEADER, cells(verdicts)[0], strict=True))["gain over a constant"] == "–"


def test_csv_has_the_sentence_first_and_the_same_columns_for_all(verdicts):
    records = [with_sentence(it) for it in (verdicts[0], unread(verdicts[1]))]
    plain, other = csv.DictReader(StringIO(csv_text(records)))
    assert next(iter(other)) == "sentence"
    assert "no layer is shown to read this better than a constant" in other["sentence"]
    assert float(other["over_constant_low"]) == -0.02
    assert plain["over_constant_low"] == ""


def test_equal_cuts_are_one_column_and_one_point_with_both_names(scores, verdicts):
    known = [
        replace(row, content="same" if row.cut in ("layer4.1", "trunk") else row.cut)
        for row in scores
    ]
    merged = [replace(it, equal_cuts={"trunk": ("layer4.1",)}) for it in verdicts]
    (curve, *_) = curves(known)
    assert curve.cuts == tuple(cut for cut in CUTS if cut != "layer4.1")
    assert curve.trunk_end == curve.cuts.index("trunk")
    drawn = figures(known, merged)
    names = cut_names(drawn["depth-objects3d"])
    assert len(names) == len(CUTS) - 1
    assert names[curve.trunk_end] == "trunk (= layer4.1)"
    assert lines(panels(drawn["depth-objects3d"])[0], "trunk")[0].get_xdata()[0] == 8
    shares = np.asarray(panels(drawn["overview"])[0].images[0].get_array())
    assert shares.shape == (len(SHAPES), len(CUTS) - 1)
    row = dict(zip(HEADER, cells([replace(merged[0], best="trunk")])[0], strict=True))
    assert row["best cut"] == "trunk (= layer4.1)"


def test_page_json_and_csv_say_first_that_nothing_is_read(tmp_path: Path):
    flat = [probe(cut, 0.5, shift=i) for i, cut in enumerate(("stem", "layer2", "trunk"))]
    stored = folder(tmp_path / "results", flat)
    constant = Constant({"top-1": 0.5}, Losses(losses(0.5), losses(0.5, 50)))
    stored.keep_constant("net", "toy", TASK.name, constant, "sha256:net")
    report = write_report(tmp_path / "results", tmp_path / "report")
    said = "Kind: no layer is shown to read this better than a constant ("
    assert said in (tmp_path / "report" / "index.html").read_text()
    (record,) = json.loads((tmp_path / "report" / "verdicts.json").read_text())["verdicts"]
    assert record["sentence"].startswith(said)
    assert (record["reads"], record["constant"]) == (False, 0.5)
    assert set(record["over_constant"]) == {"estimate", "low", "high"}
    table = (tmp_path / "report" / "cut-table.csv").read_text()
    assert table.startswith("sentence,checkpoint,")
    assert [it.unread for it in report.verdicts] == [True]
    assert not report.evidence.marked
