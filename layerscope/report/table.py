"""The cut table as cells, CSV, JSON and Markdown, and the whole long table as CSV."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from io import StringIO
from typing import Any

from layerscope.report.curve import failed
from layerscope.types import COLUMNS, Interval, Score, Verdict
from layerscope.verdicts.common_cut import CommonCut
from layerscope.verdicts.grid import Grid
from layerscope.verdicts.scorecard import MeasureScore
from layerscope.verdicts.series import LayerCurve, Series
from layerscope.verdicts.verdict import in_runs

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
SCORECARD = (
    "checkpoint",
    "task",
    "probe",
    "measure",
    "of which",
    "Kendall's τ",
    "cuts",
    "measure's cut",
    "probe's cut",
    "regret",
    "of the trunk",
    "at random",
)
SCORECARD_NUMBERS = (5, 6, 9, 10, 11)
SERIES = (
    "run",
    "task",
    "probe",
    "cut",
    "peak",
    "at the peak",
    "at the end",
    "fall",
    "what the test rows say",
)
SERIES_NUMBERS = (4, 5, 6, 7)
FOLLOWERS = ("run", "task", "probe", "cut", "measure", "of which", "τ", "τ from the peak on")
FOLLOWERS_NUMBERS = (6, 7)
SERIES_COLUMNS = (
    "run",
    "checkpoint",
    "epoch",
    "source",
    "task",
    "cut",
    "estimator",
    "metric",
    "val",
    "test",
    "stderr",
)


def cells(verdicts: Iterable[Verdict]) -> list[tuple[str, ...]]:
    """Return the cut table's rows as a person reads them, under :data:`HEADER`."""
    return [_cells(verdict) for verdict in verdicts]


def markdown(verdicts: Iterable[Verdict]) -> str:
    """Return the cut table in Markdown."""
    rules = ["--:" if i in NUMBERS else "---" for i in range(len(HEADER))]
    rows = [HEADER, tuple(rules), *(_escaped(row) for row in cells(verdicts))]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"


def across_cells(found: Iterable[CommonCut]) -> list[tuple[str, ...]]:
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


def standing_cells(standings: Iterable[MeasureScore]) -> list[tuple[str, ...]]:
    """Return the scorecard's rows as a person reads them, under :data:`SCORECARD`."""
    return [
        (
            one.checkpoint,
            one.task,
            one.estimator,
            f"{one.measure} (labels)" if one.labels else one.measure,
            one.measure_metric,
            signed(one.tau),
            str(one.cuts),
            one.cut,
            one.best,
            f"{signed(one.regret)} {one.metric}",
            number(one.regret_usual.estimate),
            number(one.regret_random.estimate),
        )
        for one in standings
    ]


def scorecard_csv(standings: Iterable[MeasureScore]) -> str:
    """Return the scorecard as CSV, one number to a column."""
    return _csv([_flat(record) for record in records(standings)])


def course_cells(found: Iterable[Series]) -> list[tuple[str, ...]]:
    """Return a row for every cut of every series, under :data:`SERIES`."""
    return [
        (
            one.run,
            one.task,
            one.estimator,
            it.cut,
            f"{it.peak:g}",
            number(it.test[one.epochs.index(it.peak)]),
            number(it.test[-1]),
            signed(it.fall),
            _judged(it, one),
        )
        for one in found
        for it in one.courses
    ]


def follower_cells(found: Iterable[Series]) -> list[tuple[str, ...]]:
    """Return a row for every measure at the cuts that figures show, under :data:`FOLLOWERS`."""
    return [
        (
            one.run,
            one.task,
            one.estimator,
            it.cut,
            f"{it.measure} (labels)" if it.labels else it.measure,
            it.measure_metric,
            signed(it.tau),
            signed(it.tau_from_peak),
        )
        for one in found
        for it in one.followers
        if math.isfinite(it.tau.estimate)
    ]


def series_csv(found: Iterable[Series]) -> str:
    """Return one row for every run, task, cut and epoch; for each measure one more."""
    return _csv([row for one in found for row in _epochs(one)], SERIES_COLUMNS)


def grids_csv(found: Iterable[Grid]) -> str:
    """Return one row for every task and run of a grid."""
    return _csv(
        [
            {"source": one.source, "task": one.task, "estimator": one.estimator}
            | {"metric": one.metric}
            | _flat(_plain(asdict(point)))
            for one in found
            for point in one.points
        ]
    )


def _epochs(one: Series) -> Iterator[dict[str, Any]]:
    lines = [
        (it.cut, one.estimator, one.metric, it.val, it.test, it.stderr) for it in one.courses
    ] + [(it.cut, it.measure, it.measure_metric, (), it.values, it.stderr) for it in one.followers]
    for cut, estimator, metric, val, test, errors in lines:
        for i, epoch in enumerate(one.epochs):
            values = (val[i] if val else None, _plain(test[i]), _plain(errors[i]))
            cell = (one.run, one.checkpoints[i], epoch, one.source, one.task, cut)
            yield dict(zip(SERIES_COLUMNS, (*cell, estimator, metric, *values), strict=True))


def _judged(course: LayerCurve, one: Series) -> str:
    if course.peak == one.epochs[-1]:
        return "best at the end"
    if course.falls:
        return "over-fits"
    return "better at the end" if course.fall.high < 0 else "cannot be told"


def records(
    found: Iterable[Verdict]
    | Iterable[CommonCut]
    | Iterable[MeasureScore]
    | Iterable[Series]
    | Iterable[Grid],
) -> list[dict[str, Any]]:
    """Return verdicts, or what stands beside them, as plain records, which JSON can hold."""
    return [_plain(one.row() if isinstance(one, Verdict) else asdict(one)) for one in found]


def document(
    scores: Sequence[Score],
    verdicts: Sequence[Verdict],
    across: Sequence[CommonCut] = (),
    standings: Sequence[MeasureScore] = (),
    series: Sequence[Series] = (),
    grids: Sequence[Grid] = (),
) -> dict[str, Any]:
    """Return what ``--json`` prints and ``verdicts.json`` holds.

    Verdicts, the one cut for all tasks of each checkpoint, the scorecard of measures, series of
    snapshots, grids of runs, and failed cells.
    """
    return {
        "verdicts": records(verdicts),
        "across": records(across),
        "scorecard": records(standings),
        "series": records(series),
        "grids": records(grids),
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
    return _csv([_flat(_plain(score.row())) for score in scores], COLUMNS)


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


def _csv(rows: Sequence[dict[str, Any]], columns: Sequence[str] | None = None) -> str:
    names = columns or list(rows[0] if rows else ())
    text = StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
