from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from layerscope.cli.main import app
from layerscope.results.store import Results, failed
from layerscope.types import Losses, Score, Task
from tests.report import planted

CUTS = ("layer1.0", "trunk", "head.1")
TASK = Task("toy-hue", "toy", "latents", "mse", "minimise", title="Floor hue", encoding="raw")
GROUPS = np.repeat([f"object{i}" for i in range(20)], 5)
FINGERPRINT = "sha256:0"


def score(index: int, loss: float, rng: np.random.Generator) -> Score:
    rows = rng.gamma(4.0, loss / 4.0, size=len(GROUPS))
    return planted.score(
        CUTS[index],
        index,
        2,
        task=TASK.name,
        val=float(rows.mean()),
        test=float(rows.mean()),
        stderr=0.01,
        n_train=100,
        n_val=100,
        n_test=100,
        n_groups=20,
        fingerprint=FINGERPRINT,
        losses=Losses(rows, rows),
    )


@pytest.fixture
def results(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    stored = Results(tmp_path / "results")
    stored.keep_groups("net", "toy", TASK.name, GROUPS, FINGERPRINT)
    stored.keep_tasks([TASK])
    for index, loss in enumerate((0.1, 0.5, 0.9)):
        stored.append([score(index, loss, rng)])
    return stored.folder


def run(*arguments: object):
    return CliRunner().invoke(app, ["report", *map(str, arguments)])


def test_the_table_goes_to_stdout_and_the_pages_place_to_stderr(results: Path, tmp_path: Path):
    done = run(results, "-o", tmp_path / "report")
    assert done.exit_code == 0, done.output
    assert "layer1.0" in done.stdout
    assert "index.html" in done.stderr
    assert "index.html" not in done.stdout


def test_everything_is_written(results: Path, tmp_path: Path):
    run(results, "-o", tmp_path / "report")
    written = {str(p.relative_to(tmp_path / "report")) for p in (tmp_path / "report").rglob("*.*")}
    assert written == {
        "index.html",
        "settings.json",
        "cut-table.md",
        "cut-table.csv",
        "verdicts.json",
        "scores.csv",
        "figures/depth-toy.png",
        "figures/depth-toy.svg",
        "figures/overview.png",
        "figures/overview.svg",
    }
    assert "Floor hue: cut at layer1.0" in (tmp_path / "report" / "index.html").read_text()


def test_json_holds_the_page_the_verdicts_and_what_failed(results: Path, tmp_path: Path):
    done = run(results, "-o", tmp_path / "report", "--json")
    document = json.loads(done.stdout)
    assert set(document) == {
        "page",
        "verdicts",
        "across",
        "scorecard",
        "series",
        "grids",
        "failed",
    }
    assert document["verdicts"][0]["best"] == "layer1.0"
    assert document["verdicts"][0]["gain"]["low"] > 0


def test_a_second_task_asks_for_one_cut_for_both(results: Path, tmp_path: Path):
    rng, stored = np.random.default_rng(1), Results(results)
    stored.keep_groups("net", "toy", "toy-pose", GROUPS, FINGERPRINT)
    for index, loss in enumerate((0.9, 0.1, 0.95)):
        stored.append([replace(score(index, loss, rng), task="toy-pose")])
    done = run(results, "-o", tmp_path / "report")
    said = "net: One cut for all 2 tasks: trunk; against each task's own best it costs"
    assert said in done.stdout
    page = (tmp_path / "report" / "index.html").read_text()
    assert "One cut for all tasks</h2>" in page
    written = json.loads((tmp_path / "report" / "verdicts.json").read_text())["across"][0]
    assert {task["task"]: task["own"] for task in written["tasks"]} == {
        "toy-hue": "layer1.0",
        "toy-pose": "trunk",
    }
    # The figures of the report are those of the terminal.
    assert json.loads(run(results, "-o", tmp_path / "b", "--json").stdout)["across"][0] == written


def test_the_settings_of_the_results_are_shown(results: Path, tmp_path: Path):
    (results / "settings.json").write_text(json.dumps({"probe": {"tasks": "toy-everything"}}))
    run(results, "-o", tmp_path / "report")
    assert "toy-everything" in (tmp_path / "report" / "index.html").read_text()


def test_failed_cells_are_a_finding(results: Path, tmp_path: Path):
    row = score(2, 0.9, np.random.default_rng(1))
    Results(results).append([failed(row, "no rows")])
    done = run(results, "-o", tmp_path / "report")
    assert done.exit_code == 1
    assert "1 cells have no value" in done.stderr
    assert "no rows" in (tmp_path / "report" / "index.html").read_text()


@pytest.fixture(scope="module")
def along_training(tmp_path_factory) -> tuple[list[str], Path]:
    """What is said, and the report, of a run whose head over-fits from epoch 6 on."""
    scores, settings = [], {}
    for epoch in range(2, 11):
        name = f"simclr-{epoch:02d}"
        settings[name] = {"epoch": epoch}
        for i, cut in enumerate(planted.CUTS[2:]):
            over = 0.05 * max(epoch - 6, 0) if cut.startswith("head") else 0.0
            value = 0.5 + 0.02 * min(epoch, 6) + 0.01 * i - over
            scores += [
                planted.probe(cut, value, checkpoint=name, shift=epoch),
                planted.measure(cut, value, checkpoint=name),
                planted.measure(cut, -value, checkpoint=name, name="nesum", metric="nesum"),
            ]
    folder = tmp_path_factory.mktemp("along")
    stored = planted.folder(folder / "results", scores, settings)
    done = run(stored.folder, "-o", folder / "report")
    assert done.exit_code == 0, done.output
    return done.stdout.splitlines(), folder / "report"


def test_measures_and_snapshots_get_a_scorecard_and_a_series(along_training):
    said, report = along_training
    assert any(line.startswith("rankme: Kendall's τ with the probe 1.00") for line in said)
    assert any(line.startswith("nesum: Kendall's τ with the probe -1.00") for line in said)
    told = "simclr, Kind: head.2 over-fits after epoch 6 (its best by validation"
    assert any(line.startswith(told) for line in said)
    for name in ("scorecard.csv", "series.csv", "figures/series-toy.svg"):
        assert (report / name).is_file()
    page = (report / "index.html").read_text()
    order = [">Cut table<", ">Scorecard of measures<", ">Layers along training<", ">Provenance<"]
    at = [page.index(word) for word in order]
    assert at == sorted(at)
    # One run makes no grid.
    assert not (report / "grids.csv").exists()
    assert "over a grid<" not in page


def test_json_has_every_standing_and_series_and_no_verdict_of_a_measure(along_training):
    document = json.loads((along_training[1] / "verdicts.json").read_text())
    assert {it["estimator"] for it in document["verdicts"]} == {"logistic"}
    cards = {(it["checkpoint"], it["measure"]): it for it in document["scorecard"]}
    assert len(cards) == len(document["scorecard"]) == 9 * 2
    last = cards["simclr-10", "nesum"]
    assert last["tau"]["estimate"] == -1.0
    assert (last["best"], last["cut"]) == ("trunk", "head.1")
    assert last["regret"]["estimate"] == pytest.approx(0.19)
    courses = {it["cut"]: it for it in document["series"][0]["courses"]}
    assert courses["head.2"]["peak"] == 6
    assert courses["head.2"]["fall"]["estimate"] == pytest.approx(0.20)
    assert document["grids"] == []


def test_a_report_of_measures_alone_has_their_figure_and_no_verdict(tmp_path: Path):
    rows = [planted.measure(cut, i) for i, cut in enumerate(planted.CUTS)]
    stored = planted.folder(tmp_path / "results", rows)
    done = run(stored.folder, "-o", tmp_path / "report", "--json")
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert (document["verdicts"], document["scorecard"]) == ([], [])
    assert (tmp_path / "report" / "figures" / "measures-toy.svg").is_file()


def test_damaged_settings_of_a_checkpoint_are_a_sentence_and_a_hint(results: Path, tmp_path: Path):
    Results(results).keep_settings("net", {"epoch": 1})
    (path,) = results.glob("checkpoints/*.json")
    path.write_text("{")
    done = run(results, "-o", tmp_path / "report")
    assert done.exit_code == 2
    assert "does not say what sets a checkpoint apart" in " ".join(done.stderr.split())
    assert "Hint: Delete the file" in " ".join(done.stderr.split())


def test_two_runs_write_the_same_bytes(results: Path, tmp_path: Path):
    run(results, "-o", tmp_path / "a")
    run(results, "-o", tmp_path / "b")
    (tmp_path / "a" / "settings.json").unlink()  # it names the folder
    for path in (tmp_path / "a").rglob("*.*"):
        assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes()


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda folder: None, "There is no results folder"),
        (lambda folder: folder.mkdir(), "holds no scores"),
    ],
)
def test_missing_or_empty_results_are_a_sentence_and_a_hint(tmp_path: Path, prepare, message):
    folder = tmp_path / "nowhere"
    prepare(folder)
    done = run(folder, "-o", tmp_path / "report")
    assert done.exit_code == 2
    assert message in done.stderr
    assert "nowhere" in done.stderr
    assert "Hint: Make results with layerscope probe" in done.stderr
    assert not (tmp_path / "report").exists()
