"""The terminal: talk on stderr, data on stdout, progress bars only where somebody looks."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

Advance = Callable[..., None]
"""``advance(n, note="")``: n more units are done."""


_quiet = False
"""Whether another process speaks for this one."""


@contextmanager
def quiet_unless(speaks: bool) -> Iterator[None]:
    """Say and show nothing where another process of the same job does."""
    global _quiet
    before, _quiet = _quiet, not speaks
    try:
        yield
    finally:
        _quiet = before


def say(text: str) -> None:
    """Write one line of talk to stderr."""
    if _quiet:
        return
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def explain(message: str, hint: str) -> None:
    """Say what went wrong, and what to do about it."""
    say(f"Error: {message}")
    if hint:
        say(f"Hint: {hint}")


def emit(data: Any, as_json: bool, render: Callable[[], str]) -> None:
    """Write a result to stdout: its data as JSON for a program, or as text for a person."""
    if _quiet:
        return
    text = json.dumps(data, indent=2, ensure_ascii=False) if as_json else render()
    sys.stdout.write(text.rstrip("\n") + "\n")
    sys.stdout.flush()


def table(
    header: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()
) -> str:
    """Return an aligned text table; ``right`` lists the columns of numbers."""
    widths = [max(len(str(row[i])) for row in (header, *rows)) for i in range(len(header))]

    def line(row: Sequence[str]) -> str:
        cells = (
            str(cell).rjust(width) if i in right else str(cell).ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        return "  ".join(cells).rstrip()

    return "\n".join([line(header), line(["─" * w for w in widths]), *map(line, rows)])


def size(count: int) -> str:
    """Return a number of bytes as a person reads it.

    Examples:
        >>> size(940), size(37_600_000_000)
        ('940 B', '35.0 GiB')
    """
    value, units = float(count), ["B", "KiB", "MiB", "GiB", "TiB"]
    while value >= 1024 and len(units) > 1:
        value /= 1024
        units.pop(0)
    return f"{count} {units[0]}" if units[0] == "B" else f"{value:.1f} {units[0]}"


@contextmanager
def progress(label: str, total: int, unit: str = "") -> Iterator[Advance]:
    """Show a bar on a terminal and one line at the end elsewhere; a unit's name adds the rate."""
    if sys.stderr.isatty() and not _quiet:
        yield from _bar(label, total, unit)
    else:
        yield from _line(label, total, unit)


def _line(label: str, total: int, unit: str) -> Iterator[Advance]:
    start, done, last = time.monotonic(), 0, ""

    def advance(n: int = 1, note: str = "") -> None:
        nonlocal done, last
        done, last = done + n, note

    yield advance
    seconds = time.monotonic() - start
    rate = f", {done / seconds:.1f} {unit}/s" if unit and seconds > 0 else ""
    slow = f", {last}" if unit and last else ""
    say(f"{label}: {done} of {total} in {seconds:.1f} s{rate}{slow}")


def _bar(label: str, total: int, unit: str) -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = (
        "{task.description}",
        BarColumn(),
        MofNCompleteColumn(),
        "{task.fields[rate]}",
        TimeRemainingColumn(),
        "{task.fields[note]}",
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(label, total=total, rate="", note="")
        start, done = time.monotonic(), 0

        def advance(n: int = 1, note: str = "") -> None:
            nonlocal done
            done += n
            seconds = max(time.monotonic() - start, 1e-9)
            rate = f"{done / seconds:.1f} {unit}/s" if unit else ""
            bar.update(task, completed=done, rate=rate, note=note)

        yield advance
