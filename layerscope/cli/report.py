"""``layerscope report``: figures, cut tables and one self-contained page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from layerscope.cli import settings, terminal
from layerscope.errors import FINDINGS

if TYPE_CHECKING:
    from layerscope.report import Report


def command(
    results: Annotated[Path, typer.Argument(help="The folder that layerscope probe wrote.")] = Path(
        "results"
    ),
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder of the figures, tables and the page.")
    ] = Path("report"),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Draw what every cut is worth and write the verdicts, the cut table and one page.

    Where there are scores of measures that train no probe, also a scorecard of them; where
    checkpoints are snapshots of a run or runs of a grid, curves over epochs and trunk against head;
    and what layerscope evaluate and layerscope cka kept in the same folder.

    Leaves with code 1 where cells of the table have no value; the page lists them.

    \b
    Examples:
      layerscope report
      layerscope report results/ -o report/ --json
    """
    from layerscope.report import write_report

    report = write_report(results, output)
    settings.write(
        output / "settings.json", "report", {"results": results, "output": output, "json": as_json}
    )
    document = {"page": str(report.page), **report.document()}
    terminal.emit(document, as_json, lambda: _text(report))
    terminal.say(f"The page is {report.page}.")
    failures = document["failed"]
    if failures:
        terminal.say(f"{len(failures)} cells have no value; the page lists them.")
        raise typer.Exit(FINDINGS)


def _text(report: Report) -> str:
    (table,) = report.findings["verdicts"].tables
    rows = terminal.table(table.header, table.rows, right=tuple(table.numbers))
    return "\n".join([rows, *report.sentences])
