"""Baselines through the door: made beside each checkpoint by one option, and probed like it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from layerscope.cache import open_cache
from layerscope.data import image_transform, read_image
from layerscope.data.sources import sources
from layerscope.results import open_results
from tests.cli.test_counts import calls
from tests.models.families.truth import randomised
from tests.models.test_own import Net
from tests.toy_source import CARD, ROWS, toy_source, write_images

__all__ = ["calls"]

DATA = ("--data", "various=images", "--device", "cpu")
TWO = ("--baselines", "pixels,random=2")
NAMES = ["net", "net-pixels", "net-random-0", "net-random-1"]


@pytest.fixture
def door(tmp_path, monkeypatch, command_line):
    sources.names()
    monkeypatch.setitem(sources._items, "various", toy_source)
    monkeypatch.chdir(tmp_path)
    write_images(Path("images"))
    Path("net.toml").write_text(CARD.format(seed=1))
    return command_line


def made(out):
    return [row["checkpoint"] for row in json.loads(out)["caches"]]


@pytest.mark.slow
def test_one_option_adds_them_to_the_caches_and_to_the_scores(door):
    code, out, err = door("extract", "net.toml", *DATA, *TWO, "--storage", "float32", "--json")
    assert (code, made(out)) == (0, NAMES), err
    code, _, err = door("probe", "--tasks", "toy-kind,toy-pose", "--estimators", "ridge,lda")
    assert code == 0, err
    scores = [it for it in open_results(Path("results")).scores() if it.primary]
    assert {it.checkpoint for it in scores} == set(NAMES)
    assert {it.status for it in scores} == {"done"}
    facts = {(it.checkpoint, it.trained, it.baseline, it.baseline_of) for it in scores}
    assert facts == {
        ("net", False, "", ""),  # itself of random weights
        ("net-pixels", False, "pixels", "net"),
        ("net-random-0", False, "random", "net"),
        ("net-random-1", False, "random", "net"),
    }
    of_pixels = {it.cut: it.width for it in scores if it.baseline == "pixels"}
    assert of_pixels == {"pixels.4x4": 48, "pixels.16x16": 768}
    cuts = {
        name: {(it.cut, it.index, it.width) for it in scores if it.checkpoint == name}
        for name in NAMES
    }
    assert cuts["net"] == cuts["net-random-0"] == cuts["net-random-1"]


def test_the_features_of_pixels_are_means_of_the_prepared_images(door):
    door("extract", "net.toml", *DATA, "--baselines", "pixels", "--storage", "float32")
    with open_cache("features/net-pixels@various.h5") as cache:
        prepare = image_transform(cache.card.preprocessing)
        rows = cache.rows_of("test")
        ids = cache.texts("rows/id", rows)
        prepared = np.stack([prepare(read_image(Path("images") / it)) for it in ids])
        for grid in (4, 16):
            side = 32 // grid
            fields = prepared.reshape(len(rows), 3, grid, side, grid, side)
            means = fields.mean((3, 5), dtype=np.float64).reshape(len(rows), -1)
            found = cache.view(f"pixels.{grid}x{grid}").features("test")
            np.testing.assert_allclose(found, means, atol=1e-6)


def test_seeds_are_facts_of_their_caches(door):
    door("extract", "net.toml", *DATA, *TWO)
    cards = {}
    for name in NAMES:
        with open_cache(f"features/{name}@various.h5") as cache:
            cards[name] = cache.card
    assert [cards[name].seed for name in NAMES] == [1, None, 0, 1]
    assert cards["net-random-0"].architecture == cards["net"].architecture
    first, second = cards["net-random-0"], cards["net-random-1"]
    assert first.sha256 != second.sha256


def test_asked_for_again_they_are_there_and_more_are_added(door):
    door("extract", "net.toml", *DATA, *TWO)
    code, out, _ = door("extract", "net.toml", *DATA, "--baselines", "random=3", "--json")
    status = {row["checkpoint"]: row["status"] for row in json.loads(out)["caches"]}
    there = dict.fromkeys(["net", "net-random-0", "net-random-1"], "there")
    assert (code, status) == (0, {**there, "net-random-2": "written"})


def test_by_its_word_a_baseline_is_made_alone_and_is_the_same(door):
    door("extract", "net.toml", *DATA, *TWO)
    code, out, err = door("extract", "random-1:net.toml", "pixels:net.toml", *DATA, *TWO, "--json")
    assert code == 0, err
    status = {row["checkpoint"]: row["status"] for row in json.loads(out)["caches"]}
    assert status == {"net-random-1": "there", "net-pixels": "there"}


def test_snapshots_of_one_training_share_them(door):
    for epoch in (1, 2, 10):
        Path(f"run_epoch{epoch}.toml").write_text(CARD.format(seed=epoch))
    Path("wide.toml").write_text(CARD.format(seed=1).replace("width = 4", "width = 8"))
    code, out, err = door("extract", "run_*.toml", "wide.toml", *DATA, *TWO, "--json")
    assert (code, made(out)) == (
        0,
        [
            *("run_epoch1", "run_epoch1-pixels", "run_epoch1-random-0", "run_epoch1-random-1"),
            *("run_epoch2", "run_epoch10"),
            *("wide", "wide-random-0", "wide-random-1"),  # the images are the same
        ],
    ), err
    series = {row["checkpoint"]: row["settings"] for row in json.loads(out)["caches"]}
    assert series["run_epoch1"] == {"epoch": 1}
    assert series["run_epoch1-random-0"] == series["run_epoch1-pixels"] == {}


def test_a_checkpoint_is_loaded_once_however_many_baselines_it_has(door, calls):
    assert door("extract", "net.toml", *DATA, "--baselines", "random=3")[0] == 0
    assert calls == {"load": 1, "trace": 1, "plan": 4}
    calls.clear()
    assert door("plan", "net.toml", *DATA, *TWO, "--batches", "0")[0] == 0
    assert calls == {"load": 1, "trace": 2, "plan": 4}  # pixels have cuts of their own


def test_where_memory_holds_one_network_the_same_caches_are_made(door, monkeypatch):
    from layerscope.runtime import memory

    monkeypatch.setattr(memory, "memory", lambda: 4)
    code, out, err = door("extract", "net.toml", *DATA, *TWO, "--json")
    assert (code, made(out)) == (0, NAMES), err


def test_a_plan_says_what_they_take(door):
    code, out, err = door("plan", "net.toml", *DATA, *TWO, "--batches", "1", "--json")
    assert code == 0, err
    rows = {row["checkpoint"]: row for row in json.loads(out)["plans"]}
    assert list(rows) == NAMES
    assert rows["net-pixels"]["features_per_image"] == 48 + 768
    assert rows["net-pixels"]["bytes"] == ROWS * (2 * (48 + 768) + 2 * 4)
    assert rows["net-random-0"]["bytes"] == rows["net"]["bytes"]
    assert rows["net-random-0"]["images_per_second"] == rows["net"]["images_per_second"]


def test_chosen_cuts_and_poolings_are_those_of_random_networks_too(door):
    words = ("--cuts", "layer1.*,trunk", "--pooling", "mean,max")
    code, out, err = door("plan", "net.toml", *DATA, *TWO, *words, "--batches", "0", "--json")
    assert code == 0, err
    assert [row["feature_sets"] for row in json.loads(out)["plans"]] == [5, 2, 5, 5]


def test_settings_are_taken_back(door):
    door("extract", "net.toml", *DATA, *TWO, "-o", "first")
    code, out, err = door(
        "--config", "first/settings.json", "extract", "net.toml", *DATA, "-o", "second", "--json"
    )
    assert (code, made(out)) == (0, NAMES), err


def test_a_users_own_network_has_them(door, monkeypatch):
    torch.save(randomised(Net()).state_dict(), "own.pth")
    words = ("--declare", "arch=tests.models.test_own:Net,head_from=projector,image_size=32")
    code, out, err = door("extract", "own.pth", *DATA, *words, *TWO, "--json")
    assert code == 0, err
    assert made(out) == [f"own+32px{it}" for it in ("", "-pixels", "-random-0", "-random-1")]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("random=0", "'random=0' does not say how many there are to be"),
        ("pixel", "no baseline called 'pixel'"),
        ("pixels,net.toml", "no baseline called 'net.toml'"),
    ],
)
@pytest.mark.parametrize("command", ["extract", "plan", "submit"])
def test_what_cannot_be_meant_is_said_before_anything_is_loaded(door, calls, command, words, said):
    before = ("submit", "--dry-run", "extract") if command == "submit" else (command,)
    code, out, err = door(*before, "net.toml", *DATA, "--baselines", words)
    assert (code, out) == (2, "")
    assert said in err
    assert not calls


def test_on_a_cluster_each_is_a_job(door):
    words = ("a.pth", "b.pth", "--data", "in1k=x", "--cuts", "-4:", *TWO)
    code, out, err = door("submit", "--dry-run", "--json", "extract", *words)
    assert code == 0, err
    rows = json.loads(out)["jobs"]
    assert [row["checkpoint"] for row in rows] == [
        f"{word}{name}" for name in ("a.pth", "b.pth")
        for word in ("", "pixels:", "random-0:", "random-1:")
    ]  # fmt: skip
    assert rows[2]["command"][2:] == ["random-0:a.pth", "--data", "in1k=x", "--cuts", "-4:"]


@pytest.mark.parametrize("word", ["runs/*.pth", "runs.csv"])
def test_on_a_cluster_those_of_a_series_are_made_by_its_job(door, word):
    words = ("extract", word, "--data", "in1k=x", *TWO)
    (row,) = json.loads(door("submit", "--dry-run", "--json", *words)[1])["jobs"]
    assert row["command"][-2:] == list(TWO)
