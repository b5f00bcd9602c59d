import csv
import json
import shutil
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from layerscope.cli import demo
from layerscope.cli.main import app
from layerscope.models import load
from layerscope.training import Snapshots

RUNNER = CliRunner()
SMALL = ("--batch-size", "6", "--device", "cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kept") / "objects3d"
    demo._unpack(demo.kept_set(), folder)
    return folder


@pytest.fixture(scope="module")
def few(data, tmp_path_factory):
    """Twelve images for training and three each to choose and to report."""
    folder = tmp_path_factory.mktemp("few")
    (folder / "images").symlink_to(data / "images")
    shutil.copy(data / "dataset.json", folder)
    with (data / "latents.csv").open(newline="") as file:
        header, *lines = csv.reader(file)
    kept = [
        line
        for split, count in (("train", 12), ("val", 3), ("test", 3))
        for line in [line for line in lines if line[-1] == split][::7][:count]
    ]
    with (folder / "latents.csv").open("w", newline="") as file:
        csv.writer(file).writerows([header, *kept])
    return folder


def pretrain(data, output, *options):
    sizes = ["--epochs", "1", "--width", "8", "--side", "32", "--workers", "0"]
    return RUNNER.invoke(
        app, ["pretrain", *options, "--data", f"objects3d={data}", "-o", str(output), *sizes]
    )


@pytest.mark.parametrize(("method", "output"), [("simclr", 0), ("rotation", 4)])
def test_it_writes_weights_and_a_card_that_load_together(few, tmp_path, method, output):
    result = pretrain(few, tmp_path / "mine.safetensors", method, *SMALL, "--json")
    assert result.exit_code == 0, result.output
    card = tomllib.loads((tmp_path / "mine.toml").read_text())
    assert json.loads(result.stdout)["card"] == str(tmp_path / "mine.toml")
    assert card["training"]["command"].startswith(f"layerscope pretrain {method} --data")
    assert card["training"]["seed"] == 0
    model = load(tmp_path / "mine.safetensors")
    assert model.checkpoint.architecture["output"] == output
    assert model.checkpoint.preprocessing.resize == (32, 32)
    assert [cut.width for cut in model.cuts[-4:]] == [64] * 4


def test_the_same_recipe_gives_the_same_weights(few, tmp_path):
    for name in ("first", "second"):
        assert pretrain(few, tmp_path / f"{name}.safetensors", "rotation", *SMALL).exit_code == 0
    weights = [load(tmp_path / f"{name}.safetensors") for name in ("first", "second")]
    assert weights[0].checkpoint.sha256 == weights[1].checkpoint.sha256


@pytest.mark.parametrize(
    ("method", "output", "text"),
    [
        ("simclar", "x.safetensors", "no training method called 'simclar'"),
        ("simclr", "x.pth", "is no .safetensors file"),
    ],
)
def test_wrong_use_is_said_before_any_training(data, tmp_path, method, output, text):
    result = pretrain(data, tmp_path / output, method)
    assert result.exit_code == 2
    assert text in result.stderr
    assert "Hint:" in result.stderr


def test_snapshots_are_checkpoints_of_a_series(few, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = ("category", "--snapshots", "1", "--noisy-labels", "0.25")
    result = pretrain(few, "net.safetensors", *options, *SMALL)
    assert result.exit_code == 0, result.output
    card = tomllib.loads(Path("net-epoch-001.toml").read_text())
    assert card["name"] == "net-epoch-001"
    assert (card["training"]["noisy_labels"], card["training"]["epochs_done"]) == (0.25, 1)
    again = card["training"]["command"]
    assert again.endswith("--noisy-labels 0.25 --snapshots 1 -o net.safetensors")
    assert "25% of the labels are wrong" in card["description"]
    last, kept = load("net.safetensors"), load("net-epoch-001.safetensors")
    assert last.checkpoint.sha256 == kept.checkpoint.sha256
    words = ["extract", "net-epoch-*", "--data", f"objects3d={few}", "--device", "cpu", "--json"]
    result = RUNNER.invoke(app, words)
    assert result.exit_code == 0, result.output
    (row,) = json.loads(result.stdout)["caches"]
    assert (row["checkpoint"], row["settings"]) == ("net-epoch-001", {"epoch": 1})


def test_every_k_th_epoch_is_kept():
    every = Snapshots(4)
    paths = [every.path(Path("a/net.safetensors"), epoch) for epoch in range(1, 9)]
    names = [None if path is None else path.as_posix() for path in paths]
    assert names == [None] * 3 + ["a/net-epoch-004.safetensors"] + [None] * 3 + [
        "a/net-epoch-008.safetensors"
    ]


def test_wrong_labels_change_what_is_learnt(few, tmp_path):
    for name, options in (("right", ()), ("wrong", ("--noisy-labels", "0.5"))):
        words = ("category", *SMALL, *options)
        assert pretrain(few, tmp_path / f"{name}.safetensors", *words).exit_code == 0
    right, wrong = (load(tmp_path / f"{name}.safetensors") for name in ("right", "wrong"))
    assert right.checkpoint.sha256 != wrong.checkpoint.sha256


def test_a_method_without_labels_has_none_to_get_wrong(few, tmp_path):
    result = pretrain(few, tmp_path / "x.safetensors", "simclr", "--noisy-labels", "0.4")
    assert result.exit_code == 2
    assert "simclr is trained without labels" in result.stderr
    assert "or train category, rotation" in result.stderr
