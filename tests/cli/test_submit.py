"""Submission without a cluster: jobs, checks beforehand, and what a job runs where it lands."""

import json
import os
import shutil
import signal
import stat
import sys
import threading
import time
from pathlib import Path

import pytest

from layerscope.cli import slurm
from layerscope.errors import ClusterError
from layerscope.runtime import cluster as job
from layerscope.runtime.cluster import ClusterCommand

EXTRACT = ("extract", "a.pth", "b.pth", "--data", "in1k=x", "--data", "clevr=y")


@pytest.fixture
def door(tmp_path, monkeypatch, command_line):
    monkeypatch.chdir(tmp_path)
    return command_line


@pytest.fixture
def dry(door):
    def run(*words, before=()):
        code, out, err = door(*before, "submit", "--dry-run", "--json", *words)
        assert code == 0, err
        return json.loads(out)["jobs"]

    return run


def script(path, text):
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """The tools of SLURM, without SLURM: jobs are taken, and their states are what is asked for."""
    tools = tmp_path / "tools"
    tools.mkdir()
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    monkeypatch.setattr(slurm, "POLL_SECONDS", 0)
    script(tools / "srun", "exit 1")
    script(tools / "sbatch", 'cp "$1" sent.sh; echo "Submitted batch job 7"')

    def say(states):
        script(tools / "squeue", f"cat <<'END'\n{states}\nEND")

    return say


def test_each_checkpoint_and_source_is_a_job_with_the_other_options_unchanged(dry):
    rows = dry(*EXTRACT, "--cuts", "-4:", "--skip-bad-images", "--batch-size=8", "-o", "there")
    assert [(row["checkpoint"], row["source"]) for row in rows] == [
        ("a.pth", "in1k"),
        ("a.pth", "clevr"),
        ("b.pth", "in1k"),
        ("b.pth", "clevr"),
    ]
    assert all(row["command"][:2] == ["layerscope", "extract"] for row in rows)
    assert rows[1]["command"][2:5] == ["a.pth", "--data", "clevr=y"]
    others = [set(row["command"][5:]) for row in rows]
    assert (
        others
        == [{"--cuts", "-4:", "--skip-bad-images", "--batch-size", "8", "--output", "there"}] * 4
    )
    assert {row["job"] for row in rows} == {row["log"] for row in rows} == {None}


def test_options_behind_the_commands_name_are_its_own(dry):
    (row,) = dry("extract", "a.pth", "--dry-run", "--data", "in1k=x", "--json")
    assert row["command"][5:] == ["--dry-run", "--json"]


def test_evaluate_takes_several_checkpoints_and_sources_here(dry):
    rows = dry("evaluate", "a.pth", "b.pth", "--data", "inc=x", "--data", "folder=y")
    assert [row["command"][2:] for row in rows] == [
        [checkpoint, "--data", data]
        for checkpoint in ("a.pth", "b.pth")
        for data in ("inc=x", "folder=y")
    ]


@pytest.mark.parametrize(
    "words",
    [
        ("probe", "features/", "other/", "--tasks", "in1k"),
        ("report", "results/"),
        ("check", "family", "mine.py"),
    ],
)
def test_other_commands_are_one_job_word_by_word(dry, words):
    (row,) = dry(*words)
    assert row["command"] == ["layerscope", *words]
    assert row["checkpoint"] is row["source"] is None


def test_the_checkpoints_of_a_table_are_one_job_for_each_source(dry):
    rows = dry("extract", "--table", "runs.csv", "--data", "in1k=x", "--data", "clevr=y")
    assert [(row["checkpoint"], row["source"]) for row in rows] == [(None, "in1k"), (None, "clevr")]
    assert rows[0]["command"][1:] == ["extract", "--data", "in1k=x", "--table", "runs.csv"]


def test_options_before_submit_are_those_of_the_job_too(dry):
    Path("mine.py").write_text("")
    settings = {"layerscope": "0", "extract": {"checkpoints": ["a.pth"], "data": ["in1k=x"]}}
    Path("settings.json").write_text(json.dumps(settings))
    (row,) = dry("extract", before=("--plugin", "mine.py", "--config", "settings.json"))
    assert row["command"][1:] == [
        *("--plugin", "mine.py", "--config", "settings.json"),
        *("extract", "a.pth", "--data", "in1k=x"),
    ]


def test_the_dry_table_shows_what_each_job_would_run(door):
    code, out, err = door("submit", "--dry-run", "extract", "a net.pth", "--data", "in1k=x")
    assert (code, err) == (0, "")
    header, _, line = out.splitlines()
    assert header.split() == ["checkpoint", "source", "command"]
    assert line.endswith("layerscope extract 'a net.pth' --data in1k=x")


def test_a_dry_run_needs_neither_submitit_nor_slurm(door, monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert door("submit", "--dry-run", *EXTRACT)[0] == 0
    assert not list(Path().glob("logs*"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("nothing",), "No such command 'nothing'"),
        (("extract", "a.pth", "--data", "in1k=x", "--bach-size", "3"), "No such option"),
        (
            ("extract", "a.pth", "--data", "in1k=x", "--batch-size", "many"),
            "Invalid value for '--batch-size'",
        ),
        (
            ("extract", "a.pth", "--data", "in1k=x", "--declare", "stem=cifr"),
            "--declare stem=cifr cannot be right",
        ),
        (("extract", "a.pth"), "Missing option '--data'"),
        (("extract", "--data", "in1k=x"), "'extract' is to run on no checkpoint"),
        (
            ("extract", "a.pth", "--table", "t.csv", "--data", "in1k=x"),
            "'extract' is to run on named checkpoints and those of a table",
        ),
        (("extract", "a.pth", "--data", "in1k"), "--data 'in1k' does not say which source"),
        (("report", "results/", "more/", "--nothing"), "No such option"),
        (("check",), "'check' is a group of commands"),
        (("check", "nothing"), "No such command 'nothing'"),
        (("submit", "report"), "'submit' cannot be submitted"),
        (("demo",), "'demo' cannot be submitted"),
        (("--nodes", "2", "probe"), "2 tasks would each do all of 'probe'"),
        (("--slurm", "--account=x", "probe"), "--slurm '--account=x' names no option of sbatch"),
        ((), "Missing argument"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_submitted(door, cluster, words, said):
    code, out, err = door("submit", *words)
    assert (code, out) == (2, "")
    assert said in err
    assert not Path("sent.sh").exists()


def test_without_submitit_it_says_how_to_install_it(door, monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    code, out, err = door("submit", *EXTRACT)
    assert (code, out) == (2, "")
    assert "Submitit, which sends jobs to SLURM, is not installed." in err
    assert "pip install 'layerscope[slurm]'" in err


def test_without_slurm_it_says_where_there_is_one(door, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    code, out, err = door("submit", *EXTRACT)
    assert (code, out) == (2, "")
    assert "sbatch is not on the path" in err
    assert "--dry-run works everywhere" in err


def test_several_jobs_are_one_array_with_the_resources_that_were_asked_for(door, cluster):
    resources = ("--gpus", "4", "--nodes", "2", "--cpus", "6", "--memory", "50", "--minutes", "90")
    more = (
        "--partition",
        "day",
        "--at-once",
        "3",
        "--slurm",
        "account=vision",
        "--slurm",
        "spread-job",
    )
    code, out, err = door("submit", "--json", *resources, *more, *EXTRACT)
    assert (code, err) == (0, "Submitted 4 jobs.\n")
    rows = json.loads(out)["jobs"]
    assert [row["job"] for row in rows] == ["7_0", "7_1", "7_2", "7_3"]
    assert rows[2]["log"] == "logs/7_2_0_log.out"
    sent = Path("sent.sh").read_text()
    for line in (
        *("array=0-3%3", "gpus-per-node=4", "ntasks-per-node=4", "nodes=2", "cpus-per-task=6"),
        *("mem=50G", "time=90", "partition=day", "account=vision", "spread-job", "requeue"),
        "job-name=layerscope-extract",
    ):
        assert f"#SBATCH --{line}\n" in sent
    assert " --kill-on-bad-exit=1 --cpus-per-task=6 " in sent


def test_a_single_job_is_no_array(door, cluster):
    code, out, _ = door("submit", "probe", "features/")
    assert code == 0
    assert out.splitlines()[2].split()[0] == "7"
    assert "--array" not in Path("sent.sh").read_text()


@pytest.mark.parametrize(("words", "limits"), [(("probe",), 100), (("pretrain", "simclr"), 0)])
def test_only_what_goes_on_where_it_stopped_is_requeued_at_its_time_limit(
    door, cluster, words, limits
):
    import pickle

    needed = ("--data", "objects3d=x", "-o", "net.safetensors") if words[0] == "pretrain" else ()
    assert door("submit", *words, *needed)[0] == 0
    with Path("logs/7_submitted.pkl").open("rb") as file:
        sent = pickle.load(file)
    assert sent._timeout_countdown == limits
    assert sent.function == ClusterCommand((*words, *needed))


def test_waiting_tells_the_state_of_each_job_and_counts_a_lost_one_as_failed(door, cluster):
    cluster("7_0 CANCELLED\n7_1 OUT_OF_MEMORY\n7_2 TIMEOUT\n8 RUNNING")
    code, out, err = door("submit", "--wait", "--json", *EXTRACT)
    assert code == 1
    states = [row["state"] for row in json.loads(out)["jobs"]]
    assert states == ["CANCELLED", "OUT_OF_MEMORY", "TIMEOUT", "UNKNOWN"]
    assert "7_1: OUT_OF_MEMORY, logs/7_1_0_log.out" in err


def test_who_stops_waiting_is_told_that_the_jobs_go_on(door, cluster, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(slurm, "wait", interrupt)
    code, out, err = door("submit", "--wait", *EXTRACT)
    assert (code, out) == (130, "")
    assert "to end them: scancel 7" in err


@pytest.fixture
def lands(tmp_path, monkeypatch):
    """A job on a node: what stands for Python writes down how it was called."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    for name in ("SLURM_RESTART_COUNT", "RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)

    def land(then="exit 0", **variables):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        record = 'for word; do echo "$word"; done > words; env > variables; '
        monkeypatch.setattr(sys, "executable", str(script(tmp_path / "python", record + then)))

    return land


def called():
    return Path("words").read_text().split()


def variables():
    return dict(line.split("=", 1) for line in Path("variables").read_text().splitlines())


def test_a_job_runs_the_command(lands):
    lands()
    assert ClusterCommand(("probe", "features/"))() == 0
    assert called() == ["-m", "layerscope", "probe", "features/"]
    assert "RANK" not in variables()


def test_findings_are_returned_and_every_other_exit_code_is_a_failure(lands):
    lands("exit 1")
    assert ClusterCommand(("probe",))() == 1
    lands("exit 2")
    with pytest.raises(ClusterError, match="'layerscope probe' ended with exit code 2"):
        ClusterCommand(("probe",))()


@pytest.mark.parametrize(
    "words",
    [
        ("extract", "a.pth", "--data", "in1k=x", "--existing", "replace"),
        ("extract", "a.pth", "--data", "in1k=x", "--existing=replace"),
        ("probe", "--existing", "replace"),
    ],
)
def test_what_was_begun_anew_is_continued_when_requeued(door, cluster, lands, words):
    import pickle

    assert door("submit", *words)[0] == 0
    with Path("logs/7_submitted.pkl").open("rb") as file:
        sent = pickle.load(file).function
    lands(SLURM_RESTART_COUNT="0")
    sent()
    assert called()[-1] == words[-1].removeprefix("--existing=")
    lands(SLURM_RESTART_COUNT="1")
    sent.checkpoint().result()
    assert called()[-2:] == ["--existing", "missing"]


def test_what_is_continued_anyway_runs_the_same_words_when_requeued(lands):
    lands(SLURM_RESTART_COUNT="3")
    assert ClusterCommand(("probe", "--existing", "keep")).checkpoint().result() == 0
    assert called()[2:] == ["probe", "--existing", "keep"]


def test_the_tasks_of_a_job_find_one_another(lands):
    lands(
        SLURM_NTASKS="8",
        SLURM_JOB_NUM_NODES="2",
        SLURM_PROCID="6",
        SLURM_LOCALID="2",
        SLURM_NODEID="1",
        SLURM_JOB_NODELIST="node[03-04]",
    )
    ClusterCommand(("extract",))()
    found = variables()
    assert {name: found[name] for name in found if name.endswith(("RANK", "WORLD_SIZE"))} == {
        "RANK": "6",
        "WORLD_SIZE": "8",
        "LOCAL_RANK": "2",
        "LOCAL_WORLD_SIZE": "4",
    }
    assert found["MASTER_ADDR"] == "node03"
    assert 1024 < int(found["MASTER_PORT"]) < 65536


@pytest.mark.slow
def test_a_notice_that_reaches_the_command_does_not_end_it(tmp_path, monkeypatch):
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    notified = tmp_path / "notified.py"
    notified.write_text("import os, signal\nos.kill(os.getpid(), signal.SIGUSR2)\n")
    assert ClusterCommand(("--plugin", str(notified), "list", "methods"))() == 0


def test_a_command_that_is_told_to_stop_fails_only_when_the_job_is_left_alone(lands, monkeypatch):
    waited = []
    monkeypatch.setattr(job.time, "sleep", waited.append)
    lands("kill -TERM $$")
    with pytest.raises(ClusterError, match="exit code -15"):
        ClusterCommand(("probe",))()
    assert waited == [job.GRACE_SECONDS]


def test_a_job_that_is_requeued_leaves_no_command_behind(lands):
    def leave(*_):
        raise SystemExit(-1)

    def notify():
        while not Path("pid").exists() or not Path("pid").read_text():
            time.sleep(0.01)
        # To the thread that a job has: this one would take a signal that the other one blocks.
        signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR2)

    lands("echo $$ > pid; exec sleep 3600")
    before = signal.signal(signal.SIGUSR2, leave)
    try:
        threading.Thread(target=notify).start()
        with pytest.raises(SystemExit):
            ClusterCommand(("probe",))()
    finally:
        signal.signal(signal.SIGUSR2, before)
    with pytest.raises(ProcessLookupError):
        os.kill(int(Path("pid").read_text()), 0)
