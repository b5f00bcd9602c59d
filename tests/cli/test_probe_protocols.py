"""The command ``probe`` on planted layers, and with draws, seeds, folds and controls."""

import json

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from layerscope.cli.main import app
from layerscope.types import CutPoint
from tests.cli.test_probe import KIND, POSE, ROWS, features, probe, source, write_cache

TERMINAL = CliRunner()


@pytest.fixture
def cache(tmp_path):
    return write_cache(tmp_path / "features")


def layers(**wide: int) -> tuple[CutPoint, ...]:
    return tuple(
        CutPoint(i, name, name, "trunk", width, "mean", float(i))
        for i, (name, width) in enumerate(wide.items())
    )


def test_equal_layers_tie_and_a_wide_noisy_one_does_not_win(tmp_path):
    rng = np.random.default_rng(3)
    kind, pose = (source().targets[task.name].reshape(ROWS, 1) for task in (KIND, POSE))
    known = np.concatenate((2 * kind, pose), 1) + 0.7 * rng.standard_normal((ROWS, 2))
    turned = known @ np.linalg.qr(rng.standard_normal((2, 2)))[0]
    noise = rng.normal(0, 5, (ROWS, 90))
    rows = {
        "one@mean": known,
        "other@mean": turned,
        "wide@mean": np.concatenate((known + rng.standard_normal((ROWS, 2)), noise), 1),
    }
    path = write_cache(
        tmp_path / "features",
        cuts=layers(one=2, other=2, wide=92),
        rows={key: part.astype(np.float32) for key, part in rows.items()},
    )
    done = probe(path, "--json")
    assert done.exit_code == 0, done.output
    for verdict in json.loads(done.stdout)["verdicts"]:
        assert verdict["best"] in ("one", "other")
        assert {"one", "other"} <= set(verdict["tied"])
        if verdict["task"] == POSE.name:
            assert "wide" not in verdict["tied"]


def test_draws_seeds_and_controls_are_rows_of_the_same_table(cache):
    more = ("--train", "all,50%", "--seeds", "2", "--control", "width=3,shuffled")
    done = probe(cache, *more, "--keep-predictions", "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert {(it["train"], it["control"]) for it in found["verdicts"]} == {
        (train, control) for train in ("all", "50%") for control in ("", "width=3", "shuffled")
    }
    results = cache.parent.parent / "results"
    table = pd.read_parquet(results / "scores.parquet")
    assert len(table) == len(found["scores"]) == len(pd.read_csv(results / "scores.csv"))
    assert set(table["seed"]) == {0, 1}
    again = probe(cache, *more, "--json")
    assert "0 cells computed" in again.stderr
    report = TERMINAL.invoke(app, ["report", str(results), "-o", str(results / "report")])
    assert report.exit_code == 0, report.output
    assert (results / "report" / "figures" / "samples-toy.svg").is_file()
    assert "ridge [50%, shuffled]" in (results / "report" / "cut-table.md").read_text()


def test_folds_stand_in_for_the_validation_split(cache):
    done = probe(cache, "--folds", "3", "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert {it["train"] for it in found["verdicts"]} == {"3 folds"}
    assert {it["n_val"] for it in found["scores"]} == {ROWS * 4 // 5}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--train", "some"), "'some' does not say which training rows to take"),
        (("--control", "depth=3"), "There is no control 'depth=3'"),
    ],
)
def test_an_unknown_arrangement_is_refused_before_anything_is_computed(cache, words, message):
    done = probe(cache, *words)
    assert done.exit_code == 2
    assert message in " ".join(done.stderr.split())
    assert not (cache.parent.parent / "results" / "scores.jsonl").exists()


def test_what_an_arrangement_cannot_do_fails_its_cells_alone(cache):
    done = probe(cache, "--control", "width=7")
    assert done.exit_code == 1
    assert "has 6 features, fewer than 'width=7' asks" in " ".join(done.stderr.split())
    assert "Pose: cut at layer1.0" in done.stdout


def test_images_that_are_in_two_splits_are_named_and_no_control_is_needed(tmp_path):
    rows = features(source(), broken=False)
    test, train = np.flatnonzero(source().splits == "test")[:3], [0, 1, 5]
    for values in rows.values():
        values[test] = values[train]
    path = write_cache(tmp_path / "features", rows=rows)
    said = "toy: 3 of 80 test rows have the very features of train rows"
    done = probe(path)
    assert done.exit_code == 0, done.output
    assert f"{said}, at layer1.0@mean of net: 16.png = 0.png" in done.stdout
    (found,) = json.loads(probe(path, "--json", "--existing", "keep").stdout)["shared_rows"]
    assert found["ids"] == [
        [f"{mine}.png", f"{its}.png"] for mine, its in zip(test, train, strict=True)
    ]
    results = str(tmp_path / "results")
    report = TERMINAL.invoke(app, ["report", results, "-o", str(tmp_path / "report")])
    assert said in " ".join(report.stdout.split())
    assert said in (tmp_path / "report" / "index.html").read_text()


def test_nothing_is_said_of_shared_images_where_there_are_none(cache):
    done = probe(cache)
    assert "very features" not in done.output
    results, page = cache.parent.parent / "results", cache.parent.parent / "report"
    report = TERMINAL.invoke(app, ["report", str(results), "-o", str(page)])
    assert report.exit_code == 0, report.output
    assert "two splits share" not in (page / "index.html").read_text()
