"""``layerscope report``: figures, cut tables and one self-contained page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from layerscope.cli import settings, terminal
from layerscope.cli.options import Json
from layerscope.errors import FINDINGS

if TYPE_CHECKING:
    from layerscope.report import Report


def command(
    results: Annotated[
        Path, typer.Argument(metavar="[FOLDER]", help="The folder that layerscope probe wrote.")
    ] = Path("results"),
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The folder for figures, tables and the page.")
    ] = Path("report"),
    as_json: Json = False,
) -> None:
    """Draw what every cut is worth and write the verdicts, the cut table and one page.

    Measures that train no probe get a scorecard. Snapshots of one training get curves over its
    epochs, and the runs of a grid are drawn with their trunks against their heads. What layerscope
    evaluate and layerscope cka kept in the same folder is on the page too.

    The command ends with exit code 1 where cells of the table have no value; the page lists them.

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
    from layerscope.verdicts import sentence

    (table,) = report.findings["verdicts"].tables
    rows = terminal.table(table.header, table.rows, right=tuple(table.numbers))
    titles = report.evidence.titles
    unread = [
        f"{it.checkpoint}: {sentence(it, titles.get(it.task, ''))}"
        for it in report.verdicts
        if it.unread
    ]
    return "\n".join([*unread, rows, *report.sentences])
