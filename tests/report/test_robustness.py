"""What `layerscope evaluate` and `layerscope cka -o` leave in a results folder, on the page."""

from __future__ import annotations

import csv
import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from layerscope.cli.main import app
from layerscope.errors import LayerScopeError
from layerscope.report.section import Finding
from layerscope.report.sections.cka import Similarities
from layerscope.report.sections.robustness import Robustness, robustness_figure
from layerscope.results.evaluations import (
    CutSummary,
    Evaluation,
    Evaluations,
    ShiftSummary,
    shift_summaries,
)
from layerscope.results.layer_cka import LayerCka, keep_similarity, similarities
from layerscope.types import CutPoint
from tests.report.conftest import evidence
from tests.report.planted import CUTS, folder, probe

PARTS = tuple("head" if cut.startswith("head") else "trunk" for cut in CUTS)
TRUNK = CUTS.index("trunk")


def summary(checkpoint: str = "net", shift: str = "inc", mce: float | None = 0.8) -> ShiftSummary:
    cuts = tuple(
        CutSummary(cut, "mean", 0.5 + 0.05 * i, 0.3 + 0.04 * i, mce, {"blur": 0.3 + 0.04 * i})
        for i, cut in enumerate(CUTS)
    )
    return ShiftSummary(checkpoint, "toy", "toy-kind", shift, 15, "layer3@mean", cuts, PARTS)


def similarity(*checkpoints: str) -> LayerCka:
    cuts = tuple(
        CutPoint(i, cut, cut, part, 8, "mean", i / 6)
        for i, (cut, part) in enumerate(zip(CUTS, PARTS, strict=True))
    )
    places = np.arange(len(CUTS))
    values = 1 - 0.1 * np.abs(places[:, None] - places)
    values[TRUNK:, :TRUNK] = values[:TRUNK, TRUNK:] = 0.05
    values[0, 6] = np.nan
    one, *other = checkpoints
    pair = (one, other[0] if other else one)
    return LayerCka(pair, (cuts, cuts), values + 0.01, values, 512, "test", "toy", "planted")


@pytest.fixture
def results(tmp_path: Path) -> Path:
    rows = [probe(cut, 0.5 + 0.05 * i) for i, cut in enumerate(CUTS)]
    return folder(tmp_path / "results", rows).folder


def robustness(results: Path) -> Finding:
    return Robustness().find(replace(evidence([]), folder=results, titles={"toy-kind": "Kind"}))


def test_a_summary_is_read_as_it_was_kept_and_replaces_an_earlier_one(results: Path):
    table = Evaluations(results / "evaluations" / "net@toy")
    table.keep_summary(replace(summary(), chosen="stem@mean"))
    table.keep_summary(summary())
    table.keep_summary(summary(shift="other/set", mce=None))
    assert shift_summaries(results) == [summary(), summary(shift="other/set", mce=None)]


def test_evaluations_without_a_summary_are_read_and_know_no_clean_images(results: Path):
    table = Evaluations(results / "evaluations" / "net@toy")
    row = Evaluation(
        "net",
        "stem",
        "mean",
        "toy-kind",
        "inc",
        "blur 1",
        "blur",
        1,
        0.1,
        50,
        0,
        "probes",
        "images",
    )
    # The first was streamed once more, over other images.
    table.append([row, replace(row, condition="blur 2", severity=2, top_1=0.2)])
    table.append([replace(row, top_1=0.4)])
    (found,) = shift_summaries(results)
    assert (found.checkpoint, found.source, found.conditions) == ("net", "toy", 2)
    assert found.cuts[0].shifted == pytest.approx(0.3)
    (table,) = robustness(results).tables
    assert table.rows == [("net", "toy-kind", "inc", "stem@mean", "–", "30.00%", "–")]
    assert robustness(results).sentences == []
    assert robustness(results).figures == {}


def test_a_damaged_summary_is_named(results: Path):
    Evaluations(results / "evaluations" / "net@toy").keep_summary(summary())
    (path,) = results.glob("evaluations/*/summaries/*.json")
    path.write_text('{"cuts": []}')
    with pytest.raises(LayerScopeError, match="is not the summary of an evaluation"):
        shift_summaries(results)


def test_the_sentence_names_the_chosen_cut_and_the_usual_one(results: Path):
    Evaluations(results / "evaluations" / "net@toy").keep_summary(summary())
    (said,) = robustness(results).sentences
    assert said == (
        "net, Kind under inc: layer3@mean, chosen on clean validation images, is right on 65.0% of "
        "clean and 42.0% of shifted images, mCE 80.0%; trunk@mean on 46.0%."
    )


def test_csv_has_a_row_for_every_cut(results: Path):
    Evaluations(results / "evaluations" / "net@toy").keep_summary(summary())
    rows = list(csv.DictReader(robustness(results).files["robustness.csv"].splitlines()))
    assert [row["cut"] for row in rows] == list(CUTS)
    assert [row["cut"] for row in rows if row["chosen"] == "True"] == ["layer3"]
    assert float(rows[1]["shifted"]) == pytest.approx(0.34)


def test_clean_and_shifted_are_lines_of_one_panel_and_mce_has_its_own():
    found = [summary(), summary("other"), summary(shift="photos", mce=None)]
    figure = robustness_figure(found, {"toy-kind": "Kind"})
    panels = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title() or axes.get_title(loc="left") for axes in panels] == [
        "Kind · inc",
        "Kind · inc",
        "Kind · photos",
    ]
    assert [axes.get_ylabel().split(",")[0] for axes in panels] == ["top-1", "mCE", "top-1"]
    named = [
        [line for line in axes.lines if not line.get_label().startswith("_")] for axes in panels
    ]
    assert list(map(len, named)) == [4, 2, 2]
    clean, shifted, *_ = named[0]
    assert clean.get_ydata()[0] > shifted.get_ydata()[0]
    assert clean.get_linestyle() != shifted.get_linestyle()
    chosen = [line for line in panels[0].lines if line.get_gid() == "chosen"]
    assert {line.get_xdata()[0] for line in chosen} == {CUTS.index("layer3")}


def test_similarities_are_read_as_they_were_kept(tmp_path: Path):
    for kept in (similarity("net"), similarity("net", "a/b")):
        keep_similarity(tmp_path, kept)
    found = similarities(tmp_path)
    assert [it.name for it in found] == ["net-a-b", "net"]
    for it, kept in zip(found, (similarity("net", "a/b"), similarity("net")), strict=True):
        assert it.record() == kept.record()
        assert it.cuts == kept.cuts
    (tmp_path / "cka" / "net.json").write_text("[]")
    with pytest.raises(LayerScopeError, match="holds no similarities of layers"):
        similarities(tmp_path)


def test_the_sentence_on_similarity_says_where_layers_change(tmp_path: Path):
    keep_similarity(tmp_path, similarity("net"))
    keep_similarity(tmp_path, similarity("net", "other"))
    found = Similarities().find(replace(evidence([]), folder=tmp_path))
    pair, alone = found.sentences
    assert alone == (
        "net, 512 test images of toy: CKA of neighbouring cuts is 0.90 in the median and least, "
        "0.05, for layer3@mean and trunk@mean."
    )
    assert "CKA of cuts of the same name is 1.00 in the median" in pair
    rows = list(csv.DictReader(found.files["cka.csv"].splitlines()))
    assert len(rows) == 2 * len(CUTS) ** 2
    far = [it for it in rows if (it["cut"], it["other_cut"]) == ("stem@mean", "head.2@mean")]
    assert [it["unbiased"] for it in far] == ["", ""]
    assert found.tables[1].rows[0][-1] == ""


def test_both_reach_the_page_and_json_and_are_not_there_without(results: Path, tmp_path: Path):
    def report(name: str) -> tuple[str, dict, str, set[str]]:
        done = CliRunner().invoke(app, ["report", str(results), "-o", str(tmp_path / name)])
        assert done.exit_code == 0, done.output
        page = (tmp_path / name / "index.html").read_text()
        document = json.loads((tmp_path / name / "verdicts.json").read_text())
        return done.stdout, document, page, {it.name for it in (tmp_path / name).rglob("*.*")}

    said, document, page, files = report("before")
    assert not {"robustness", "cka"} & set(document)
    assert "Robustness" not in page
    assert not {"robustness.csv", "cka.csv"} & files
    Evaluations(results / "evaluations" / "net@toy").keep_summary(summary())
    keep_similarity(results, similarity("net"))
    said, document, page, files = report("after")
    assert document["robustness"] == [json.loads(json.dumps(asdict(summary())))]
    assert document["cka"][0]["unbiased"][0][6] is None
    order = [">Cut table<", ">Robustness under shift<", ">Similarity of layers<", ">Provenance<"]
    at = [page.index(word) for word in order]
    assert at == sorted(at)
    assert {"robustness.csv", "cka.csv", "robustness-toy.svg", "cka-net.png"} <= files
    assert "layer3@mean, chosen on clean validation images" in said


def test_evaluations_alone_make_a_report(tmp_path: Path):
    Evaluations(tmp_path / "results" / "evaluations" / "net@toy").keep_summary(summary())
    done = CliRunner().invoke(
        app, ["report", str(tmp_path / "results"), "-o", str(tmp_path / "report"), "--json"]
    )
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["robustness"][0]["chosen"] == "layer3@mean"
