"""SLURM by way of submitit: what a job may use, sending jobs, and waiting for them."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from layerscope.errors import ClusterError

if TYPE_CHECKING:
    import submitit

    from layerscope.runtime.cluster import ClusterCommand

TIME_LIMITS = 100
"""That one job may use up, where each goes on where the last one stopped."""

FINISHED, FINDINGS = "COMPLETED", "FINDINGS"
ENDED = (
    f"{FINISHED} BOOT_FAIL CANCELLED DEADLINE FAILED NODE_FAIL OUT_OF_MEMORY PREEMPTED TIMEOUT"
).split()
"""SLURM's states that a job does not leave."""

POLL_SECONDS = 5
_FORGOTTEN = "UNKNOWN"


def submit(
    jobs: Sequence[ClusterCommand],
    resources: Mapping[str, Any],
    more: Mapping[str, str | bool],
    logs: Path,
    *,
    resumed: bool,
) -> list[submitit.Job[int]]:
    """Send jobs to the cluster, several of them as one array.

    Args:
        jobs: What each job runs.
        resources: Their name, and what each may use, as submitit calls it; SLURM decides on None.
        more: Other options of ``sbatch``, by their names.
        logs: The folder for logs and submitit's records; every node must see it.
        resumed: Whether a job that reached its time limit goes on where it stopped.
    """
    try:
        import submitit
        from submitit.core.utils import FailedJobError
    except ImportError:
        raise ClusterError(
            "Submitit, which sends jobs to SLURM, is not installed.",
            hint="Install it: pip install 'layerscope[slurm]'.",
        ) from None
    if shutil.which("sbatch") is None:
        raise ClusterError(
            "There is no SLURM on this machine: sbatch is not on the path.",
            hint="Submit from a login node of the cluster; --dry-run works everywhere.",
        )
    executor = submitit.SlurmExecutor(logs, max_num_timeout=TIME_LIMITS if resumed else 0)
    # Ranks wait for one another: without the first, the others would wait in vain.
    srun = ["--kill-on-bad-exit=1"]
    if resources["cpus_per_task"] is not None:
        # Since SLURM 22.05 srun no longer takes this over from sbatch.
        srun.append(f"--cpus-per-task={resources['cpus_per_task']}")
    executor.update_parameters(
        **{name: value for name, value in resources.items() if value is not None},
        stderr_to_stdout=True,
        # Some clusters do not requeue unless they are asked to.
        additional_parameters={"requeue": True, **more},
        srun_args=srun,
    )
    try:
        sent: list[submitit.Job[int]] = executor.submit_array(jobs)
    except FailedJobError as error:
        raise ClusterError(
            f"SLURM refused the job: {_reason(error)}.",
            hint="Compare the options with what sinfo and your account allow.",
        ) from error
    return sent


def _reason(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].removeprefix("sbatch: error: ").rstrip(".") if lines else "it gave no reason"


def wait(jobs: Sequence[submitit.Job[int]], ended: Callable[[str, str], object]) -> dict[str, str]:
    """Wait until every job has ended, and return their states by their ids."""
    found: dict[str, str] = {}
    while True:
        states = _states()
        for job in jobs:
            # A controller that does not answer says nothing about the jobs.
            state = "" if states is None else states.get(job.job_id, _FORGOTTEN)
            if job.job_id not in found and (state in ENDED or state == _FORGOTTEN):
                found[job.job_id] = _outcome(job, state)
                ended(job.job_id, found[job.job_id])
        if len(found) == len(jobs):
            return found
        time.sleep(POLL_SECONDS)


def _states() -> dict[str, str] | None:
    """Return the states of the user's jobs as the controller has them, without accounting."""
    words = ["squeue", "--me", "--array", "--states=all", "--noheader", "--format=%i %T"]
    asked = subprocess.run(words, capture_output=True, text=True, check=False)
    if asked.returncode:
        return None
    return dict(line.split(maxsplit=1) for line in asked.stdout.splitlines() if line.strip())


def _outcome(job: submitit.Job[int], state: str) -> str:
    """Return how a job ended: what SLURM says, and what its command returned."""
    from submitit.core.utils import UncompletedJobError

    if state not in (FINISHED, _FORGOTTEN):
        return state
    if state == _FORGOTTEN and not job.paths.result_pickle.exists():
        return _FORGOTTEN
    try:
        return FINDINGS if any(job.results()) else FINISHED
    except UncompletedJobError:
        return "FAILED"
