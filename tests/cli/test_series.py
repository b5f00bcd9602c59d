"""A series through the door: one cache for each checkpoint, with what tells it from the others."""

import json
from pathlib import Path

import numpy as np
import pytest

from layerscope.cache import check_cache, merge, open_cache
from layerscope.data.sources import sources
from layerscope.results.store import open_results
from tests.toy_source import CARD, NETWORK, toy_source, write_images


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("series") / "images"
    write_images(folder)
    return folder


@pytest.fixture
def door(images, tmp_path, monkeypatch, command_line):
    sources.names()
    monkeypatch.setitem(sources._items, "various", toy_source)
    monkeypatch.chdir(tmp_path)
    Path("runs").mkdir()
    for epoch in (2, 10):
        Path(f"runs/epoch_{epoch}.toml").write_text(CARD.format(seed=epoch))

    def knock(command, *words):
        data = ("--data", f"various={images}", "--cuts", "head.*", "--limit", "30")
        given = (*words, *data, "--device", "cpu") if command == "extract" else words
        return command_line(command, *given)

    return knock


def caches(out):
    return {row["checkpoint"]: row for row in json.loads(out)["caches"]}


def settings(path):
    with open_cache(path) as cache:
        return cache.settings


def test_a_pattern_makes_a_cache_for_each_epoch(door):
    code, out, err = door("extract", "runs/epoch_*.toml", "--json")
    assert code == 0, err
    found = caches(out)
    assert list(found) == ["epoch_2", "epoch_10"]
    assert "epoch_10: epoch 10." in err
    assert settings(found["epoch_10"]["path"]) == found["epoch_10"]["settings"] == {"epoch": 10}
    code, out, _ = door("extract", "runs/epoch_*.toml", "--json")
    assert {row["status"] for row in caches(out).values()} == {"there"}


def test_a_broken_checkpoint_costs_none_of_the_others(door):
    Path("runs/epoch_3.toml").write_text("no card")
    code, out, err = door("extract", "runs/*", "--json")
    assert code == 1
    assert list(caches(out)) == ["epoch_2", "epoch_10"]
    (failed,) = json.loads(out)["failed"]
    assert failed["checkpoint"] == "runs/epoch_3.toml"
    assert "Error: " in err and "epoch_3.toml" in err


def test_a_table_names_checkpoints_and_their_settings_reach_the_results(door):
    Path("grid.csv").write_text(
        "checkpoint,name,lr,method\n"
        "runs/epoch_2.toml,low,0.1,SimCLR\n"
        "runs/epoch_10.toml,high,0.3,BYOL\n"
    )
    code, out, err = door("extract", "--table", "grid.csv", "--json")
    assert code == 0, err
    found = caches(out)
    assert found["high"]["settings"] == {"epoch": 10, "lr": 0.3, "method": "BYOL"}
    assert "low: epoch 2, lr 0.1, method SimCLR." in err
    code, _, err = door("probe", "features", "--tasks", "toy-pose", "--estimators", "ridge")
    assert code == 0, err
    assert open_results(Path("results")).settings() == {
        "low": {"epoch": 2, "lr": 0.1, "method": "SimCLR"},
        "high": {"epoch": 10, "lr": 0.3, "method": "BYOL"},
    }
    again = json.loads(Path("features/settings.json").read_text())["extract"]
    assert (again["table"], again["checkpoints"]) == ("grid.csv", [])


def test_settings_told_later_are_written_over_the_same_features(door):
    path = Path("features/epoch_2@various.limit30.h5")
    assert door("extract", "runs/epoch_2.toml")[0] == 0
    with open_cache(path) as cache:
        before, device = np.asarray(cache["head.2"]), cache.computation["device"]
    Path("grid.csv").write_text("checkpoint,lr\nruns/epoch_2.toml,0.1\n")
    code, out, err = door("extract", "--table", "grid.csv", "--json")
    assert code == 0, err
    assert caches(out)["epoch_2"]["status"] == "annotated"
    # Who names the checkpoint without its table takes nothing away.
    assert caches(door("extract", "runs/epoch_2.toml", "--json")[1])["epoch_2"]["status"] == "there"
    assert check_cache(path).sound
    merge(path)
    with open_cache(path) as cache:
        assert cache.settings == {"epoch": 2, "lr": 0.1}
        assert cache.computation["device"] == device
        np.testing.assert_array_equal(cache["head.2"], before)
    Path("grid.csv").write_text("checkpoint,lr\nruns/epoch_2.toml,0.2\n")
    assert door("extract", "--table", "grid.csv")[0] == 0
    assert settings(path) == {"epoch": 2, "lr": 0.2}


def test_settings_told_between_two_halves_are_kept(door, monkeypatch):
    from layerscope.cache import AssignmentWriter

    write = AssignmentWriter.write

    def interrupted(self, rows, *rest):
        if self.rows_done:
            raise KeyboardInterrupt
        write(self, rows, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(AssignmentWriter, "write", interrupted)
        assert door("extract", "runs/epoch_2.toml", "--batch-size", "8")[0] == 130
    Path("grid.csv").write_text("checkpoint,lr\nruns/epoch_2.toml,0.1\n")
    code, out, err = door("extract", "--table", "grid.csv", "--batch-size", "8", "--json")
    assert code == 0, err
    (row,) = caches(out).values()
    assert (row["status"], row["resumed_from"]) == ("written", 8)
    assert settings(row["path"]) == {"epoch": 2, "lr": 0.1}
    assert check_cache(Path(row["path"])).sound


def test_two_files_of_one_name_are_told_apart_by_a_table(door):
    Path("other").mkdir()
    Path("other/epoch_2.toml").write_text(NETWORK)
    code, out, err = door("extract", "runs/epoch_2.toml", "other/epoch_2.toml", "--json")
    assert code == 1
    assert list(caches(out)) == ["epoch_2"]
    assert "are both called 'epoch_2'" in err and "in a .csv table" in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("runs/step_*.pth",), "No file matches 'runs/step_*.pth'"),
        ((), "No checkpoint is named."),
        (("runs/epoch_2.toml", "--table", "grid.csv"), "and --table lists others"),
        (("--table", "gone.csv"), "There is no table 'gone.csv'"),
    ],
)
def test_wrong_words_about_a_series_are_answered(door, words, said):
    code, out, err = door("extract", *words)
    assert (code, out) == (2, "")
    assert said in err
    assert "Hint:" in err
    assert not Path("features").exists()
