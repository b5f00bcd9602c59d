"""The job of a cluster: one layerscope command, which goes on where it stopped when requeued."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from layerscope.errors import DONE, FINDINGS, ClusterError

if TYPE_CHECKING:
    from submitit.helpers import DelayedSubmission

GRACE_SECONDS = 600
"""For which a job whose command was told to stop waits to be stopped itself."""
_NOTICES = (signal.SIGUSR1, signal.SIGUSR2)


@dataclass(frozen=True, slots=True)
class ClusterCommand:
    """Runs a command of layerscope where submitit calls it, on each of the job's tasks.

    The command is a process of its own. Submitit hears of preemption and of the time limit through
    a signal to this process, and Python answers signals between two of its instructions: a command
    that waits for other ranks, or in a library, would not answer before SLURM kills it.
    """

    words: tuple[str, ...]
    """Of the command, without ``layerscope``."""
    replaces: bool = False
    """Whether it writes anew what is there: the first time, and not when it is requeued."""

    def __call__(self) -> int:
        """Run the command, and return its exit code where it finished.

        Exit code 1 is returned like 0: the work is done and its findings are in the log, and
        running it again would find the same.

        Raises:
            ClusterError: It ended with another exit code.
        """
        words = self.words
        if self.replaces and int(os.environ.get("SLURM_RESTART_COUNT", "0")) > 0:
            # The last of several values counts, wherever the first came from.
            words = *words, "--existing", "missing"
        code = _run([sys.executable, "-m", "layerscope", *words], _ranks())
        if code == -signal.SIGTERM:
            # SLURM takes the node back: the end of this process, or its notice, is on the way.
            # Failing before would keep the job from being requeued.
            time.sleep(GRACE_SECONDS)
        if code not in (DONE, FINDINGS):
            raise ClusterError(
                f"{shlex.join(['layerscope', *self.words])!r} ended with exit code {code}.",
                hint="The lines above in this log say why.",
            )
        return code

    def checkpoint(self) -> DelayedSubmission:
        """Return what a requeue runs: the same, because the command keeps what it finished."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def _run(command: list[str], variables: dict[str, str]) -> int:
    """Return the exit code of a command that the notice of an end does not reach."""
    # Where SLURM tracks processes without cgroups, its notice goes to the command too, and would
    # end it before submitit has requeued the job. A command inherits what is blocked here.
    signal.pthread_sigmask(signal.SIG_BLOCK, _NOTICES)
    with subprocess.Popen(command, env=os.environ | variables) as process:
        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _NOTICES)
            return process.wait()
        finally:
            process.kill()


def _ranks() -> dict[str, str]:
    """Return the variables by which torch's processes find one another; none for a single one."""
    from submitit.helpers import TorchDistributedEnvironment

    job = TorchDistributedEnvironment()
    if job.world_size == 1:
        return {}
    return {
        "RANK": str(job.rank),
        "WORLD_SIZE": str(job.world_size),
        "LOCAL_RANK": str(job.local_rank),
        "LOCAL_WORLD_SIZE": str(job.local_world_size),
        "MASTER_ADDR": job.master_addr,
        "MASTER_PORT": str(job.master_port),
    }
