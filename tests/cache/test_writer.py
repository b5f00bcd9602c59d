"""What survives: kills at any moment, full disks, second writers, and other people's files."""

import errno
import pickle
import shutil
import signal
import subprocess
import sys
from collections import namedtuple
from dataclasses import replace

import h5py
import numpy as np
import pytest

from layerscope.cache import CacheWriter, annotate, open_cache, standing
from layerscope.errors import CacheError, DiskError

NAME = "net@toy.h5"

# Dies by SIGKILL at the n-th flush, before or after it: flush 0 is the header's, then each batch
# has one after its rows and one after the marker.
CHILD = """
import os, pickle, signal, sys
from pathlib import Path
import h5py, numpy as np
from layerscope.cache import CacheWriter

header, features = pickle.loads(Path(sys.argv[1]).read_bytes())
path, last, before = Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "before"
flush, calls = h5py.File.flush, 0

def deadly(file):
    global calls
    if calls == last and before:
        os.kill(os.getpid(), signal.SIGKILL)
    flush(file)
    if calls == last:
        os.kill(os.getpid(), signal.SIGKILL)
    calls += 1

h5py.File.flush = deadly
with CacheWriter(path, header) as writer:
    while writer.rows_done < header.rows:
        rows = slice(writer.rows_done, writer.rows_done + 4)
        part = {name: values[rows] for name, values in features.items()}
        writer.write(part, np.ones(len(part["trunk@mean"]), dtype=bool))
"""


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


@pytest.mark.parametrize(
    ("flush", "when", "rows"),
    [
        (0, "before", None),  # before the header is in the file
        (0, "after", 0),
        (3, "before", 4),  # rows of the second batch written, not flushed
        (3, "after", 4),  # flushed, marker not advanced
        (4, "before", 4),  # marker advanced in memory only
        (4, "after", 8),
    ],
)
def test_a_kill_at_any_moment_loses_no_acknowledged_row_and_the_resumed_file_is_identical(
    flush, when, rows, header, features, complete, fill, tmp_path
):
    given = tmp_path / "given.pickle"
    given.write_bytes(pickle.dumps((header, features)))
    path = tmp_path / "killed" / NAME
    child = [sys.executable, "-c", CHILD, str(given), str(path), str(flush), when]
    assert subprocess.run(child, check=False).returncode == -signal.SIGKILL

    found = standing(path, header, "missing")
    assert found.status == ("new" if rows is None else "part")
    assert found.rows_done == (rows or 0)
    with CacheWriter(path, header) as writer:
        assert writer.rows_done == (rows or 0)
        fill(writer, header.rows)
        writer.finish()
    assert_same_file(path, complete)
    assert not path.with_name(NAME + ".part").exists()


def test_a_complete_cache_of_the_same_things_is_there(complete, header):
    for existing in ("keep", "missing"):
        assert standing(complete, header, existing).status == "there"
        with pytest.raises(CacheError, match="is complete"):
            CacheWriter(complete, header, existing)


@pytest.mark.parametrize("existing", ["keep", "missing"])
def test_a_cache_of_something_else_is_refused_and_the_difference_named(complete, headers, existing):
    before = complete.read_bytes()
    other = headers(sha256="b" * 64, precision="bfloat16")
    with pytest.raises(CacheError, match="differs in precision, weights") as caught:
        standing(complete, other, existing)
    for way in ("-o", "--existing replace", "settings"):
        assert way in caught.value.hint
    assert complete.read_bytes() == before


def test_a_part_of_something_else_is_refused(tmp_path, header, headers, fill):
    with CacheWriter(tmp_path / NAME, header) as writer:
        fill(writer, 8)
    with pytest.raises(CacheError, match="differs in weights"):
        standing(tmp_path / NAME, headers(sha256="b" * 64), "missing")


def test_replace_leaves_the_old_cache_until_the_new_one_is_whole(complete, headers, fill):
    before = complete.read_bytes()
    other = headers(sha256="b" * 64)
    with CacheWriter(complete, other, "replace") as writer:
        fill(writer, 8)
    assert complete.read_bytes() == before
    with CacheWriter(complete, other, "replace") as writer:
        assert writer.rows_done == 0
        fill(writer, other.rows)
        writer.finish()
    assert standing(complete, other, "keep").status == "there"


def test_keep_leaves_a_part_as_it_is(tmp_path, header, fill):
    with CacheWriter(tmp_path / NAME, header) as writer:
        fill(writer, 8)
    with pytest.raises(CacheError, match="incomplete and was left") as caught:
        standing(tmp_path / NAME, header, "keep")
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
    with held(tmp_path / (NAME + ".part")):
        for existing in ("keep", "missing", "replace"):
            with pytest.raises(CacheError, match="is being written by another process"):
                CacheWriter(tmp_path / NAME, header, existing)
    assert standing(tmp_path / NAME, header, "missing").rows_done == 8


def test_a_writer_that_comes_while_another_creates_the_file_is_refused(
    tmp_path, header, fill, monkeypatch
):
    from layerscope.cache import writer as module

    def overtaken(path, header, existing):
        found = standing(path, header, existing)
        path.with_name(NAME + ".part").touch()
        return found

    monkeypatch.setattr(module, "standing", overtaken)
    with pytest.raises(CacheError, match="is being written by another process"):
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
    write = h5py.Dataset.__setitem__

    def full(self, rows, values):
        if self.name == "/features/trunk@mean" and rows.start >= 8:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(self, rows, values)

    path = tmp_path / "full" / NAME
    with monkeypatch.context() as patched:
        patched.setattr(h5py.Dataset, "__setitem__", full)
        with (
            pytest.raises(DiskError, match="No space left") as caught,
            CacheWriter(path, header) as writer,
        ):
            fill(writer, header.rows)
    assert "first 8 rows are safe" in caught.value.hint
    with CacheWriter(path, header) as writer:
        assert writer.rows_done == 8
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
    match = "incomplete" if (name, existing) == (NAME + ".part", "keep") else "older format"
    with pytest.raises(CacheError, match=match) as caught:
        CacheWriter(tmp_path / NAME, header, existing)
    assert "--existing replace" in caught.value.hint
    assert standing(tmp_path / NAME, header, "replace").status == "new"


def test_a_cut_in_two_poolings_has_two_datasets(tmp_path, headers, fill):
    header = headers()
    twice = (*header.cuts, replace(header.cuts[0], pooling="max", width=2))
    values = {cut.key: np.full((21, cut.width), i, np.float32) for i, cut in enumerate(twice)}
    with CacheWriter(tmp_path / NAME, replace(header, cuts=twice)) as writer:
        writer.write(values, np.ones(21, dtype=bool))
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
    assert standing(finished, other, "missing").outdated
    annotate(finished, other)
    with CacheWriter(tmp_path / "fresh.h5", other) as writer:
        fill(writer, other.rows)
        fresh = writer.finish()
    found, attributes = contents(finished)
    expected, wanted = contents(fresh)
    assert found.keys() == expected.keys()
    for name, values in found.items():
        np.testing.assert_array_equal(values, expected[name], err_msg=name)
        if name.startswith("features/"):
            np.testing.assert_array_equal(values, before[name])
    assert attributes == wanted
    found = standing(finished, other, "missing")
    assert (found.status, found.outdated) == ("there", False)


ANNOTATE = """
import os, pickle, signal, sys
from pathlib import Path
import h5py
from layerscope.cache import annotate

header = pickle.loads(Path(sys.argv[1]).read_bytes())
last, calls, create = int(sys.argv[3]), 0, h5py.Group.create_dataset

def deadly(self, *arguments, **options):
    global calls
    if calls == last:
        self.file.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    calls += 1
    return create(self, *arguments, **options)

h5py.Group.create_dataset = deadly
annotate(Path(sys.argv[2]), header)
"""


@pytest.mark.parametrize("last", range(6))
def test_killed_while_annotating_a_cache_is_none_until_the_same_call_completes_it(
    finished, header, tmp_path, last
):
    other = relabelled(header)
    whole = shutil.copy(finished, tmp_path / "whole.h5")
    annotate(tmp_path / "whole.h5", other)
    (tmp_path / "header").write_bytes(pickle.dumps(other))
    child = [sys.executable, "-c", ANNOTATE, str(tmp_path / "header"), str(finished), str(last)]
    assert subprocess.run(child, check=False).returncode == -signal.SIGKILL
    with pytest.raises(CacheError, match="is incomplete"):
        open_cache(finished)
    for asked in (other, header):  # what was asked for then, or what it was made with
        found = standing(finished, asked, "missing")
        assert (found.status, found.outdated) == ("there", True)
    annotate(finished, other)
    found, _ = contents(finished)
    expected, _ = contents(whole)
    assert found.keys() == expected.keys()
    for name, values in found.items():
        np.testing.assert_array_equal(values, expected[name], err_msg=name)


def test_an_unfinished_cache_goes_on_with_other_annotations(tmp_path, header, fill):
    path = tmp_path / NAME
    with CacheWriter(path, header) as writer:
        fill(writer, 8)
    other = relabelled(header)
    with CacheWriter(path, other) as writer:
        assert writer.rows_done == 8
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
        standing(finished, changed, "missing")
