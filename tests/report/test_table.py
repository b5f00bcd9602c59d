from __future__ import annotations

import csv
import json
from dataclasses import replace
from io import StringIO
from pathlib import Path

from layerscope.report import Report, table
from layerscope.report.section import find_all
from layerscope.report.sections.failures import failures
from layerscope.report.sections.verdicts import HEADER, NUMBERS, cells
from tests.report.conftest import evidence


def test_every_verdict_is_one_row_under_the_header(verdicts):
    rows = cells(verdicts)
    assert len(rows) == len(verdicts)
    assert {len(row) for row in rows} == {len(HEADER)}


def test_a_choice_that_the_test_split_rejects_is_marked(verdicts):
    row = cells([replace(verdicts[0], agrees=False)])[0]
    assert row[HEADER.index("best cut")] == f"{verdicts[0].best} (!)"


def test_scores_survive_csv(scores):
    rows = list(csv.DictReader(StringIO(table.scores_csv(scores))))
    assert len(rows) == len(scores)
    for row, score in zip(rows, scores, strict=True):
        assert float(row["test"]) == score.test
        assert (row["cut"], int(row["index"])) == (score.cut, score.index)
        assert json.loads(row["settings"]) == score.settings
        assert "losses" not in row


def test_a_failed_cell_has_empty_numbers_and_is_listed(scores, fail):
    rows = [fail(scores[0]), *scores[1:]]
    line = next(csv.DictReader(StringIO(table.scores_csv(rows))))
    assert (line["test"], line["stderr"], line["status"]) == ("", "", "failed")
    assert [f["note"] for f in failures(rows)] == ["singular"]


def test_no_scores_are_a_header_alone():
    assert table.scores_csv([]).splitlines()[0].startswith("checkpoint,source,cut,index")


def test_verdicts_in_csv_have_one_number_to_a_column(verdicts):
    row = next(csv.DictReader(StringIO(table.csv_text(verdicts))))
    first = verdicts[0]
    assert float(row["gain_low"]) == first.gain.low
    assert row["tied"].split() == list(first.tied)


def test_the_json_schema_is_stable(scores, verdicts):
    made = evidence(scores, verdicts)
    report = Report(Path("index.html"), made, find_all(made))
    document = json.loads(json.dumps(report.document(), allow_nan=False))
    assert set(document) == {"verdicts", "across", "scorecard", "series", "grids", "failed"}
    assert list(document["verdicts"][0]) == [
        "sentence",
        "checkpoint",
        "task",
        "estimator",
        "metric",
        "direction",
        "best",
        "value",
        "tied",
        "shallowest",
        "trunk",
        "gain",
        "gain_over_last",
        "resamples_won",
        "level",
        "n_test",
        "n_groups",
        "agrees",
        "note",
        "pooling",
        "tied_holm",
        "mcnemar",
        "train",
        "control",
        "trained",
        "training_noise",
        "reads",
        "constant",
        "over_constant",
        "equal_cuts",
    ]
    assert set(document["verdicts"][0]["gain"]) == {"estimate", "low", "high"}


def test_markdown_is_a_table_whose_cells_cannot_break_it(verdicts):
    text = table.markdown(HEADER, cells([replace(verdicts[0], checkpoint="a|b\nc")]), NUMBERS)
    header, rule, row = text.splitlines()
    assert header.count("|") == rule.count("|") == row.replace("\\|", "").count("|")
    assert "a\\|b c" in row
