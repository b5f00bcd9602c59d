"""Writes the table of audit.md, by computing it; ``make reference`` runs it."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "audit.md"
BEGIN, END = "<!-- audit: made by docs/audit.py -->\n", "<!-- end of audit -->\n"

sys.path.insert(0, str(ROOT))  # the definitions lie beside the tests

from layerscope.types import UNLABELLED  # noqa: E402
from tests.audit.entries import AUDITED, Audited, worst  # noqa: E402


def table() -> str:
    """Return the largest deviation of every metric from its definition, as Markdown."""
    lines = ["| name | metric | definition | largest deviation |", "|---|---|---|---|"]
    for entry in AUDITED:
        for metric, deviation in worst(entry).items():
            lines.append(
                f"| {_titled(entry)} | {metric} | {entry.source} | {_rounded_up(deviation)} |"
            )
    return "\n".join(lines) + "\n"


def _titled(entry: Audited) -> str:
    task = entry.task.name
    return f"`{entry.name}`" if task == UNLABELLED.name else f"`{entry.name}` on {task}"


def _rounded_up(deviation: float) -> str:
    """Return the next power of ten: the digits behind it differ from one processor to another."""
    return f"1e{_exponent(deviation)}"


def _exponent(deviation: float) -> int:
    exponent = -16
    while 10.0**exponent < deviation:
        exponent += 1
    return exponent


def page() -> str:
    """Return the whole page with today's table in it."""
    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n{table()}\n{END}{rest.split(END)[1]}"


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
