"""``layerscope submit``: a command on a SLURM cluster, where a requeue continues it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from layerscope.cli import slurm, terminal
from layerscope.cli.split import RESUMED, SHARED, Part, split
from layerscope.errors import FINDINGS, INTERRUPTED, SettingsError

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
        str | None, typer.Option("--partition", "-p", help="Of the cluster; its default if none.")
    ] = None,
    nodes: Annotated[int, typer.Option("--nodes", "-N", min=1, help="Of each job.")] = 1,
    gpus: Annotated[int, typer.Option("--gpus", min=0, help="On each node.")] = 0,
    tasks: Annotated[
        int | None,
        typer.Option("--tasks", min=1, help="Processes on each node; for extract one for a GPU."),
    ] = None,
    cpus: Annotated[
        int | None, typer.Option("--cpus", "-c", min=1, help="Processors of each task.")
    ] = None,
    memory: Annotated[int | None, typer.Option("--memory", min=1, help="GiB on each node.")] = None,
    minutes: Annotated[
        int, typer.Option("--minutes", "-t", min=1, help="Time limit, after which it is requeued.")
    ] = 240,
    at_once: Annotated[
        int | None, typer.Option("--at-once", min=1, help="At most so many jobs run together.")
    ] = None,
    more: Annotated[
        list[str] | None,
        typer.Option(
            "--slurm", metavar="KEY[=VALUE]", help="Any other option of sbatch, without dashes."
        ),
    ] = None,
    logs: Annotated[
        Path, typer.Option("--logs", help="Folder for logs, which every node must see.")
    ] = Path("logs"),
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait for the jobs; exit code 1 where one failed.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what each job would run, and submit nothing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Send a command to a SLURM cluster.

    Each checkpoint and source of extract or evaluate is a job; several are one job array. A job
    that is preempted or reaches its time limit is requeued: extract, evaluate, probe and render
    then go on where they stopped, other commands begin again. Jobs run in this folder. The
    command is checked before anything is submitted. Options of submit come before the command.

    \b
    Examples:
      layerscope submit --gpus 1 extract a.pth b.pth --data in1k=imagenet/ --data clevr=CLEVR_v1.0
      layerscope submit -N 2 --gpus 8 -c 12 --slurm account=vision extract a.pth --data in1k=DIR
      layerscope submit -p cpu -c 16 --memory 64 --wait probe features/ --tasks in1k
      layerscope submit --dry-run --json extract a.pth b.pth --data in1k=imagenet/
    """
    parts = split(context.parent, words)
    name = parts[0].command
    resources = slurm.Resources(
        minutes=minutes,
        nodes=nodes,
        tasks=_tasks(name, nodes, gpus, tasks),
        gpus=gpus,
        cpus=cpus,
        memory=memory,
        partition=partition,
        at_once=at_once,
        more=dict(map(_pair, more or ())),
    )
    if dry_run:
        _emit([_row(part) for part in parts], as_json)
        return
    jobs = slurm.submit(
        [part.job for part in parts],
        f"layerscope-{name.replace(' ', '-')}",
        resources,
        logs,
        resumed=name in RESUMED,
    )
    rows = [
        _row(part, job=job.job_id, log=str(logs / job.paths.stdout.name))
        for part, job in zip(parts, jobs, strict=True)
    ]
    terminal.say(f"Submitted {len(rows)} {'job' if len(rows) == 1 else 'jobs'}.")
    if wait:
        _wait(rows, jobs)
    _emit(rows, as_json)
    if any(row["state"] not in (None, slurm.FINISHED) for row in rows):
        raise typer.Exit(FINDINGS)


def _tasks(name: str, nodes: int, gpus: int, asked: int | None) -> int:
    if name in SHARED:
        return asked or max(gpus, 1)
    if nodes * (asked or 1) > 1:
        raise SettingsError(
            f"{nodes * (asked or 1)} tasks would each do all of {name!r}.",
            hint=f"Only {', '.join(sorted(SHARED))} divides its work; leave out --nodes and "
            "--tasks.",
        )
    return 1


def _pair(words: str) -> tuple[str, str | bool]:
    key, given, value = words.partition("=")
    if not key or key.startswith("-"):
        raise SettingsError(
            f"--slurm {words!r} names no option of sbatch.",
            hint="Write KEY=VALUE without dashes, such as --slurm account=vision.",
        )
    return key, value if given else True


def _row(part: Part, job: str | None = None, log: str | None = None) -> Row:
    return {
        "job": job,
        "checkpoint": part.checkpoint,
        "source": part.source,
        "command": ["layerscope", *part.job.words],
        "log": log,
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


def _emit(rows: Sequence[Row], as_json: bool) -> None:
    terminal.emit({"jobs": rows}, as_json, lambda: _text(rows))


def _text(rows: Sequence[Row]) -> str:
    """Return a table of what is known."""
    header = [name for name in rows[0] if any(row[name] is not None for row in rows)]
    # The longest comes last.
    header.sort(key=lambda name: name == "command")
    return terminal.table(header, [[_cell(row, name) for name in header] for row in rows])


def _cell(row: Mapping[str, Any], name: str) -> str:
    return shlex.join(row[name]) if name == "command" else row[name] or ""
