"""Planning: exact sizes, a measured pace, nothing written, and a full disk said beforehand."""

import json
import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from tests.extraction.test_extract import DATA, ROWS, place, source, stored

__all__ = ["place", "source"]

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def door(place, command_line):
    return command_line


@pytest.fixture
def full(monkeypatch):
    def set_free(count):
        monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**9, 0, count))

    return set_free


def test_sizes_are_those_that_extraction_then_writes(door):
    code, out, err = door("plan", "net1.toml", *DATA, "--batch-size", "2", "--json")
    assert code == 0, err
    (row,) = json.loads(out)["plans"]
    assert not Path("features").exists()
    assert door("extract", "net1.toml", *DATA)[0] == 0
    written = stored("features/net1@toy.h5")
    values = sum(rows.size for rows in written.values())
    assert row["bytes"] == 2 * values + 4 * ROWS * row["feature_sets"]
    assert row["cuts"] == row["feature_sets"] == len(written)
    assert row["features_per_image"] == sum(rows.shape[1] for rows in written.values())
    assert row["images"] == row["remaining"] == ROWS
    assert row["fits"]


def test_pace_memory_and_waiting_are_measured_on_a_few_batches(door):
    _, out, _ = door("plan", "net1.toml", *DATA, "--batch-size", "2", "--json")
    (row,) = json.loads(out)["plans"]
    assert row["images_per_second"] > 0
    assert row["seconds"] == pytest.approx(ROWS / row["images_per_second"], abs=1)
    assert 0 <= row["waiting"] <= 1
    assert row["memory"] > 50 * 2**20
    assert row["device_memory"] is None
    (unmeasured,) = json.loads(door("plan", "net1.toml", *DATA, "--batches", "0", "--json")[1])[
        "plans"
    ]
    assert unmeasured["images_per_second"] is unmeasured["seconds"] is None


def test_the_table_names_disk_time_and_memory(door):
    code, out, _ = door("plan", "net1.toml", "net2.toml", *DATA, "--pooling", "mean,max")
    assert code == 0
    lines = out.splitlines()
    assert lines[0].split() == [
        "checkpoint", "source", "images", "cuts", "features", "disk", "time", "memory",
    ]  # fmt: skip
    assert "poolings" in lines[2]
    assert "it fits." in out
    assert out.count("images/s, waiting on data") == 2


def test_what_is_there_already_is_not_planned_again(door):
    assert door("extract", "net1.toml", *DATA)[0] == 0
    code, out, _ = door("plan", "net1.toml", *DATA, "--json")
    (row,) = json.loads(out)["plans"]
    assert (code, row["remaining"], row["bytes"], row["images_per_second"]) == (0, 0, 0, None)


def test_a_disk_that_cannot_hold_all_of_it_is_a_finding(door, full):
    _, out, _ = door("plan", "net1.toml", *DATA, "--batches", "0", "--json")
    (row,) = json.loads(out)["plans"]
    full(int(1.5 * row["bytes"]))
    assert door("plan", "net1.toml", *DATA, "--batches", "0")[0] == 0
    code, out, _ = door("plan", "net1.toml", "net2.toml", *DATA, "--batches", "0")
    assert code == 1
    assert "it does not fit." in out


def test_extraction_does_not_begin_what_the_disk_cannot_hold(door, full):
    _, out, _ = door("plan", "net1.toml", *DATA, "--batches", "0", "--json")
    (row,) = json.loads(out)["plans"]
    full(row["bytes"] - 1)
    code, out, err = door("extract", "net1.toml", "net2.toml", *DATA)
    assert (code, out) == (2, "")
    assert f"need {2 * row['bytes']:,} bytes" in err
    assert "--cuts" in err
    code, _, err = door("extract", "net1.toml", *DATA)
    assert code == 2
    assert f"need {row['bytes']:,} bytes" in err
    assert not list(Path().glob("features/*"))


def test_what_is_wrong_is_said_as_by_extract(door):
    code, out, err = door("plan", "net1.toml", "--data", "toy")
    assert (code, out) == (2, "")
    assert "does not say which source lies where" in err
    code, out, err = door("plan", "net1.toml", *DATA, "--loader", "dali")
    assert (code, out) == (2, "")
    assert "There is no loader called 'dali'" in err
