"""The series: layers along training, the probe's metric above, measures below."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from matplotlib.figure import Figure

from layerscope.report.curve import title
from layerscope.report.evidence import Evidence
from layerscope.report.layout import band, heading, legend, legend_line, legend_mark
from layerscope.report.panel import DIRECTIONS, metric_name
from layerscope.report.section import Finding, Section, Table, sections
from layerscope.report.style import COLOURS, INK, WIDTH, Stroke
from layerscope.report.table import csv_text, number, signed
from layerscope.results.grouping import grouped
from layerscope.verdicts.series import LayerCurve, Series, sentence

HEADER = (
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
NUMBERS = (4, 5, 6, 7)
MEASURES_HEADER = (*HEADER[:4], "measure", "of which", "τ", "τ from the peak on")
MEASURES_NUMBERS = (6, 7)
NOTE = """Snapshots are noisy, on validation and test images alike, so curves are averaged over
neighbouring snapshots (one to either side for every ten of the run). The peak is the epoch at which
the average is best on the validation split; the fall is what the average on the test split has
lost from there to the last epoch. Its interval has the noise of the test images, that of the
snapshots and the luck of having chosen the peak: a cut over-fits if it lies above nought. τ
compares a measure with the probe over the epochs of the run; they are given and not a sample, so
that its interval is over test images."""
MARGIN = 1.3
"""Inches for the title and the legend."""
HEIGHT = 1.75
# Seven colours and four dashes have no common divisor: 28 runs that grey print tells apart too.
RUN_DASHES: tuple[Any, ...] = ("solid", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)))
ROLES = {"early": "early layer", "trunk": "end of trunk", "last": "last layer"}


@sections.register("series")
class AlongTraining(Section):
    """Layers along training, where checkpoints are snapshots of one run."""

    order = 40

    def find(self, evidence: Evidence) -> Finding:
        found, reasons = evidence.series
        texts = [*(sentence(one, evidence.titles) for one in found), *reasons]
        measures = measure_cells(found)
        tables = [Table(HEADER, cells(found), NUMBERS, may_fold=True)] if texts else []
        if measures:
            tables.append(Table(MEASURES_HEADER, measures, MEASURES_NUMBERS, may_fold=True))
        return Finding(
            "Layers along training",
            sentences=texts,
            tables=tables,
            note=NOTE,
            figures={
                f"{name}-{source}": figure
                for source, some in grouped(found, "source").items()
                for name, figure in series_figures(some, evidence.titles).items()
            },
            files={"series.csv": series_csv(found)} if found else {},
            records=[_record(one) for one in found],
        )


def cells(found: Iterable[Series]) -> list[tuple[str, ...]]:
    """Return a row for every cut of every series, under :data:`HEADER`."""
    return [
        (
            one.run,
            one.task,
            one.estimator,
            it.cut,
            f"{it.peak:g}",
            number(it.smoothed[one.epochs.index(it.peak)]),
            number(it.smoothed[-1]),
            signed(it.fall),
            _describe_fall(it, one),
        )
        for one in found
        for it in one.curves
    ]


def measure_cells(found: Iterable[Series]) -> list[tuple[str, ...]]:
    """Return a row for every measure at the cuts that figures show."""
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
        for it in one.measures
        if math.isfinite(it.tau.estimate)
    ]


def series_csv(found: Iterable[Series]) -> str:
    """Return one row for every run, task, cut and epoch; for each measure one more."""
    return csv_text(row for one in found for row in _epochs(one))


def _epochs(one: Series) -> Iterator[dict[str, Any]]:
    lines = [
        (it.cut, one.estimator, one.metric, it.val, it.test, it.stderr) for it in one.curves
    ] + [(it.cut, it.measure, it.measure_metric, (), it.values, it.stderr) for it in one.measures]
    for cut, estimator, metric, val, test, errors in lines:
        for i, epoch in enumerate(one.epochs):
            yield {
                "run": one.run,
                "checkpoint": one.checkpoints[i],
                "epoch": epoch,
                "source": one.source,
                "task": one.task,
                "cut": cut,
                "estimator": estimator,
                "metric": metric,
                "val": val[i] if val else None,
                "test": test[i],
                "stderr": errors[i],
            }


def _record(one: Series) -> dict[str, Any]:
    """Return a series for JSON, whose keys are older than the names of the fields."""
    names = {"curves": "courses", "measures": "followers"}
    return {names.get(name, name): value for name, value in asdict(one).items()}


def _describe_fall(curve: LayerCurve, one: Series) -> str:
    if curve.peak == one.epochs[-1]:
        return "best at the end"
    if curve.falls:
        return "over-fits"
    return "better at the end" if curve.fall.high < 0 else "cannot be told"


@dataclass(frozen=True, slots=True)
class _Line:
    """One run in one panel."""

    run: str
    cut: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    stderr: tuple[float, ...]
    peak: float | None = None
    falls: bool = False


def series_figures(found: Sequence[Series], titles: Mapping[str, str]) -> dict[str, Figure]:
    """Draw for one source the probes' metric along training, and the measures.

    Every quantity is a row, with a column for the early layer, the end of the trunk and the last
    layer, and one line per run. The figures are ``series``, and ``series-measures`` where there are
    measures.
    """
    probes = _arrange(line for one in found for line in _probe_lines(one, titles))
    measures = _arrange(line for one in found for line in _measure_lines(one, titles))
    what = f"{found[0].source}: layers along training"
    look = _look(one.run for one in found)
    axis = found[0].axis
    drawn = {"series": _figure(probes, look, axis, f"{what} (bands: 95% intervals)", marks=True)}
    if measures:
        text = f"{what}, measures without a probe (bands: 95% intervals)"
        drawn["series-measures"] = _figure(measures, look, axis, text, marks=False)
    return drawn


def _roles(one: Series) -> dict[str, str]:
    """Return the cut of each column; the end of the trunk only where a head follows it."""
    roles = {"early": one.early, "trunk": one.trunk, "last": one.last}
    return {role: cut for role, cut in roles.items() if role != "trunk" or cut != one.last}


def _probe_lines(one: Series, titles: Mapping[str, str]) -> Iterator[tuple[str, str, _Line]]:
    """Return lines, each with the name of its row and the role of its cut."""
    label = f"{title(one.task, one.source, titles)} · {one.estimator}"
    name = f"{label}\n{metric_name(one.metric)}, {DIRECTIONS[one.direction]}"
    for role, cut in _roles(one).items():
        curve = one.curve(cut)
        values = (one.epochs, curve.test, curve.stderr)
        yield name, role, _Line(one.run, cut, *values, curve.peak, curve.falls)


def _measure_lines(one: Series, titles: Mapping[str, str]) -> Iterator[tuple[str, str, _Line]]:
    task = title(one.task, one.source, titles)
    for it in one.measures:
        name = "\n".join(dict.fromkeys((it.measure, it.measure_metric)))
        name = f"{name}, {task}" if it.labels else name
        for role in (role for role, cut in _roles(one).items() if cut == it.cut):
            yield name, role, _Line(one.run, it.cut, one.epochs, it.values, it.stderr)


def _arrange(lines: Iterable[tuple[str, str, _Line]]) -> dict[str, dict[str, list[_Line]]]:
    rows: dict[str, dict[str, list[_Line]]] = defaultdict(lambda: defaultdict(list))
    for name, role, line in lines:
        # A measure without labels is the same for every task.
        if all(line.run != other.run for other in rows[name][role]):
            rows[name][role].append(line)
    return rows


def _look(names: Iterable[str]) -> dict[str, Stroke]:
    return {
        name: Stroke(COLOURS[i % len(COLOURS)], RUN_DASHES[i % len(RUN_DASHES)], False)
        for i, name in enumerate(dict.fromkeys(names))
    }


def _figure(
    rows: Mapping[str, Mapping[str, list[_Line]]],
    look: Mapping[str, Stroke],
    axis: str,
    text: str,
    *,
    marks: bool,
) -> Figure:
    roles = [role for role in ROLES if any(role in row for row in rows.values())]
    figure = Figure(figsize=(WIDTH, MARGIN + len(rows) * HEIGHT), layout="constrained")
    # Only a probe's metric is the same quantity at layers of different width.
    grid = figure.subplots(
        len(rows), len(roles), squeeze=False, sharex=True, sharey="row" if marks else False
    )
    for panels, (name, row) in zip(grid, rows.items(), strict=True):
        panels[0].set_ylabel(name)
        for axes, role in zip(panels, roles, strict=True):
            for line in row.get(role, []):
                _draw(axes, line, look[line.run])
    for axes, role in zip(grid[0], roles, strict=True):
        cuts = dict.fromkeys(line.cut for row in rows.values() for line in row.get(role, []))
        axes.set_title(f"{ROLES[role]}: {', '.join(cuts)}" if len(cuts) == 1 else ROLES[role])
    for axes in grid[-1]:
        axes.set_xlabel(axis)
    heading(figure, text)
    legend(figure, _handles(look, marks))
    return figure


def _draw(axes: Any, line: _Line, stroke: Stroke) -> None:
    band(axes, line.x, line.y, line.stderr, stroke.colour)
    axes.plot(line.x, line.y, color=stroke.colour, linestyle=stroke.dash, gid="run")
    if line.peak is None:
        return
    places = dict(zip(line.x, line.y, strict=True))
    square = {"marker": "s", "markersize": 7, "markeredgecolor": "white"}
    axes.plot(line.peak, places[line.peak], color=stroke.colour, gid="peak", **square)
    if line.falls:
        arrow = {"marker": "v", "markersize": 7, "markerfacecolor": "white"}
        axes.plot(line.x[-1], line.y[-1], color=stroke.colour, gid="fall", clip_on=False, **arrow)


def _handles(look: Mapping[str, Stroke], marks: bool) -> list[Any]:
    handles = [
        legend_line(name, color=stroke.colour, linestyle=stroke.dash)
        for name, stroke in look.items()
    ]
    if marks:
        size = {"color": INK, "markersize": 7}
        handles += [
            legend_mark("best, by validation", "s", **size),
            legend_mark("shown to fall", "v", markerfacecolor="white", **size),
        ]
    return handles
