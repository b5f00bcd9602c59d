"""``layerscope check``: does a piece of somebody's own keep what its kind promises?"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from layerscope.cli import terminal
from layerscope.errors import FINDINGS, CheckpointError


class Kind(StrEnum):
    """What can be checked."""

    family = "family"


def command(
    kind: Annotated[Kind, typer.Argument(help="What the file defines.")],
    path: Annotated[Path, typer.Argument(metavar="FILE", help="A Python file that registers it.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check a checkpoint family of your own before any number depends on it.

    The family shows examples of its files with an independent forward of the same weights. Each
    has to be recognised as this family alone, give the features of that forward at every cut, use
    or explain every tensor, and refuse a trunk that is damaged. Findings end with exit code 1.

    \b
    Examples:
      layerscope check family mine.py
      layerscope check family mine.py --json
    """
    rows = _families(path)
    terminal.emit(rows, as_json, lambda: _text(rows))
    if any(row["findings"] for row in rows):
        raise typer.Exit(FINDINGS)


def _families(path: Path) -> list[dict[str, Any]]:
    from layerscope.models import families
    from layerscope.registry import load_plugin
    from layerscope.testing import FamilyExample, check_family

    before = set(families)
    load_plugin(path)
    new = [name for name in families if name not in before]
    if not new:
        raise CheckpointError(
            f"{str(path)!r} registers no checkpoint family.",
            hint="End it with families.add(Mine.name, Mine()).",
        )
    rows = []
    for name in new:
        examples: list[FamilyExample] = list(getattr(families[name], "examples", list)())
        if not examples:
            raise CheckpointError(
                f"The family {name!r} shows no example of its files, so nothing can be checked.",
                hint="Give it a method examples() that yields layerscope.testing.FamilyExample.",
            )
        findings = [
            f"example {number}: {finding}"
            for number, example in enumerate(examples, start=1)
            for finding in check_family(name, example)
        ]
        rows.append({"family": name, "examples": len(examples), "findings": findings})
    return rows


def _text(rows: list[dict[str, Any]]) -> str:
    lines = []
    for row in rows:
        found = row["findings"]
        state = f"{len(found)} findings" if found else "conforms"
        lines.append(f"{row['family']}: {state}, {row['examples']} examples")
        lines += [f"  {finding}" for finding in found]
    return "\n".join(lines)
