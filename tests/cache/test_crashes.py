"""A writer may die at any instant, and a disk fill up: at most the batches in flight are lost."""

import json
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

LAB = Path(__file__).with_name("crash_lab.py")


@pytest.fixture
def tmp_path(tmp_path):
    """A folder in memory where there is one: thousands of syncs take their time on a disk."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield Path(folder)


def experiment(name, folder, header, features, *count):
    (folder / "given").write_bytes(pickle.dumps((header, features)))
    command = [sys.executable, str(LAB), name, str(folder), *map(str, count)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("count", [40, pytest.param(200, marks=pytest.mark.slow)])
def test_killed_at_random_moments_the_finished_file_is_the_same_to_the_bit(
    tmp_path, headers, features, count
):
    found = experiment("random", tmp_path, headers(), features, count)
    assert found["wrong"] == []
    assert found["kills"] >= count


@pytest.mark.slow
@pytest.mark.parametrize("ways", [1, 3])
def test_killed_before_within_and_after_every_call_that_changes_the_disk(
    tmp_path, headers, features, ways
):
    found = experiment("every-call", tmp_path, headers(), features, ways)
    assert found["wrong"] == []
    assert found["kills"] >= 200 * ways / 3


@pytest.mark.slow
def test_one_of_two_ranks_that_is_killed_does_not_spoil_the_other(tmp_path, headers, features):
    found = experiment("ranks", tmp_path, headers(), features)
    assert found["wrong"] == []
    assert found["kills"] >= 20


@pytest.mark.slow
def test_a_merge_that_is_killed_loses_nothing(tmp_path, headers, features):
    found = experiment("merge", tmp_path, headers(), features)
    assert found["wrong"] == []
    assert found["kills"] >= 20


@pytest.mark.slow
def test_killed_while_annotating_no_feature_is_lost(tmp_path, headers, features):
    found = experiment("annotate", tmp_path, headers(), features)
    assert found["wrong"] == []
    assert found["kills"] >= 5


def small_disk() -> list[str]:
    """Return what runs a command where a disk of 64 MiB can be mounted."""
    return ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "-rm"]


def can_mount() -> bool:
    if not shutil.which("unshare"):
        return False
    mount = "mount -t tmpfs -o size=64m tmpfs /mnt"
    return not subprocess.run([*small_disk(), "sh", "-c", mount], capture_output=True).returncode


@pytest.mark.slow
@pytest.mark.skipif(not can_mount(), reason="no disk can be mounted here")
def test_a_disk_of_64_mib_that_fills_up_costs_no_finished_row(tmp_path, headers):
    header = headers(rows=1500)
    cuts = tuple(replace(cut, width=1000 * (cut.index + 2)) for cut in header.cuts)
    header = replace(header, cuts=cuts)  # 27 MiB
    draw = np.random.default_rng(0)
    features = {cut.key: draw.standard_normal((1500, cut.width), np.float32) for cut in cuts}
    given, disk = tmp_path / "given", tmp_path / "disk"
    given.write_bytes(pickle.dumps((header, features)))
    disk.mkdir()
    # The disk is seen by this command alone, and gone with it.
    script = f'mount -t tmpfs -o size=64m tmpfs {disk} && ln -s {given} {disk}/given && exec "$@"'
    lab = [sys.executable, str(LAB), "full", str(disk)]
    command = [*small_disk(), "sh", "-c", script, "sh", *lab]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"filled": 3, "wrong": []}
