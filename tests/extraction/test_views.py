"""Caches of augmented views: which rows there are, and that nothing but the seed decides them."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from layerscope.cache import check_cache, merge, open_cache, open_statistics, repair
from layerscope.data import ReadRequest, ViewSettings, frame_preprocessing, with_views
from layerscope.data.loaders import loaders
from layerscope.data.sources import sources
from layerscope.errors import CacheError, SettingsError, UnknownNameError
from layerscope.extraction.extract import extract, plan
from layerscope.models import load, select_cuts
from layerscope.runtime.ranks import Ranks
from layerscope.types import SPLITS
from tests.toy_source import ROWS, toy_source, write_images, write_place

COUNT = 3
VIEWS = ViewSettings(COUNT)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return write_place(tmp_path_factory.mktemp("views"))


@pytest.fixture(scope="module")
def source(place):
    return toy_source(place / "images")


@pytest.fixture(scope="module")
def model(place):
    return load(place / "net.toml")


@pytest.fixture(scope="module")
def whole(place, model, source):
    return features(model, source, place / "whole").path


def features(model, source, out, views=VIEWS, **options):
    cuts = select_cuts(model, "trunk,head.*")
    how = {"batch_size": 8, "device": "cpu", "storage": "float32", "views": views}
    return extract(model, source, out, cuts=cuts, **{**how, **options})


def rows_of(path, cut="head.2"):
    with open_cache(path) as cache:
        return np.asarray(cache[cut])


def read(source, model, views, loader="threads", **how):
    """The views themselves: (rows, side, side, 3) bytes, in order."""
    own = frame_preprocessing(model.checkpoint.preprocessing, source.framing)
    seen, left = with_views(source, own, views)
    reading = ReadRequest(seen, left, normalised=False, **{"batch_size": 16, "workers": 2, **how})
    batches = [images.permute(0, 2, 3, 1).numpy() for _, images in loaders[loader](reading)]
    return np.concatenate(batches)


def test_views_are_rows_with_their_images_split_group_and_targets(whole, source):
    with open_cache(whole) as cache:
        assert whole.name == "net@various.views3.h5"
        assert (cache.source, cache.views, cache.rows) == ("various.views3", COUNT, COUNT * ROWS)
        for split in SPLITS:
            view = cache.view("head.2")
            images = np.flatnonzero(source.splits == split)
            assert view.instances(split).tolist() == np.repeat(images, COUNT).tolist()
            assert view.views(split).tolist() == list(range(COUNT)) * len(images)
            assert view.groups(split).tolist() == np.repeat(source.groups[images], COUNT).tolist()
            np.testing.assert_array_equal(
                view.target("toy-pose", split), source.targets["toy-pose"][view.instances(split)]
            )
            ids = [source.ids[row] for row in view.instances(split)]
            assert [name.rpartition("#")[0] for name in view.ids(split)] == ids
        own = cache.view("head.2", task="toy-half")
        kept = np.flatnonzero(source.task_splits["toy-half"] == 0)
        assert own.instances("train").tolist() == np.repeat(kept, COUNT).tolist()
        assert len(np.unique(cache["head.2"][:], axis=0)) == COUNT * ROWS


def test_a_cache_of_images_has_one_view_of_each(place, model, source):
    path = features(model, source, place / "plain", views=None).path
    with open_cache(path) as cache:
        view = cache.view("head.2")
        assert (cache.source, cache.views) == ("various", 1)
        assert not view.views("train").any()
        assert view.instances("val").tolist() == np.flatnonzero(source.splits == "val").tolist()


def test_features_are_those_of_the_views_that_are_read(whole, model, source):
    import torch

    from layerscope.data import Preparation

    pixels = torch.from_numpy(read(source, model, VIEWS)).permute(0, 3, 1, 2)
    assert pixels.shape == (COUNT * ROWS, 3, 32, 32)
    ready = Preparation(model.checkpoint.preprocessing).normalised(pixels)
    with torch.inference_mode():
        expected = model.module(ready)
    np.testing.assert_allclose(rows_of(whole), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "how", [{"batch_size": 5}, {"workers": 1}, {"batch_size": 1, "workers": 7}]
)
def test_batches_and_workers_do_not_decide_a_view(model, source, how):
    np.testing.assert_array_equal(read(source, model, VIEWS, **how), read(source, model, VIEWS))


def test_another_loader_reads_the_same_views(model, source):
    few = replace(source, ids=source.ids[:4], **_first(source, 4))
    theirs = read(few, model, VIEWS, "torchvision", workers=1)
    np.testing.assert_array_equal(theirs, read(few, model, VIEWS))


def _first(source, count):
    return {
        "splits": source.splits[:count],
        "groups": source.groups[:count],
        "targets": {name: it[:count] for name, it in source.targets.items()},
        "task_splits": {name: it[:count] for name, it in source.task_splits.items()},
    }


def test_more_views_begin_with_the_fewer_and_a_limit_keeps_them(place, model, source, whole):
    every = read(source, model, VIEWS).reshape(ROWS, COUNT, -1)
    fewer = read(source, model, ViewSettings(2)).reshape(ROWS, 2, -1)
    np.testing.assert_array_equal(every[:, :2], fewer)
    path = features(model, source, place / "limited", limit=6).path
    assert path.name == "net@various.views3.limit6.h5"
    with open_cache(path) as some, open_cache(whole) as cache:
        assert (some.rows, some.limit) == (6 * COUNT, 6)
        ids = {name: row for row, name in enumerate(cache.texts("rows/id", np.arange(cache.rows)))}
        rows = [ids[name] for name in some.texts("rows/id", np.arange(some.rows))]
        np.testing.assert_allclose(some["trunk"][:], cache["trunk"][rows], rtol=1e-4, atol=1e-5)


def test_an_interrupted_run_goes_on_with_the_same_bits(place, model, source, whole, monkeypatch):
    from layerscope.cache import AssignmentWriter

    write = AssignmentWriter.write

    def interrupted(self, rows, *rest):
        if self.rows_done >= 80:
            raise KeyboardInterrupt
        write(self, rows, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(AssignmentWriter, "write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            features(model, source, place / "resumed")
    report = features(model, source, place / "resumed", workers=1)
    assert 0 < report.resumed_from < COUNT * ROWS
    np.testing.assert_array_equal(rows_of(report.path), rows_of(whole))
    asked = plan(model, source, place, views=VIEWS, **_how(model))
    assert report.fingerprint == asked.header.fingerprint


def _how(model):
    return {"cuts": select_cuts(model, "trunk,head.*"), "storage": "float32", "device": "cpu"}


def test_shards_of_views_merge_and_damage_is_mended(place, model, source, whole):
    out = place / "shards"
    planned = plan(model, source, out, views=VIEWS, **_how(model))
    assert planned.share(Ranks(0, 2)) + planned.share(Ranks(1, 2)) == COUNT * ROWS
    path = features(model, source, out).path
    data = bytearray(path.read_bytes())
    with open_cache(path) as cache:
        place_of_row = cache.features_of(cache.cuts[-1])._segments[0].place
    data[place_of_row.offset + 100 * place_of_row.row_bytes] ^= 1
    path.write_bytes(data)
    check = check_cache(path)
    assert not check.sound and repair(check) == 1
    report = features(model, source, out)
    assert report.status == "written"
    assert check_cache(report.path).sound
    with open_cache(report.path) as cache:
        in_shards = bool(cache.shards)
    if in_shards:
        merge(report.path)
    with open_cache(report.path) as cache:
        assert (cache.views, cache.view("trunk").views("train").max()) == (COUNT, COUNT - 1)
    np.testing.assert_array_equal(rows_of(report.path), rows_of(whole))


@pytest.mark.parametrize("other", [ViewSettings(COUNT, seed=1), None])
def test_the_fingerprint_knows_the_views(place, model, source, other):
    ours = plan(model, source, place, views=VIEWS, **_how(model))
    theirs = plan(model, source, place, views=other, **_how(model))
    assert ours.header.fingerprint != theirs.header.fingerprint
    assert ours.header.ingredients["views"]["augmentation"]["area"] == [0.08, 1.0]
    assert ("views" in theirs.header.ingredients) == (other is not None)


def test_another_seed_is_another_cache(whole, model, source):
    with pytest.raises(CacheError, match="differs in views"):
        features(model, source, whole.parent, views=ViewSettings(COUNT, seed=1))


def test_statistics_of_views_are_those_of_their_features(place, model, source, whole):
    path = features(model, source, place / "streamed", stream="statistics").path
    with open_statistics(path) as statistics, open_cache(whole) as cache:
        rows = cache.view("trunk").features("train").astype(np.float64)
        moments = statistics.moments("trunk")
        assert moments.count == len(rows)
        np.testing.assert_allclose(moments.mean, rows.mean(0), rtol=1e-5)


def test_all_views_of_an_unreadable_image_are_skipped(place, model):
    folder = place / "broken"
    write_images(folder)
    (folder / "05.png").write_bytes(b"no image")
    report = features(model, toy_source(folder), place / "skipped", skip_bad=True)
    assert [bad.row for bad in report.bad] == [15, 16, 17]
    assert [bad.id for bad in report.bad] == ["05.png#0", "05.png#1", "05.png#2"]
    with open_cache(report.path) as cache:
        assert 5 not in cache.view("trunk").instances("test")
        assert len(cache.view("trunk").views("test")) == COUNT * (ROWS // 3 - 1)


def test_what_cannot_be_viewed_is_said(model, source, place):
    sizeless = replace(model.checkpoint.preprocessing, resize=None, crop=None)
    with pytest.raises(SettingsError, match="the checkpoint's preprocessing says none"):
        with_views(source, sizeless, VIEWS)
    with pytest.raises(UnknownNameError, match="no augmentation called 'simclear'"):
        plan(model, source, place, views=ViewSettings(2, "simclear"))


@pytest.fixture
def door(place, monkeypatch, command_line):
    sources.names()
    monkeypatch.setitem(sources._items, "various", toy_source)
    monkeypatch.chdir(place)

    def knock(command, *words):
        data = ("--data", "various=images", "--cuts", "head.*", "--device", "cpu")
        return command_line(command, "net.toml", *data, *words)

    return knock


def test_the_command_writes_views_beside_images(door):
    for words in ((), ("--views", "2", "--augment", "simclr", "--views-seed", "4")):
        code, out, err = door("extract", *words, "-o", "both", "--json")
        assert code == 0, err
    (row,) = json.loads(out)["caches"]
    assert (row["source"], row["images"]) == ("various.views2", 2 * ROWS)
    names = ["net@various.h5", "net@various.views2.h5"]
    assert sorted(path.name for path in Path("both").glob("*.h5")) == names
    with open_cache(Path("both") / names[1]) as cache:
        assert cache.ingredients["views"]["seed"] == 4
    again = json.loads(door("extract", *words, "-o", "both", "--json")[1])
    assert again["caches"][0]["status"] == "there"


def test_a_dry_run_and_a_plan_count_views(door):
    words = ("--views", "4", "--limit", "6", "-o", "planned", "--json")
    (row,) = json.loads(door("extract", *words, "--dry-run")[1])["caches"]
    (planned,) = json.loads(door("plan", *words, "--batches", "0")[1])["plans"]
    assert row["images"] == planned["images"] == 24
    assert row["bytes"] == planned["bytes"] == 24 * (2 * (8 + 6) + 2 * 4)
    assert not Path("planned").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--augment", "simclr"), "--augment simclr says how views are drawn, and none are asked"),
        (("--views-seed", "1"), "--views-seed 1 says how views are drawn"),
        (("--views", "2", "--augment", "simclear"), "no augmentation called 'simclear'"),
    ],
)
def test_wrong_words_about_views_are_answered(door, words, said):
    code, out, err = door("extract", *words)
    assert (code, out) == (2, "")
    assert said in err
    assert "Hint:" in err


def test_images_of_any_mode_can_be_viewed(tmp_path, model):
    root = tmp_path / "grey"
    write_images(root)
    Image.fromarray(np.zeros((9, 40), np.uint8)).save(root / "00.png")
    pixels = read(toy_source(root), model, VIEWS)
    assert not pixels[:COUNT].any()
