"""Counts: whatever is asked of a checkpoint, it is loaded once, traced once and planned once."""

import json
import shutil
from collections import Counter

import pytest

from tests.cli.test_plan import Usage, door
from tests.extraction.test_extract import DATA, place, source

__all__ = ["door", "place", "source"]

ONCE = {"load": 1, "trace": 1, "plan": 1}
TWICE = {"load": 2, "trace": 2, "plan": 2}


@pytest.fixture
def calls(monkeypatch):
    """Counts calls of what is dear; the counter's keys are the functions' names."""
    from layerscope import models
    from layerscope.extraction import extract
    from layerscope.models import checkpoint

    counted = Counter()

    def count(home, name):
        function = getattr(home, name)

        def counting(*given, **named):
            counted[name] += 1
            return function(*given, **named)

        monkeypatch.setattr(home, name, counting)

    count(models, "load")
    count(checkpoint, "trace")
    count(extract, "plan")
    return counted


@pytest.fixture
def little_memory(monkeypatch):
    from layerscope.runtime import memory

    monkeypatch.setattr(memory, "memory", lambda: 4)


@pytest.mark.parametrize("words", [("--batches", "0"), ("--batches", "1")])
def test_a_plan_loads_traces_and_plans_each_once(door, calls, words):
    assert door("plan", "net1.toml", "net2.toml", *DATA, *words)[0] == 0
    assert calls == TWICE


def test_one_extraction_loads_traces_and_plans_once(door, calls):
    assert door("extract", "net1.toml", *DATA)[0] == 0
    assert calls == ONCE
    assert door("extract", "net1.toml", *DATA)[0] == 0
    assert calls == TWICE  # a second command knows nothing of the first


def test_several_extractions_load_trace_and_plan_each_once(door, calls):
    assert door("extract", "net1.toml", "net2.toml", *DATA)[0] == 0
    assert calls == TWICE


def test_so_they_do_where_memory_holds_only_one(door, calls, little_memory):
    code, out, err = door("extract", "net1.toml", "net2.toml", *DATA, "--json")
    assert code == 0, err
    assert [row["status"] for row in json.loads(out)["caches"]] == ["written"] * 2
    assert calls == TWICE


def test_a_dry_run_loads_traces_and_plans_each_once(door, calls):
    assert door("extract", "net1.toml", "net2.toml", *DATA, "--dry-run")[0] == 0
    assert calls == TWICE


def test_a_broken_checkpoint_is_loaded_once_too(door, calls):
    code, out, err = door("extract", "none.toml", "net1.toml", *DATA, "--json")
    assert code == 1
    assert err.count("Error: ") == 1
    assert [row["checkpoint"] for row in json.loads(out)["failed"]] == ["none.toml"]
    assert calls == ONCE | {"load": 2}


def test_room_is_asked_for_all_where_memory_holds_only_one(door, little_memory, monkeypatch):
    _, out, _ = door("plan", "net1.toml", *DATA, "--batches", "0", "--json")
    (row,) = json.loads(out)["plans"]
    free = Usage(10**9, 0, 2 * row["bytes"] - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: free)
    code, out, err = door("extract", "net1.toml", "net2.toml", *DATA)
    assert (code, out) == (2, "")
    assert f"need {2 * row['bytes']:,} bytes" in err


def test_what_another_process_finished_meanwhile_is_left_alone(door, monkeypatch):
    from layerscope.cli.extract import _Run

    ahead = _Run._plan_ahead

    def meanwhile(self):
        planned = ahead(self)
        planned[1].jobs[0].run()
        return planned

    monkeypatch.setattr(_Run, "_plan_ahead", meanwhile)
    code, out, err = door("extract", "net1.toml", "net2.toml", *DATA, "--json")
    assert code == 0, err
    assert [row["status"] for row in json.loads(out)["caches"]] == ["written", "there"]
