"""Numbers and records as text: cells of a table, CSV, Markdown, and what JSON can hold."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, is_dataclass
from io import StringIO
from typing import Any

from layerscope.types import COLUMNS, Interval, Score


def markdown(
    header: Sequence[str], rows: Iterable[Sequence[str]], numbers: Collection[int] = ()
) -> str:
    """Return a table in Markdown, of which no cell can break the lines."""
    rules = ["--:" if i in numbers else "---" for i in range(len(header))]
    escaped = ([cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows)
    lines = [header, rules, *escaped]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def records(found: Iterable[Any]) -> list[dict[str, Any]]:
    """Return rows, dataclasses or mappings as plain records, which JSON can hold."""
    return [_plain(_mapping(one)) for one in found]


def csv_text(found: Iterable[Any], columns: Sequence[str] | None = None) -> str:
    """Return records as CSV with one number to a column; a number that is missing is empty.

    Args:
        found: Dataclasses or mappings.
        columns: Names of the columns, by default all that records have, in their order.
    """
    rows = [_flat(record) for record in records(found)]
    text = StringIO()
    known = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(text, columns or known, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def scores_csv(scores: Iterable[Score]) -> str:
    """Return the whole long table as CSV; a failed cell's numbers are empty."""
    return csv_text(scores, COLUMNS)


def number(value: float) -> str:
    """Return a number to three decimals, or to three digits where those would not show it.

    Examples:
        >>> number(0.12345), number(0.000123), number(1234.5)
        ('0.123', '0.000123', '1.23e+03')
    """
    if not math.isfinite(value):
        return "–"
    return f"{value:.3f}" if value == 0 or 0.01 <= abs(value) < 1000 else f"{value:.3g}"


def bounds(interval: Interval) -> str:
    """Return the ends of an interval."""
    return f"[{number(interval.low)}, {number(interval.high)}]"


def signed(interval: Interval) -> str:
    """Return an estimate with its sign and its interval."""
    sign = "+" if interval.estimate > 0 else ""
    return f"{sign}{number(interval.estimate)} {bounds(interval)}"


def _mapping(one: Any) -> dict[str, Any]:
    # Scores and verdicts know which of their fields are columns.
    if hasattr(one, "row"):
        return dict(one.row())
    return asdict(one) if is_dataclass(one) and not isinstance(one, type) else dict(one)


def _plain(value: Any) -> Any:
    """Return a value that JSON can hold: NaN is null, tuples are lists."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _flat(record: dict[str, Any]) -> dict[str, Any]:
    """Return a record for CSV: intervals in three columns, lists and mappings in one."""
    flat: dict[str, Any] = {}
    for name, value in record.items():
        if isinstance(value, dict) and set(value) == {"estimate", "low", "high"}:
            flat[name] = value["estimate"]
            flat[f"{name}_low"], flat[f"{name}_high"] = value["low"], value["high"]
        elif isinstance(value, list):
            flat[name] = " ".join(map(str, value))
        elif isinstance(value, dict):
            flat[name] = json.dumps(value, ensure_ascii=False, sort_keys=True)
        else:
            flat[name] = value
    return flat
