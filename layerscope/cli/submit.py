"""``layerscope submit``: a command on a SLURM cluster, where a requeue continues it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from layerscope.cli import slurm, terminal
from layerscope.cli.options import Json, keep_option, print_option
from layerscope.cli.split import RESUMED, SHARED, PlannedJob, split
from layerscope.errors import FINDINGS, INTERRUPTED, SettingsError

job_option = partial(typer.Option, rich_help_panel="What each job may use")

Row = dict[str, Any]


def command(
    context: typer.Context,
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="COMMAND...", help="A command of layerscope, with its arguments and options."
        ),
    ],
    partition: Annotated[
        str | None,
        job_option("--partition", "-p", help="The partition of the cluster, if not its default."),
    ] = None,
    nodes: Annotated[
        int, job_option("--nodes", "-N", min=1, help="How many nodes each job gets.")
    ] = 1,
    gpus: Annotated[int, job_option(min=0, help="How many GPUs each job gets on each node.")] = 0,
    tasks: Annotated[
        int | None,
        job_option(min=1, help="How many processes on each node; for extract one for each GPU."),
    ] = None,
    cpus: Annotated[
        int | None, job_option("--cpus", "-c", min=1, help="How many processors each process gets.")
    ] = None,
    memory: Annotated[
        int | None, job_option(min=1, help="How much memory each job gets on each node, in GiB.")
    ] = None,
    minutes: Annotated[
        int, job_option("--minutes", "-t", min=1, help="How long a job runs before it is requeued.")
    ] = 240,
    at_once: Annotated[
        int | None, job_option(min=1, help="How many jobs may run at the same time, if not all.")
    ] = None,
    more: Annotated[
        list[str] | None,
        job_option("--slurm", metavar="KEY[=VALUE]", help="Another option of sbatch; repeatable."),
    ] = None,
    logs: Annotated[
        Path, keep_option(help="The folder for the logs, which every node must see.")
    ] = Path("logs"),
    wait: Annotated[
        bool, print_option("--wait", help="Wait for the jobs; exit code 1 if one of them failed.")
    ] = False,
    dry_run: Annotated[
        bool, print_option("--dry-run", help="Print what each job would run, and submit nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Send a command to a SLURM cluster.

    Extract and evaluate become a job for each checkpoint and source, and so do the baselines of
    each checkpoint that is named; several jobs are one job array. A job that is preempted or
    reaches its time limit is put into the queue again: extract, evaluate, probe and render then go
    on where they stopped, other commands begin again. Jobs run in this folder. The command is
    checked before anything is submitted. Options of submit come before the command.

    \b
    Examples:
      layerscope submit --gpus 1 extract a.pth b.pth --data in1k=imagenet/ --data clevr=CLEVR_v1.0
      layerscope submit -N 2 --gpus 8 -c 12 --slurm account=vision extract a.pth --data in1k=DIR
      layerscope submit -p cpu -c 16 --memory 64 --wait probe features/ --tasks in1k
      layerscope submit --dry-run --json extract a.pth b.pth --data in1k=imagenet/
    """
    parts = split(context.parent, words)
    name = parts[0].command
    resources = {
        "job_name": f"layerscope-{name.replace(' ', '-')}",
        "time": minutes,
        "nodes": nodes,
        "ntasks_per_node": _count_tasks(name, nodes, gpus, tasks),
        "gpus_per_node": gpus or None,
        "cpus_per_task": cpus,
        "mem": memory and f"{memory}G",
        "partition": partition,
        "array_parallelism": at_once,
    }
    others = dict(map(_parse_option, more or ()))
    rows = [_row(part) for part in parts]
    if not dry_run:
        commands = [part.job for part in parts]
        jobs = slurm.submit(commands, resources, others, logs, resumed=name in RESUMED)
        for row, job in zip(rows, jobs, strict=True):
            row |= {"job": job.job_id, "log": str(logs / job.paths.stdout.name)}
        terminal.say(f"Submitted {len(rows)} job{'s' * (len(rows) != 1)}.")
        if wait:
            _wait(rows, jobs)
    terminal.emit({"jobs": rows}, as_json, lambda: _format(rows))
    if any(row["state"] not in (None, slurm.FINISHED) for row in rows):
        raise typer.Exit(FINDINGS)


def _count_tasks(name: str, nodes: int, gpus: int, asked: int | None) -> int:
    if name == SHARED:
        return asked or max(gpus, 1)
    if (count := nodes * (asked or 1)) > 1:
        raise SettingsError(
            f"{count} tasks would each do all of {name!r}.",
            hint=f"Only {SHARED} divides its work; leave out --nodes and --tasks.",
        )
    return 1


def _parse_option(words: str) -> tuple[str, str | bool]:
    key, given, value = words.partition("=")
    if not key or key.startswith("-"):
        raise SettingsError(
            f"--slurm {words!r} names no option of sbatch.",
            hint="Write KEY=VALUE without dashes, such as --slurm account=vision.",
        )
    return key, value if given else True


def _row(part: PlannedJob) -> Row:
    return {
        "job": None,
        "checkpoint": part.checkpoint,
        "source": part.source,
        "command": ["layerscope", *part.job.words],
        "log": None,
        "state": None,
    }


def _wait(rows: Sequence[Row], jobs: Sequence[Any]) -> None:
    logs = {row["job"]: row["log"] for row in rows}
    try:
        states = slurm.wait(jobs, lambda job, state: terminal.say(f"{job}: {state}, {logs[job]}"))
    except KeyboardInterrupt:
        ids = " ".join(sorted({job.partition("_")[0] for job in logs}))
        terminal.say(f"No longer waiting. The jobs go on; to end them: scancel {ids}")
        raise typer.Exit(INTERRUPTED) from None
    for row in rows:
        row["state"] = states[row["job"]]


def _format(rows: Sequence[Row]) -> str:
    """Return a table of what is known."""
    header = [name for name in rows[0] if any(row[name] is not None for row in rows)]
    # The longest comes last.
    header.sort(key=lambda name: name == "command")
    shown = [row | {"command": shlex.join(row["command"])} for row in rows]
    return terminal.table(header, [[row[name] or "" for name in header] for row in shown])
