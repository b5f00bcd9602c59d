from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from layerscope.cache import CacheWriter, Header, ingredients
from layerscope.cli.main import app
from layerscope.nouns import Checkpoint, CutPoint, Preprocessing, Source, Task

ROWS, SIZE = 400, 4
CUTS = (
    CutPoint(0, "layer1.0", "trunk.layer1.0", "trunk", 6, "mean", 0.0),
    CutPoint(1, "trunk", "trunk.avgpool", "trunk", 6, "mean", 0.5),
    CutPoint(2, "head.1", "head.1", "head", 6, "none", 1.0),
)
KIND = Task("toy-kind", "toy", "classes", "top-1", "maximise", title="Kind", classes=("a", "b"))
POSE = Task("toy-pose", "toy", "latents", "mse", "minimise", title="Pose", encoding="raw")
TERMINAL = CliRunner()


def source() -> Source:
    rng = np.random.default_rng(0)
    group = np.arange(ROWS) // SIZE
    return Source(
        name="toy",
        ids=tuple(f"{i}.png" for i in range(ROWS)),
        splits=np.array(["train", "train", "train", "val", "test"])[group % 5],
        groups=np.array([f"object{i}" for i in group]),
        tasks=(KIND, POSE),
        targets={KIND.name: rng.integers(0, 2, ROWS), POSE.name: rng.standard_normal((ROWS, 1))},
        manifest="m" * 64,
        annotations="a" * 64,
        root=Path("/nowhere"),
    )


def features(of: Source, broken: bool) -> dict[str, np.ndarray]:
    """The pose is written into the first cut and fades with depth; the kind is in the trunk."""
    rng = np.random.default_rng(1)
    rows = {cut.key: rng.standard_normal((ROWS, cut.width)).astype(np.float32) for cut in CUTS}
    for cut, strength in zip(CUTS, (3.0, 1.0, 0.0), strict=True):
        rows[cut.key][:, 0] += strength * of.targets[POSE.name][:, 0]
    rows["trunk@mean"][:, 1] += 5 * of.targets[KIND.name]
    if broken:
        rows["head.1@none"][7, 2] = np.inf
    return rows


def write_cache(folder: Path, *, broken: bool = False) -> Path:
    made_of = source()
    card = Checkpoint(
        name="net",
        family="toy",
        architecture={},
        weights=None,
        sha256="a" * 64,
        preprocessing=Preprocessing(8, None, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2)),
        head="1 layer",
        licence="CC0",
        citation="",
    )
    parts = ingredients(
        card, CUTS, made_of, card.preprocessing, decoder="pillow", precision="float32"
    )
    with CacheWriter(folder / "net@toy.h5", Header(card, CUTS, made_of, parts, {})) as writer:
        writer.write(writer.missing, features(made_of, broken), np.ones(ROWS, dtype=bool))
        return writer.finish()


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return write_cache(tmp_path / "features")


def probe(cache: Path, *more: str):
    out = str(cache.parent.parent / "results")
    return TERMINAL.invoke(app, ["probe", str(cache), "-o", out, *more])


def test_it_prints_where_to_cut_and_how_sure_that_is(cache):
    done = probe(cache)
    assert done.exit_code == 0, done.output
    assert "Pose: cut at layer1.0 (mse" in done.stdout
    assert "Kind: cut at trunk (top-1" in done.stdout
    assert "6 cells computed, 0 kept" in done.stderr


def test_json_holds_verdicts_and_scores(cache):
    found = json.loads(probe(cache, "--json").stdout)
    assert {verdict["task"]: verdict["best"] for verdict in found["verdicts"]} == {
        POSE.name: "layer1.0",
        KIND.name: "trunk",
    }
    assert len(found["scores"]) == 3 * (4 + 4)
    assert {score["status"] for score in found["scores"]} == {"done"}


def test_the_same_command_computes_nothing_and_prints_the_same(cache):
    out = str(cache.parent.parent / "results")
    first = probe(cache)
    second = TERMINAL.invoke(app, ["probe", str(cache.parent), "-o", out])
    assert "0 cells computed, 6 kept" in second.stderr
    assert first.stdout == second.stdout


def test_the_settings_lie_beside_the_results(cache):
    probe(cache, "--tasks", "*pose", "--seed", "3")
    path = cache.parent.parent / "results" / "settings.json"
    known = json.loads(path.read_text())["probe"]
    assert (known["tasks"], known["seed"], known["existing"]) == ("*pose", 3, "missing")
    again = TERMINAL.invoke(app, ["--config", str(path), "probe", "--json"])
    assert again.exit_code == 0, again.output
    assert [verdict["task"] for verdict in json.loads(again.stdout)["verdicts"]] == [POSE.name]


def test_tasks_and_estimators_are_chosen_by_name(cache):
    found = json.loads(
        probe(cache, "--tasks", "toy-pose", "--estimators", "ridge", "--json").stdout
    )
    assert {score["estimator"] for score in found["scores"]} == {"ridge"}
    assert {score["task"] for score in found["scores"]} == {POSE.name}


def test_a_failed_cell_is_a_finding(tmp_path):
    done = probe(write_cache(tmp_path / "features", broken=True), "--json")
    assert done.exit_code == 1
    assert (
        "Failed: net, head.1 toy-kind, head.1 toy-pose: 1 features of 'head.1' are not finite"
        in done.stderr
    )
    rows = json.loads(done.stdout)["scores"]
    assert {row["test"] for row in rows if row["status"] == "failed"} == {None}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--tasks", "toy-poze"), "no task called 'toy-poze'"),
        (("--estimators", "rigde"), "no estimator called 'rigde'"),
        (("--tasks", "toy-kind", "--estimators", "ridge"), "can score toy-kind"),
    ],
)
def test_wrong_names_are_wrong_use(cache, options, message):
    done = probe(cache, *options)
    assert done.exit_code == 2
    assert message in done.stderr
    assert "Hint: " in done.stderr
    assert not done.stdout
