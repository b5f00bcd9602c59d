"""The cut table as cells, CSV, JSON and Markdown, and the whole long table as CSV."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, fields
from io import StringIO
from typing import Any

from layerscope.nouns import Interval, Score, Verdict
from layerscope.report.across import Across
from layerscope.report.curve import failed
from layerscope.report.verdict import in_runs

HEADER = (
    "checkpoint",
    "task",
    "estimator",
    "metric",
    "best cut",
    "value",
    "95% interval",
    "tied cuts",
    "shallowest",
    "gain over trunk",
    "gain over last",
    "n test",
    "groups",
)
NUMBERS = (5, 6, 9, 10, 11, 12)
"""Columns of numbers, for a table that aligns them to the right."""
ACROSS = ("checkpoint", "task", "estimator", "one cut", "own best", "regret", "gain over trunk")
ACROSS_NUMBERS = (5, 6)


def cells(verdicts: Iterable[Verdict]) -> list[tuple[str, ...]]:
    """Return the cut table's rows as a person reads them, under :data:`HEADER`."""
    return [_cells(verdict) for verdict in verdicts]


def markdown(verdicts: Iterable[Verdict]) -> str:
    """Return the cut table in Markdown."""
    rules = ["--:" if i in NUMBERS else "---" for i in range(len(HEADER))]
    rows = [HEADER, tuple(rules), *(_escaped(row) for row in cells(verdicts))]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"


def across_cells(found: Iterable[Across]) -> list[tuple[str, ...]]:
    """Return a row for every task and one for their mean, under :data:`ACROSS`."""
    rows: list[tuple[str, ...]] = []
    for one in found:
        rows += [
            (
                one.checkpoint,
                task.task,
                task.estimator,
                one.cut,
                task.own,
                signed(task.regret),
                signed(task.gain),
            )
            for task in one.tasks
        ]
        mean = (signed(one.regret), signed(one.gain))
        rows.append((one.checkpoint, f"mean of {len(one.tasks)}", "", one.cut, "", *mean))
    return rows


def records(found: Iterable[Verdict] | Iterable[Across]) -> list[dict[str, Any]]:
    """Return verdicts, or cuts across tasks, as plain records, which JSON can hold."""
    return [_plain(asdict(one)) for one in found]


def document(
    scores: Sequence[Score], verdicts: Sequence[Verdict], across: Sequence[Across] = ()
) -> dict[str, Any]:
    """Return what ``--json`` prints and ``verdicts.json`` holds.

    Verdicts, the one cut for all tasks of each checkpoint, and failed cells.
    """
    return {
        "verdicts": records(verdicts),
        "across": records(across),
        "failed": failures(scores),
    }


def failures(scores: Iterable[Score]) -> list[dict[str, str]]:
    """Return the cells that have no value, with the reason that was noted."""
    names = ("checkpoint", "task", "cut", "estimator", "metric", "note")
    return [{name: str(getattr(score, name)) for name in names} for score in failed(scores)]


def verdicts_csv(verdicts: Iterable[Verdict]) -> str:
    """Return the cut table as CSV, one number to a column."""
    return _csv([_flat(record) for record in records(verdicts)])


def scores_csv(scores: Iterable[Score]) -> str:
    """Return the whole long table as CSV; a failed cell's numbers are empty."""
    return _csv([_flat(_plain(score.row())) for score in scores], _score_columns())


def number(value: float) -> str:
    """Return a number to three decimals, or to three digits where those would not show it.

    Examples:
        >>> number(0.12345), number(0.000123), number(1234.5)
        ('0.123', '0.000123', '1.23e+03')
    """
    if not math.isfinite(value):
        return "–"
    return f"{value:.3f}" if value == 0 or 0.01 <= abs(value) < 1000 else f"{value:.3g}"


def signed(interval: Interval) -> str:
    """Return an estimate with its sign and its interval."""
    sign = "+" if interval.estimate > 0 else ""
    return f"{sign}{number(interval.estimate)} [{number(interval.low)}, {number(interval.high)}]"


def _cells(verdict: Verdict) -> tuple[str, ...]:
    value = verdict.value
    return (
        verdict.checkpoint,
        verdict.task,
        f"{verdict.estimator} [{verdict.way}]" if verdict.way else verdict.estimator,
        verdict.metric,
        verdict.best if verdict.agrees else f"{verdict.best} (!)",
        number(value.estimate),
        f"[{number(value.low)}, {number(value.high)}]",
        in_runs(verdict.tied, list(verdict.probability)),
        verdict.shallowest,
        signed(verdict.gain),
        signed(verdict.gain_over_last),
        str(verdict.n_test),
        str(verdict.n_groups),
    )


def _escaped(row: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(cell.replace("|", "\\|").replace("\n", " ") for cell in row)


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


def _score_columns() -> list[str]:
    return [field.name for field in fields(Score) if field.name != "losses"]


def _csv(rows: Sequence[dict[str, Any]], columns: Sequence[str] | None = None) -> str:
    names = columns or list(rows[0] if rows else ())
    text = StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
