"""One, two and three ranks give one cache: the same features, order and targets."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from layerscope.cache import check_cache, merge, open_cache, open_statistics
from layerscope.data import ViewSettings
from layerscope.errors import LayerScopeError, RankError, UnknownNameError
from layerscope.extraction.extract import extract
from layerscope.models import load, select_cuts
from layerscope.runtime.cpus import bound_to
from layerscope.runtime.ranks import ALONE, Ranks
from tests.toy_source import ROWS, toy_source, write_place

PLUGIN = Path(__file__).parents[1] / "toy_source.py"
FEW = ("--cuts", "layer4.*,trunk,head.*", "--batch-size", "8", "--device", "cpu")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return write_place(tmp_path_factory.mktemp("ranks"))


def command(ranks, *words):
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    module = ["-m", "layerscope", "--plugin", str(PLUGIN), "extract", "net.toml"]
    return [*run, f"--nproc-per-node={ranks}", *module, "--data", "various=images", *FEW, *words]


def environment():
    # A thread for each process, as on a machine with a processor for each.
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def run(place, ranks, *words):
    return subprocess.run(
        command(ranks, *words),
        cwd=place,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )


class Caches(dict):
    """By the number of ranks, the cache that they write; each is written when it is asked for."""

    def __init__(self, place):
        self.place = place

    def __missing__(self, ranks):
        done = run(self.place, ranks, "-o", f"by{ranks}", "--json")
        assert done.returncode == 0, done.stderr
        (row,) = json.loads(done.stdout)["caches"]
        assert (row["status"], row["images"]) == ("written", ROWS)
        self[ranks] = self.place / row["path"]
        return self[ranks]


@pytest.fixture(scope="module")
def caches(place):
    return Caches(place)


@pytest.mark.slow
def test_ranks_share_views_and_write_what_one_writes(place):
    model = load(place / "net.toml")
    alone = extract(
        model,
        toy_source(place / "images"),
        place / "views1",
        cuts=select_cuts(model, FEW[1]),
        batch_size=8,
        device="cpu",
        limit=21,
        views=ViewSettings(2),
    )
    done = run(place, 2, "-o", "views2", "--views", "2", "--limit", "21", "--json")
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)["caches"]
    assert (row["status"], row["images"]) == ("written", 42)
    with open_cache(alone.path) as one, open_cache(place / row["path"]) as two:
        assert (two.views, len(two.shards), two.fingerprint) == (2, 2, one.fingerprint)
        for cut in one.cuts:
            np.testing.assert_allclose(one[cut.key], two[cut.key], rtol=2e-3, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [2, 3])
def test_several_ranks_write_what_one_writes(caches, ranks):
    with open_cache(caches[1]) as one, open_cache(caches[ranks]) as several:
        assert len(several.shards) == ranks
        assert several.fingerprint == one.fingerprint
        for cut in one.cuts:
            np.testing.assert_array_equal(one[cut.key], several[cut.key])
            for split in ("train", "val", "test"):
                ours, theirs = (it.view(cut.name, cut.pooling) for it in (one, several))
                assert ours.ids(split).tolist() == theirs.ids(split).tolist()
                for task in one.tasks:
                    np.testing.assert_array_equal(
                        ours.target(task.name, split), theirs.target(task.name, split)
                    )
    check = check_cache(caches[ranks])
    assert (check.sound, check.rows) == (True, ROWS)


def test_plain_h5py_sees_one_file(caches):
    with h5py.File(caches[1]) as one, h5py.File(caches[3]) as several:
        assert several["features"].keys() == one["features"].keys()
        for key, rows in one["features"].items():
            np.testing.assert_array_equal(several["features"][key][:], rows[:])


def test_merged_shards_are_the_file_that_one_rank_writes(caches, tmp_path):
    shutil.copytree(caches[3].parent, tmp_path / "copy")
    path = tmp_path / "copy" / caches[3].name
    merge(path)
    assert path.read_bytes() == caches[1].read_bytes()
    assert not list(path.parent.glob("*.shards"))


@pytest.mark.slow
def test_a_killed_job_goes_on_with_another_number_of_ranks(place, caches, tmp_path):
    shutil.copy(place / "net.toml", tmp_path)
    shutil.copytree(place / "images", tmp_path / "images")
    waiting = tmp_path / "images" / "40.png"
    waiting.unlink()
    os.mkfifo(waiting)  # whoever reads it waits there to be killed, on however fast a machine
    child = subprocess.Popen(
        command(2, "-o", "killed", "--batch-size", "1"),
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    parts = tmp_path / "killed" / "net@various.shards"
    while child.poll() is None and rows_in(parts) < 5:
        time.sleep(0.02)
    workers = Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()
    for process in (child.pid, *map(int, workers)):
        os.kill(process, signal.SIGKILL)
    child.wait()
    assert not list((tmp_path / "killed").glob("*.h5"))
    before = rows_in(parts)
    assert 5 <= before < ROWS
    waiting.unlink()
    shutil.copy(place / "images" / "40.png", waiting)
    done = run(tmp_path, 3, "-o", "killed", "--json")
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)["caches"]
    assert 5 <= row["resumed_from"] <= before
    with open_cache(caches[1]) as one, open_cache(tmp_path / row["path"]) as resumed:
        for cut in one.cuts:  # batches of one give the same but for rounding
            np.testing.assert_allclose(one[cut.key], resumed[cut.key], rtol=5e-3, atol=1e-4)


def rows_in(folder):
    count = 0
    for part in folder.glob("*.h5.part"):
        try:
            with h5py.File(part, "r", locking=False) as file:
                count += int((file["rows/state"][:] > 0).sum())
        except OSError:
            pass
    return count


def test_the_leader_alone_speaks_and_an_error_ends_every_rank(place):
    done = run(place, 2, "-o", "wrong", "--cuts", "layer9")
    assert done.returncode != 0
    assert done.stderr.count("There is no layer called 'layer9'") == 1
    assert "Traceback (most recent call last):\n  File" not in done.stderr.split("torch")[0]


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_streamed_statistics_are_those_of_the_cache_whatever_the_ranks(place, caches, ranks):
    done = run(place, ranks, "-o", f"stream{ranks}", "--stream", "statistics", "--json")
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)["caches"]
    with open_cache(caches[1]) as cache, open_statistics(place / row["path"]) as found:
        for cut in cache.cuts:
            for split in ("train", "val", "test"):
                rows = cache.view(cut.name, cut.pooling).features(split).astype(np.float64)
                moments = found.moments(cut.key, split)
                assert moments.count == len(rows)
                np.testing.assert_allclose(moments.mean, rows.mean(0), rtol=1e-10, atol=1e-14)
                centred = rows - rows.mean(0)
                scale = np.abs(centred.T @ centred).max()
                np.testing.assert_allclose(
                    moments.scatter, centred.T @ centred, rtol=1e-10, atol=1e-10 * scale
                )
                pose = cache.view(cut.name, cut.pooling).target("toy-pose", split)
                cross = found.cross(cut.key, "toy-pose", split).cross
                expected = centred.T @ (pose - pose.mean(0))
                np.testing.assert_allclose(
                    cross, expected, rtol=1e-10, atol=1e-10 * np.abs(expected).max()
                )
    assert not list((place / f"stream{ranks}").glob("*.parts"))


def test_a_process_alone_decides_and_gathers_by_itself():
    assert ALONE.leads
    assert ALONE.decide(lambda: 3) == 3
    assert ALONE.gather("it") == ["it"]
    assert not Ranks(1, 2).leads


def test_ranks_that_share_processors_have_their_own(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {2, 3, 5, 7, 8})
    assert ALONE.own_processors() == [2, 3, 5, 7, 8]
    both = [Ranks(rank, 2, rank, 2, rank).own_processors() for rank in range(2)]
    assert both == [[2, 3], [5, 7]]
    # What has more ranks than processors gives each one of them.
    many = [Ranks(rank, 7, rank, 7, rank).own_processors() for rank in range(7)]
    assert many == [[2], [3], [5], [7], [8], [2], [3]]


def test_where_processors_cannot_be_chosen_all_are_used(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.delattr(os, "sched_setaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    assert ALONE.own_processors() == [0, 1, 2]
    with bound_to([1]):
        assert ALONE.own_processors() == [0, 1, 2]


def test_errors_travel_between_ranks_as_they_are():
    import pickle

    for error in (
        UnknownNameError("task", "twoy", ["toy", "other"]),
        RankError("A rank is gone.", hint="Repeat."),
    ):
        told = pickle.loads(pickle.dumps(error))
        assert type(told) is type(error)
        assert isinstance(told, LayerScopeError)
        assert (str(told), told.hint) == (str(error), error.hint)
