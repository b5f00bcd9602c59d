"""What survives: kills at any moment, full disks, second writers, and other people's files."""

import errno
import os
import re
import shutil
import socket
from collections import namedtuple
from dataclasses import replace

import h5py
import numpy as np
import pytest

from layerscope.cache import CacheWriter, annotate, cache_status, merge, open_cache
from layerscope.cache.hdf5_offsets import Extent
from layerscope.errors import CacheError, DiskError

NAME = "net@toy.h5"


def contents(path):
    found = {}
    with h5py.File(path) as file:
        file.visititems(
            lambda name, item: (
                found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None
            )
        )
        return found, dict(file.attrs)


def assert_same_file(first, second):
    (rows, attributes), (others, other_attributes) = contents(first), contents(second)
    assert attributes == other_attributes
    assert rows.keys() == others.keys()
    for name, values in rows.items():
        np.testing.assert_array_equal(values, others[name], err_msg=name)


def test_a_complete_cache_of_the_same_things_is_there(complete, header):
    for existing in ("keep", "missing"):
        assert cache_status(complete, header, existing).state == "there"
        with pytest.raises(CacheError, match="is complete"):
            CacheWriter(complete, header, existing)


@pytest.mark.parametrize("existing", ["keep", "missing"])
def test_a_cache_of_something_else_is_refused_and_the_difference_named(complete, headers, existing):
    before = complete.read_bytes()
    other = headers(sha256="b" * 64, precision="bfloat16")
    with pytest.raises(CacheError, match="differs in precision, weights") as caught:
        cache_status(complete, other, existing)
    for way in ("-o", "--existing replace", "settings"):
        assert way in caught.value.hint
    assert complete.read_bytes() == before


def test_a_part_of_something_else_is_refused(tmp_path, header, headers, fill):
    with CacheWriter(tmp_path / NAME, header) as writer:
        fill(writer, 8)
    with pytest.raises(CacheError, match="differs in weights"):
        cache_status(tmp_path / NAME, headers(sha256="b" * 64), "missing")


def test_replace_leaves_the_old_cache_until_the_new_one_is_whole(complete, headers, fill):
    before = complete.read_bytes()
    other = headers(sha256="b" * 64)
    with CacheWriter(complete, other, "replace") as writer:
        fill(writer, 8)
    assert complete.read_bytes() == before
    with CacheWriter(complete, other, "replace") as writer:
        assert len(writer.missing) == other.rows
        fill(writer, other.rows)
        writer.finish()
    assert cache_status(complete, other, "keep").state == "there"


def test_keep_leaves_a_part_as_it_is(tmp_path, header, fill):
    with CacheWriter(tmp_path / NAME, header) as writer:
        fill(writer, 8)
    with pytest.raises(CacheError, match="incomplete and was left") as caught:
        cache_status(tmp_path / NAME, header, "keep")
    assert "--existing missing" in caught.value.hint


@pytest.mark.parametrize("name", [NAME, NAME + ".part"])
def test_somebody_elses_hdf5_file_is_never_overwritten_unasked(tmp_path, header, name):
    with h5py.File(tmp_path / name, "w") as file:
        file["precious"] = np.arange(3)
    with pytest.raises(CacheError, match="not a complete LayerScope cache"):
        CacheWriter(tmp_path / NAME, header)
    with h5py.File(tmp_path / name) as file:
        assert file["precious"][2] == 2


def test_a_file_that_is_no_hdf5_under_the_caches_name_is_refused(tmp_path, header):
    (tmp_path / NAME).write_text("notes")
    with pytest.raises(CacheError, match="not a complete LayerScope cache"):
        CacheWriter(tmp_path / NAME, header)


def test_a_second_writer_is_refused_in_every_mode(tmp_path, header, fill, held):
    with CacheWriter(tmp_path / NAME, header) as writer:
        fill(writer, 8)
    with held(tmp_path / NAME) as process:
        who = f"is being written by process {process} on {socket.gethostname()}"
        for existing in ("keep", "missing", "replace"):
            with pytest.raises(CacheError, match=re.escape(who)):
                CacheWriter(tmp_path / NAME, header, existing)
            with pytest.raises(CacheError, match=re.escape(who)):
                cache_status(tmp_path / NAME, header, existing)
    assert cache_status(tmp_path / NAME, header, "missing").rows_done == 8


def test_two_writers_in_one_process_are_refused_too(tmp_path, header, fill):
    with (
        CacheWriter(tmp_path / NAME, header),
        pytest.raises(CacheError, match=f"by process {os.getpid()} on"),
    ):
        CacheWriter(tmp_path / NAME, header)


def test_a_cache_too_large_for_the_disk_is_refused_before_it_is_begun(
    tmp_path, header, monkeypatch
):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(2000, 1000, 1000))
    with pytest.raises(DiskError, match=r"needs [\d,]+ bytes and 1,000 are free"):
        CacheWriter(tmp_path / NAME, header)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_up_costs_no_finished_row(tmp_path, header, fill, complete, monkeypatch):
    write = Extent.write

    def full(self, handle, first, rows):
        if self.shape == (5,) and first >= 8:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(self, handle, first, rows)

    path = tmp_path / "full" / NAME
    with monkeypatch.context() as patched:
        patched.setattr(Extent, "write", full)
        with (
            pytest.raises(DiskError, match="No space left") as caught,
            CacheWriter(path, header) as writer,
        ):
            fill(writer, header.rows)
    assert "rows that were written are safe" in caught.value.hint
    with CacheWriter(path, header) as writer:
        assert writer.missing.tolist() == list(range(8, header.rows))
        fill(writer, header.rows)
        writer.finish()
    assert_same_file(path, complete)


def test_finishing_early_is_refused(tmp_path, header, fill):
    with CacheWriter(tmp_path / NAME, header) as writer:
        fill(writer, 8)
        with pytest.raises(CacheError, match="has 8 of 21 rows"):
            writer.finish()


def test_what_is_discarded_is_gone(tmp_path, header, fill):
    with CacheWriter(tmp_path / NAME, header) as writer:
        fill(writer, 8)
        writer.discard()
    assert list(tmp_path.iterdir()) == []


def test_features_are_contiguous_and_allocated_before_the_first_row(tmp_path, header):
    with CacheWriter(tmp_path / NAME, header):
        pass
    with h5py.File(tmp_path / (NAME + ".part")) as file:
        for name, dataset in file["features"].items():
            assert dataset.chunks is None, name
            assert dataset.id.get_offset() is not None, name


@pytest.mark.parametrize("name", [NAME, NAME + ".part"])
@pytest.mark.parametrize("existing", ["keep", "missing"])
def test_a_cache_of_an_older_format_is_to_be_extracted_again(tmp_path, header, name, existing):
    with h5py.File(tmp_path / name, "w") as file:
        file.attrs["schema"] = "layerscope-cache/1"
    with pytest.raises(CacheError, match="older format") as caught:
        CacheWriter(tmp_path / NAME, header, existing)
    assert "--existing replace" in caught.value.hint
    assert cache_status(tmp_path / NAME, header, "replace").state == "new"


def test_a_cut_in_two_poolings_has_two_datasets(tmp_path, headers, fill):
    header = headers()
    twice = (*header.cuts, replace(header.cuts[0], pooling="max", width=2))
    values = {cut.key: np.full((21, cut.width), i, np.float32) for i, cut in enumerate(twice)}
    with CacheWriter(tmp_path / NAME, replace(header, cuts=twice)) as writer:
        writer.write(writer.missing, values, np.ones(21, dtype=bool))
        writer.finish()
    with h5py.File(tmp_path / NAME) as file:
        assert set(file["features"]) == {
            "layer1.0@mean", "layer1.0@max", "trunk@mean", "head.1@none"
        }  # fmt: skip
        assert file["features/layer1.0@max"].shape == (21, 2)


def relabelled(header):
    """The same rows with other splits, groups and targets, and a task more."""
    source = header.source
    more = replace(source.tasks[0], name="toy-more", classes=("a", "b", "c"))
    changed = replace(
        source,
        splits=np.roll(source.splits, 1),
        groups=np.array([f"other{i}" for i in range(header.rows)]),
        tasks=(*source.tasks, more),
        targets={
            **source.targets,
            "toy-kind": 1 - source.targets["toy-kind"],
            "toy-more": np.arange(header.rows) % 3,
        },
        task_splits={"toy-more": np.zeros(header.rows, np.int8)},
        annotations="b" * 64,
    )
    ingredients = {**header.ingredients, "annotations": "b" * 64}
    return replace(header, source=changed, ingredients=ingredients)


@pytest.fixture
def finished(tmp_path, header, fill):
    path = tmp_path / NAME
    with CacheWriter(path, header) as writer:
        fill(writer, header.rows)
        writer.finish()
    return path


def test_other_annotations_are_written_beside_the_same_features(finished, header, tmp_path, fill):
    before, _ = contents(finished)
    other = relabelled(header)
    assert cache_status(finished, other, "missing").outdated
    annotate(finished, other)
    with CacheWriter(tmp_path / "fresh.h5", other) as writer:
        fill(writer, other.rows)
        fresh = writer.finish()
    found, _ = contents(finished)
    for name, values in found.items():
        if name.startswith("features/"):
            np.testing.assert_array_equal(values, before[name])
    merge(finished)
    assert finished.read_bytes() == fresh.read_bytes()
    found = cache_status(finished, other, "missing")
    assert (found.state, found.outdated) == ("there", False)


def test_an_unfinished_cache_goes_on_with_other_annotations(tmp_path, header, fill):
    path = tmp_path / NAME
    with CacheWriter(path, header) as writer:
        fill(writer, 8)
    other = relabelled(header)
    with CacheWriter(path, other) as writer:
        assert writer.missing.tolist() == list(range(8, other.rows))
        fill(writer, other.rows)
        writer.finish()
    with open_cache(path) as cache:
        assert cache.fingerprint == other.fingerprint
        assert [task.name for task in cache.tasks][-1] == "toy-more"
        np.testing.assert_array_equal(
            cache.view("trunk").target("toy-kind", "val"),
            other.source.targets["toy-kind"][other.source.splits == "val"],
        )


def test_other_features_are_refused_whatever_the_annotations(finished, header, headers):
    other = relabelled(header)
    changed = replace(other, ingredients={**other.ingredients, "weights": "c" * 64})
    with pytest.raises(CacheError, match="differs in annotations, weights"):
        cache_status(finished, changed, "missing")
