"""Submission to a real SLURM: what is interrupted goes on, and what fails is said."""

import json
import os
import re
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.toy_source import CARD

pytestmark = pytest.mark.slurm

EXAMPLES = Path(__file__).parents[2] / "examples" / "objects3d.zip"
CHECKPOINT, LIMIT = "simclr-objects3d", 900
PATIENCE = 600
"""Seconds after which something that has not happened never will."""

SHOW_RANKS = """
import os
from pathlib import Path

names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
if "RANK" in os.environ:
    found = "\\n".join(f"{name}={os.environ[name]}" for name in names)
    Path(f"rank{os.environ['RANK']}.txt").write_text(found)
"""


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images") / "objects3d"
    with zipfile.ZipFile(EXAMPLES) as file:
        file.extractall(folder)
    return folder


def slow(images, output="features"):
    """An extraction of many batches, long enough to be interrupted."""
    data = ("--data", f"objects3d={images}", "--device", "cpu", "--limit", str(LIMIT))
    return ("extract", CHECKPOINT, *data, "--batch-size", "1", "--workers", "1", "-o", output)


def layerscope(*words):
    # Two threads on a busy machine wait for each other most of the time.
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "layerscope", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


@pytest.fixture(scope="module")
def uninterrupted(images, tmp_path_factory):
    output = tmp_path_factory.mktemp("whole")
    done = layerscope(*slow(images, output))
    assert done.returncode == 0, done.stderr
    return features(output)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def features(folder):
    (path,) = folder.glob("*.h5")
    with h5py.File(path) as file:
        return {key: rows[:] for key, rows in file["features"].items()}


def submitted(*words):
    done = layerscope("submit", "--json", *words)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["jobs"]


def until(happened, what):
    end = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < end, f"in vain waited for {what}"
        time.sleep(0.2)


def about(job, name):
    shown = subprocess.run(["scontrol", "show", "job", job], capture_output=True, text=True)
    return re.search(rf"\b{name}=(\S+)", shown.stdout).group(1)


def wait_for_rows():
    """Wait until the part has changed more often than it does while it is laid out."""
    changes = set()

    def written():
        changes.update(part.stat().st_mtime_ns for part in Path("features").glob("*.h5.part"))
        return len(changes) > 5

    until(written, "the first rows")


def requeued_by_hand(job):
    subprocess.run(["scontrol", "requeue", job], check=True)


def notified(job):
    subprocess.run(["scancel", "--signal=USR2", job], check=True)


def terminated_and_notified(job):
    subprocess.run(["scancel", "--signal=TERM", job], check=True)
    notified(job)


def preempted(job):
    more_urgent = ["sbatch", "--partition=high", "--cpus-per-task=2", "--output=/dev/null"]
    subprocess.run([*more_urgent, "--wrap=sleep 1"], check=True)


@pytest.mark.parametrize(
    ("interrupt", "minutes", "existing"),
    [
        (requeued_by_hand, 60, "missing"),
        (requeued_by_hand, 60, "replace"),
        (terminated_and_notified, 60, "missing"),
        (notified, 5, "missing"),  # a limit of ten minutes or less always counts as reached
        (preempted, 60, "replace"),
    ],
)
def test_an_interrupted_extraction_is_requeued_and_goes_on_to_the_same_features(
    images, uninterrupted, interrupt, minutes, existing
):
    words = (*slow(images), "--existing", existing)
    (row,) = submitted("--minutes", minutes, *words)
    wait_for_rows()
    interrupt(row["job"])
    until(lambda: about(row["job"], "Restarts") == "1", "the requeue")
    until(lambda: about(row["job"], "JobState") in ("COMPLETED", "FAILED"), "the end")
    log = Path(row["log"]).read_text()
    assert about(row["job"], "JobState") == "COMPLETED", log
    kept = [int(count) for count in re.findall(r"(\d+) rows are there", log)]
    assert len(kept) == 1, log
    assert 0 < kept[0] < LIMIT
    found = features(Path("features"))
    assert found.keys() == uninterrupted.keys()
    for key, rows in uninterrupted.items():
        np.testing.assert_array_equal(found[key], rows, err_msg=key)


def test_checkpoints_become_one_array_and_the_one_that_fails_is_reported(images):
    for seed in (1, 2):
        Path(f"net{seed}.toml").write_text(CARD.format(seed=seed))
    few = ("--data", f"objects3d={images}", "--device", "cpu", "--limit", "20")
    jobs = ("submit", "--wait", "--json", "--at-once", "1", "extract")
    done = layerscope(*jobs, "net1.toml", "net2.toml", *few)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["jobs"]
    (array,) = {row["job"].partition("_")[0] for row in rows}
    assert [row["job"] for row in rows] == [f"{array}_0", f"{array}_1"]
    assert [row["state"] for row in rows] == ["COMPLETED"] * 2
    written = sorted(path.name for path in Path("features").glob("*.h5"))
    assert [name.partition("@")[0] for name in written] == ["net1", "net2"]

    Path("net2.toml").write_text("nothing of use")
    done = layerscope(*jobs, "net1.toml", "net2.toml", *few)
    assert done.returncode == 1
    rows = json.loads(done.stdout)["jobs"]
    assert [row["state"] for row in rows] == ["COMPLETED", "FAILED"]
    assert "The card 'net2.toml' is not TOML" in Path(rows[1]["log"]).read_text()
    assert f"{rows[1]['job']}: FAILED" in done.stderr


def test_findings_are_no_failure_for_slurm_and_one_for_whoever_waits(images):
    Path("net1.toml").write_text(CARD.format(seed=1))
    next((images / "images").rglob("*.jp*g")).write_bytes(b"no image")
    few = ("--data", f"objects3d={images}", "--device", "cpu", "--skip-bad-images")
    done = layerscope("submit", "--wait", "--json", "extract", "net1.toml", *few)
    (row,) = json.loads(done.stdout)["jobs"]
    assert (done.returncode, row["state"]) == (1, "FINDINGS"), Path(row["log"]).read_text()
    assert about(row["job"], "JobState") == "COMPLETED"


def test_each_task_knows_its_rank():
    Path("show.py").write_text(SHOW_RANKS)
    done = layerscope(
        *("--plugin", "show.py", "submit", "--wait", "--json", "--tasks", "2"),
        *("extract", "nowhere.toml", "--data", "objects3d=nowhere"),
    )
    assert done.returncode == 1
    found = [
        dict(line.split("=") for line in Path(f"rank{rank}.txt").read_text().splitlines())
        for rank in (0, 1)
    ]
    for rank, variables in enumerate(found):
        assert variables["RANK"] == variables["LOCAL_RANK"] == str(rank)
        assert variables["WORLD_SIZE"] == variables["LOCAL_WORLD_SIZE"] == "2"
    assert found[0]["MASTER_PORT"] == found[1]["MASTER_PORT"]
    assert found[0]["MASTER_ADDR"] == found[1]["MASTER_ADDR"]


def test_a_job_that_slurm_refuses_is_an_error_with_its_reason():
    done = layerscope("submit", "--partition", "gone", "report", "results/")
    assert (done.returncode, done.stdout) == (2, "")
    assert "SLURM refused the job: " in done.stderr
    assert "invalid partition" in done.stderr
