"""No flipped byte of a feature or a target goes unnoticed, and what is broken is computed again."""

import json
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from layerscope.cache import (
    AssignmentWriter,
    CacheBuild,
    CacheWriter,
    cache_status,
    check_cache,
    open_cache,
    repair,
)
from layerscope.cache.hdf5_offsets import extent_of
from layerscope.cache.layout import CHECKSUMS, FEATURES, TARGETS
from layerscope.errors import CacheError
from layerscope.types import SPLITS


def everything(path):
    """Return what a probe that verifies reads of a cache."""
    found = {}
    with open_cache(path) as cache:
        for cut in cache.cuts:
            for split in SPLITS:
                view = cache.view(cut.name, cut.pooling)
                found[cut.key, split] = view.features(split).tobytes()
                found[cut.key, split, "ids"] = view.ids(split).tobytes()
                found[cut.key, split, "groups"] = view.groups(split).tobytes()
                for task in cache.tasks:
                    found[task.name, split] = view.target(task.name, split).tobytes()
        found["nouns"] = (cache.cuts, cache.tasks, cache.card, cache.fingerprint)
    return found


def flip(path, at, bits):
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ bits]))


def touches(path):
    """Return where the bytes of features, checksums and targets lie."""
    with h5py.File(path) as file:
        names = [
            f"{group}/{key}" for group in (FEATURES, CHECKSUMS, TARGETS) for key in file[group]
        ]
        places = [extent_of(file, name) for name in names]
    return [range(p.offset, p.offset + p.count * p.row_bytes) for p in places]


@pytest.mark.parametrize("flips", [150, pytest.param(500, marks=pytest.mark.slow)])
@pytest.mark.parametrize("where", ["anywhere", "where it counts"])
def test_single_flipped_bytes_at_random_places(tmp_path, headers, fill, where, flips):
    path = tmp_path / "net@toy.h5"
    with CacheWriter(path, headers()) as writer:
        fill(writer)
        writer.finish()
    before, size, spans = everything(path), path.stat().st_size, touches(path)
    draw = np.random.default_rng(0)
    counted = [at for span in spans for at in span]
    places = draw.integers(0, size, flips) if where == "anywhere" else draw.choice(counted, flips)
    unnoticed, read_wrong, harmless = [], [], 0
    for at in places.tolist():
        bits = int(draw.integers(1, 256))
        flip(path, at, bits)
        reported = not check_cache(path).sound
        if any(at in span for span in spans) and not reported:
            unnoticed.append(at)
        try:
            if everything(path) != before:
                read_wrong.append(at)
            harmless += not reported
        except CacheError:
            if not reported:
                unnoticed.append(at)
        flip(path, at, bits)
    assert unnoticed == []
    assert read_wrong == []
    assert everything(path) == before
    assert harmless < flips if where == "anywhere" else not harmless


@pytest.fixture
def written(tmp_path, header, fill):
    path = tmp_path / "net@toy.h5"
    with CacheWriter(path, header) as writer:
        fill(writer)
        return writer.finish()


@pytest.fixture
def sharded(tmp_path, header, fill):
    path = tmp_path / "shared" / "net@toy.h5"
    with CacheBuild(path, header) as lead:
        for share in lead.assignments(2, 4):
            with AssignmentWriter(path, lead.header, share) as writer:
                fill(writer)
        lead.finish()
    return path


def spoil(path, dataset, row):
    with h5py.File(path) as file:
        place = extent_of(file, dataset)
    flip(path, place.offset + row * place.row_bytes, 255)


@pytest.mark.parametrize(
    "dataset", ["features/trunk@mean", "checksums/trunk@mean", "rows/valid", "rows/state"]
)
def test_damaged_rows_are_named_dropped_and_refilled_alone(written, header, fill, dataset):
    whole = written.read_bytes()
    for row in (3, 4, 17):
        spoil(written, dataset, row)
    if dataset != "rows/state":  # which nobody reads of a whole cache
        with pytest.raises(CacheError, match=r"check cache|damaged"):
            everything(written)
    found = check_cache(written)
    assert not found.sound
    assert found.files[0].lost.tolist() == [3, 4, 17]
    assert "3 rows are not what was written (3 to 4, 17)" in " ".join(found.files[0].findings)
    assert repair(found) == 3
    assert not written.exists()
    with CacheWriter(written, header) as writer:
        assert writer.missing.tolist() == [3, 4, 17]
        fill(writer)
        writer.finish()
    assert written.read_bytes() == whole


def repair_without_rows(found, written, header):
    assert repair(found) == 0
    with CacheWriter(written, header) as writer:
        assert len(writer.missing) == 0
        writer.finish()


def test_a_damaged_copy_of_the_label_is_written_anew_from_the_other(written, header):
    whole = written.read_bytes()
    room = len(whole[: whole.index(b"\x89HDF")])
    for at in (3, 100, room // 2 + 3, room // 2 + 100):
        flip(written, at, 1)
        found = check_cache(written)
        assert found.files[0].header == ("label",)
        repair_without_rows(found, written, header)
        assert written.read_bytes() == whole


def test_a_seal_alone_that_is_broken_costs_no_row(written, header):
    whole = written.read_bytes()
    spoil(written, "seal", 0)
    with pytest.raises(CacheError, match="damaged: its seal"):
        open_cache(written)
    found = check_cache(written)
    assert found.files[0].header == ("seal",)
    repair_without_rows(found, written, header)
    assert written.read_bytes() == whole


@pytest.mark.parametrize("dataset", ["targets/toy-pose", "rows/group", "rows/id", "rows/split"])
def test_damaged_targets_are_written_anew_beside_the_same_features(
    written, header, features, dataset
):
    spoil(written, dataset, 2)
    found = check_cache(written)
    assert found.files[0].header == (dataset,)
    with pytest.raises(CacheError, match=f"damaged: {dataset} changed"):
        open_cache(written)
    with pytest.raises(CacheError, match=f"damaged: {dataset} changed"):
        cache_status(written, header, "missing")
    repair_without_rows(found, written, header)
    assert check_cache(written).sound
    with open_cache(written) as cache:
        for key, rows in features.items():
            np.testing.assert_array_equal(cache[key], rows)
        pose = cache.numbers("targets/toy-pose", np.arange(header.rows))
        np.testing.assert_array_equal(pose, header.source.targets["toy-pose"])


def test_a_file_that_does_not_say_what_its_features_are_is_set_aside(written, header, fill):
    with h5py.File(written, "r+") as file:
        file.attrs["ingredients"] = file.attrs["ingredients"].replace('"a', '"b', 1)
    found = check_cache(written)
    assert found.files[0].header == ("structure",)
    repair(found)
    assert written.with_name("net@toy.h5.damaged").is_file()
    with CacheWriter(written, header) as writer:
        assert len(writer.missing) == header.rows


def test_a_file_that_hdf5_cannot_read_is_set_aside(written):
    written.write_bytes(b"\0" * 2**16 + written.read_bytes()[2**16 :])
    found = check_cache(written)
    assert "cannot be read" in found.files[0].unreadable
    repair(found)
    assert [path.name for path in written.parent.iterdir()] == ["net@toy.h5.damaged"]


def test_damage_in_a_shard_is_found_under_the_rows_of_the_cache(sharded, header, fill):
    with open_cache(sharded) as cache:
        second = cache.shards[1]
    spoil(second, "features/head.1@none", 2)
    with pytest.raises(CacheError, match="Row 14 of the features head"):
        everything(sharded)
    found = check_cache(sharded)
    assert [file.lost.tolist() for file in found.files] == [[], [], [14]]
    assert repair(found) == 1
    with CacheWriter(sharded, header, unit=4) as writer:
        assert writer.missing.tolist() == [12, 13, 14, 15]  # the batch that it was computed in
        fill(writer)
        writer.finish()
    assert check_cache(sharded).sound


def test_a_lost_shard_is_named_and_its_rows_alone_are_computed_again(sharded, header, fill):
    with open_cache(sharded) as cache:
        first = cache.shards[0]
    first.unlink()
    with pytest.raises(CacheError, match="has lost its shard"):
        everything(sharded)
    with h5py.File(sharded) as file:  # and plain h5py gives no zeros that look like features
        assert np.isnan(file["features/trunk@mean"][0]).all()
    found = check_cache(sharded)
    assert found.files[1].unreadable == "the file is gone"
    repair(found)
    with CacheWriter(sharded, header) as writer:
        assert writer.missing.tolist() == list(range(12))
        fill(writer)
        writer.finish()
    assert check_cache(sharded).sound


def test_a_part_is_checked_as_far_as_it_is_written(tmp_path, header, fill):
    path = tmp_path / "net@toy.h5"
    with CacheWriter(path, header) as writer:
        fill(writer, 8)
    part = path.with_name("net@toy.h5.part")
    assert (check_cache(part).sound, check_cache(part).rows) == (True, 8)
    spoil(part, "features/trunk@mean", 5)
    spoil(part, "features/trunk@mean", 12)  # nothing is written there yet
    found = check_cache(part)
    assert found.files[0].lost.tolist() == [5]
    repair(found)
    assert cache_status(path, header, "missing").missing.tolist() == [5, *range(8, header.rows)]


def test_a_cache_that_is_written_or_older_or_a_shard_is_not_repaired(written, held, sharded):
    with held(written), pytest.raises(CacheError, match="is being written by process"):
        check_cache(written)
    with open_cache(sharded) as cache:
        shard = cache.shards[0]
    with pytest.raises(CacheError, match="is a shard of a cache"):
        repair(replace(check_cache(shard), path=shard))
    with h5py.File(written, "w") as file:
        file.attrs["schema"] = "layerscope-cache/3"
    assert check_cache(written).files[0].unreadable == (
        "it has the older schema 'layerscope-cache/3'"
    )


@pytest.fixture
def door(command_line):
    return command_line


def test_the_command_says_what_is_sound_what_is_not_and_what_to_do(door, written):
    code, out, _ = door("check", "cache", written.parent)
    assert (code, out) == (0, f"{written}: sound, 21 rows\n")
    spoil(written, "features/trunk@mean", 6)
    code, out, _ = door("check", "cache", written, "--json")
    (row,) = json.loads(out)["caches"]
    assert (code, row["sound"], row["repaired"]) == (1, False, False)
    assert row["lost_rows"] == {str(written): [6]}
    code, out, _ = door("check", "cache", written, "--repair")
    assert code == 1
    assert "trunk@mean: 1 row is not what was written (6)" in out
    assert "repeat the layerscope extract command" in out
    code, _, err = door("check", "cache", written.parent / "none.h5")
    assert code == 2
    assert "There is no file or folder" in err


def test_the_command_merges_and_says_what_is_one_file_already(door, sharded):
    code, out, err = door("merge", sharded, "--json")
    assert code == 0, err
    assert json.loads(out)["caches"] == [
        {"path": str(sharded), "images": 21, "shards": 2, "status": "merged"}
    ]
    assert not Path(str(sharded).replace(".h5", ".shards")).exists()
    code, out, _ = door("merge", sharded.parent)
    assert code == 0
    assert "one file already" in out
    code, _, err = door("merge", sharded)
    assert code == 2
    assert "is one file already" in err
