"""The table of scores keeps facts as fields, and reads tables from before it did."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from layerscope.errors import LayerScopeError
from layerscope.results import Results
from layerscope.types import Control, Draw
from tests.report.planted import measure, probe


def rewritten(path, change):
    """Write the table's rows anew, each without the columns of facts and changed."""
    lines = path.read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    for row in rows:
        for column in ("kind", "trained", "views_of", "baseline", "baseline_of"):
            del row[column]
        change(row)
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")


@pytest.mark.parametrize(
    "facts",
    [
        {},
        {"draw": Draw(share=0.025)},
        {"draw": Draw(each=5), "control": Control("pca", 4), "seed": 3},
        {"folds": 5, "control": Control("shuffled")},
        {"trained": False},
        {"trained": False, "baseline": "random", "baseline_of": "net"},
        {"source": "toy.views4", "views_of": "toy"},
    ],
)
def test_facts_are_read_back_as_they_were_kept(tmp_path, facts):
    kept = replace(probe("trunk", 0.5), losses=None, **facts)
    Results(tmp_path).append([kept])
    assert Results(tmp_path).scores() == [kept]


def test_names_decide_nothing(tmp_path):
    kept = [
        replace(probe("trunk", 0.5), losses=None, checkpoint="trained-at-random"),
        replace(probe("trunk", 0.5), losses=None, checkpoint="net-random", source="my.views"),
        replace(probe("stem", 0.5), losses=None, checkpoint="plain", trained=False),
        replace(probe("stem", 0.5), losses=None, settings={"convention": "of my own"}),
    ]
    Results(tmp_path).append(kept)
    found = Results(tmp_path).scores()
    assert [it.trained for it in found] == [True, True, False, True]
    assert [it.views_of for it in found] == [""] * 4
    assert {it.kind for it in found} == {"probe"}


def test_a_table_from_before_is_read_with_the_facts_that_its_names_told(tmp_path):
    folds = replace(probe("trunk", 0.5), losses=None, folds=5)
    Results(tmp_path).append([folds, measure("stem", 3.0), replace(folds, cut="stem")])

    def change(row):
        if row["cut"] == "stem" and row["estimator"] == "logistic":
            row["checkpoint"] = "net-random"
            row["source"] = "toy.views2"

    rewritten(tmp_path / "scores.jsonl", change)
    first, second, third = Results(tmp_path).scores()
    assert (first.folds, first.draw, first.kind, first.trained) == (5, Draw(), "probe", True)
    assert second.kind == "measure"
    assert (third.trained, third.views_of) == (False, "toy")


@pytest.mark.parametrize(("column", "value"), [("train", "many"), ("control", "wide")])
def test_a_fact_that_cannot_be_is_a_damaged_line(tmp_path, column, value):
    Results(tmp_path).append([replace(probe("trunk", 0.5), losses=None)])
    rewritten(tmp_path / "scores.jsonl", lambda row: row.update({column: value}))
    with pytest.raises(LayerScopeError, match=r"line 1 of .* is not a score"):
        Results(tmp_path).scores()
