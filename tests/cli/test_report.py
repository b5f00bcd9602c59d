from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from layerscope.cli.main import app
from layerscope.nouns import Losses, Score, Task
from layerscope.report.results import Results, failed

CUTS = ("layer1.0", "trunk", "head.1")
TASK = Task("toy-hue", "toy", "latents", "mse", "minimise", title="Floor hue", encoding="raw")
GROUPS = np.repeat([f"object{i}" for i in range(20)], 5)
FINGERPRINT = "sha256:0"


def score(index: int, loss: float, rng: np.random.Generator) -> Score:
    rows = rng.gamma(4.0, loss / 4.0, size=len(GROUPS))
    return Score(
        checkpoint="net",
        source="toy",
        cut=CUTS[index],
        index=index,
        part="head" if CUTS[index].startswith("head") else "trunk",
        width=8,
        depth=index / 2,
        pooling="mean",
        task=TASK.name,
        estimator="ridge",
        metric="mse",
        direction="minimise",
        primary=True,
        val=float(rows.mean()),
        test=float(rows.mean()),
        stderr=0.01,
        n_train=100,
        n_val=100,
        n_test=100,
        n_groups=20,
        seed=0,
        settings={},
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
    assert set(document) == {"page", "verdicts", "across", "failed"}
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
