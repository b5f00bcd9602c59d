"""The table of scores keeps facts as fields, and reads tables from before it did."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from layerscope.errors import LayerScopeError
from layerscope.results import Results
from layerscope.results.store import failed
from layerscope.stats.training_noise import choices, jackknife
from layerscope.types import REVISION, Control, Draw, Losses
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


def test_a_table_from_before_is_of_the_first_revision(tmp_path):
    Results(tmp_path).append([replace(probe("trunk", 0.5), losses=None)])
    rewritten(tmp_path / "scores.jsonl", lambda row: row.pop("revision"))
    (old,) = Results(tmp_path).scores()
    assert old.revision == 1 < REVISION


def test_losses_are_read_back_with_what_moves_them(tmp_path):
    rows = np.arange(12, dtype=np.float32).reshape(4, 3)
    made = (jackknife(rows, share=0.5), choices(2 * rows))
    losses = Losses(np.zeros(2), np.ones(3), None, made, 7, 0.25)
    score = replace(probe("trunk", 0.5), losses=losses)
    Results(tmp_path).append([score])
    found = Results(tmp_path).losses(score)
    assert (found.train_groups, found.train_share) == (7, 0.25)
    for read, kept in zip(found.replicates, made, strict=True):
        np.testing.assert_array_equal(read.losses, kept.losses)
        assert (read.kind, read.factor, read.degrees) == (kept.kind, kept.factor, kept.degrees)


@pytest.mark.parametrize(("column", "value"), [("train", "many"), ("control", "wide")])
def test_a_fact_that_cannot_be_is_a_damaged_line(tmp_path, column, value):
    Results(tmp_path).append([replace(probe("trunk", 0.5), losses=None)])
    rewritten(tmp_path / "scores.jsonl", lambda row: row.update({column: value}))
    with pytest.raises(LayerScopeError, match=r"line 1 of .* is not a score"):
        Results(tmp_path).scores()


# Cells are chosen by one metric.


def by_metric(metric: str, cut: str = "trunk", **columns):
    """The rows of a cell that was chosen by a metric: that one last, as a sweep appends them."""
    rows = [
        replace(
            probe(cut, value),
            metric=it,
            primary=it == metric,
            losses=probe(cut, value).losses if it == metric else None,
            **columns,
        )
        for it, value in (("auroc", 0.75), ("top-1", 0.5), ("mean-per-class", 0.25))
    ]
    return [it for it in rows if it.metric != "auroc" or it.primary]


def shown(folder):
    return [(it.cut, it.metric, it.primary) for it in Results(folder).scores()]


def test_cells_of_the_metric_that_was_asked_for_last_count(tmp_path):
    one = [("trunk", "top-1", True), ("trunk", "mean-per-class", False)]
    other = [("trunk", it, it == "auroc") for it in ("auroc", "top-1", "mean-per-class")]
    for metric, expected in (("top-1", one), ("auroc", other), ("top-1", one), ("auroc", other)):
        Results(tmp_path).append(by_metric(metric))
        assert sorted(shown(tmp_path)) == sorted(expected)


def test_cuts_that_were_chosen_by_another_metric_are_not_beside_those_of_the_last(tmp_path):
    for cut in ("stem", "trunk"):
        Results(tmp_path).append(by_metric("top-1", cut))
    Results(tmp_path).append(by_metric("auroc", "stem"))
    assert {cut for cut, _, _ in shown(tmp_path)} == {"stem"}
    Results(tmp_path).append(by_metric("top-1", "head.1", checkpoint="another"))
    assert {cut for cut, _, _ in shown(tmp_path)} == {"stem", "head.1"}
    Results(tmp_path).append(by_metric("auroc", "trunk"))
    assert {cut for cut, _, _ in shown(tmp_path)} == {"stem", "trunk", "head.1"}


def test_each_estimator_has_the_metric_that_it_was_asked_for_last(tmp_path):
    Results(tmp_path).append(by_metric("top-1"))
    Results(tmp_path).append(by_metric("auroc", estimator="knn"))
    primary = {(it.estimator, it.metric) for it in Results(tmp_path).scores() if it.primary}
    assert primary == {("logistic", "top-1"), ("knn", "auroc")}


def test_a_cell_that_failed_by_the_last_metric_has_no_rows_of_the_one_before(tmp_path):
    Results(tmp_path).append(by_metric("top-1"))
    Results(tmp_path).append([failed(by_metric("auroc")[0], "labels alone")])
    assert [(it.metric, it.status) for it in Results(tmp_path).scores()] == [("auroc", "failed")]


def test_losses_of_another_metric_are_not_taken_for_ones_own(tmp_path):
    by_accuracy, by_area = (
        next(it for it in by_metric(metric) if it.primary) for metric in ("top-1", "auroc")
    )
    results = Results(tmp_path)
    results.append([by_accuracy])
    assert results.losses(by_accuracy).test.mean() == pytest.approx(0.5)
    with pytest.raises(LayerScopeError, match="belong to another cache or metric"):
        results.losses(by_area)
