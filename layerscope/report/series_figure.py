"""The figure of series: early and last layers along training, the probe above, measures below."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from layerscope.report.curve import NORMAL_95, title
from layerscope.report.panel import DIRECTIONS, metric_name
from layerscope.report.style import COLOURS, INK, WIDTH, Stroke
from layerscope.verdicts.series import Series

MARGIN = 1.3
"""Inches for the title and the legend."""
HEIGHT = 1.75
# Seven colours and four dashes have no common divisor: 28 runs that grey print tells apart too.
RUN_DASHES: tuple[Any, ...] = ("solid", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)))
ROLES = {"early": "early layer", "trunk": "end of trunk", "last": "last layer"}


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
    layer, and one line per run.

    Returns:
        ``series``, and ``series-measures`` where there are measures.
    """
    probes: dict[str, dict[str, list[_Line]]] = {}
    measures: dict[str, dict[str, list[_Line]]] = {}
    for one in found:
        heading = titles.get(one.task) or title(one.task, one.source)
        label = f"{heading} · {one.estimator}\n{metric_name(one.metric)}"
        _add(probes, f"{label}, {DIRECTIONS[one.direction]}", _of_probe(one))
        for name, lines in _of_measures(one, heading):
            _add(measures, name, lines)
    what = f"{found[0].source}: layers along training"
    look = _look(one.run for one in found)
    axis = found[0].axis
    drawn = {"series": _figure(probes, look, axis, f"{what} (bands: 95% intervals)", marks=True)}
    if measures:
        heading = f"{what}, measures without a probe (bands: 95% intervals)"
        drawn["series-measures"] = _figure(measures, look, axis, heading, marks=False)
    return drawn


def _roles(one: Series) -> dict[str, str]:
    """Return the cut of each column; the end of the trunk only where a head follows it."""
    roles = {"early": one.early, "trunk": one.trunk, "last": one.last}
    return {role: cut for role, cut in roles.items() if role != "trunk" or cut != one.last}


def _of_probe(one: Series) -> dict[str, _Line]:
    lines = {}
    for role, cut in _roles(one).items():
        course = one.course(cut)
        values = (one.epochs, course.test, course.stderr)
        lines[role] = _Line(one.run, cut, *values, course.peak, course.falls)
    return lines


def _of_measures(one: Series, heading: str) -> Iterable[tuple[str, dict[str, _Line]]]:
    roles = _roles(one)
    by_measure: dict[str, dict[str, _Line]] = defaultdict(dict)
    for it in one.followers:
        name = (
            it.measure if it.measure == it.measure_metric else f"{it.measure}\n{it.measure_metric}"
        )
        name = f"{name}, {heading}" if it.labels else name
        for role in (role for role, cut in roles.items() if cut == it.cut):
            by_measure[name][role] = _Line(one.run, it.cut, one.epochs, it.values, it.stderr)
    return by_measure.items()


def _add(rows: dict[str, dict[str, list[_Line]]], name: str, lines: Mapping[str, _Line]) -> None:
    for role, line in lines.items():
        known = rows.setdefault(name, defaultdict(list))[role]
        # A measure without labels is the same for every task.
        if all(line.run != other.run for other in known):
            known.append(line)


def _look(names: Iterable[str]) -> dict[str, Stroke]:
    return {
        name: Stroke(COLOURS[i % len(COLOURS)], RUN_DASHES[i % len(RUN_DASHES)], False)
        for i, name in enumerate(dict.fromkeys(names))
    }


def _figure(
    rows: Mapping[str, Mapping[str, list[_Line]]],
    look: Mapping[str, Stroke],
    axis: str,
    heading: str,
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
    figure.suptitle(heading, x=0.01, ha="left")
    _legend(figure, look, marks)
    return figure


def _draw(axes: Any, line: _Line, stroke: Stroke) -> None:
    half = [NORMAL_95 * error for error in line.stderr]
    low, high = ([y + s * h for y, h in zip(line.y, half, strict=True)] for s in (-1, 1))
    axes.fill_between(line.x, low, high, color=stroke.colour, alpha=0.15, linewidth=0)
    axes.plot(line.x, line.y, color=stroke.colour, linestyle=stroke.dash, gid="run")
    if line.peak is None:
        return
    places = dict(zip(line.x, line.y, strict=True))
    square = {"marker": "s", "markersize": 7, "markeredgecolor": "white"}
    axes.plot(line.peak, places[line.peak], color=stroke.colour, gid="peak", **square)
    if line.falls:
        arrow = {"marker": "v", "markersize": 7, "markerfacecolor": "white"}
        axes.plot(line.x[-1], line.y[-1], color=stroke.colour, gid="fall", clip_on=False, **arrow)


def _legend(figure: Figure, look: Mapping[str, Stroke], marks: bool) -> None:
    handles = [
        Line2D([], [], color=stroke.colour, linestyle=stroke.dash, label=name)
        for name, stroke in look.items()
    ]
    if marks:
        none = {"color": INK, "linestyle": "none", "markersize": 7}
        handles += [
            Line2D([], [], marker="s", label="best, by validation", **none),  # type: ignore[arg-type]
            Line2D([], [], marker="v", markerfacecolor="white", label="shown to fall", **none),  # type: ignore[arg-type]
        ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
