"""The grids: the last head layer against the end of the trunk, one point per run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from matplotlib.figure import Figure

from layerscope.report.curve import NORMAL_95, title
from layerscope.report.evidence import Evidence
from layerscope.report.layout import heading, legend, legend_mark, panel_grid
from layerscope.report.panel import metric_name
from layerscope.report.section import Finding, Section, by_source, sections
from layerscope.report.style import COLOURS, FAINT, MARKERS, WIDTH
from layerscope.report.table import csv_text
from layerscope.verdicts.grid import Grid, GridPoint, describe_interval, grids, sentence

NOTE = """Every run counts once, with its last snapshot. Intervals draw whole runs, as if the
grid were a sample of the settings that might have been tried. A correlation of runs that are all in
one order has no interval: no resample can disagree with it."""
COLUMNS = 3
PANEL = 2.9
"""Inches of height for each row of square panels."""
MARGIN = 1.0
"""Inches for the title and the legend."""
AIR = 0.06
"""Share of the values' range that is left free around them."""


@sections.register("grids")
class Grids(Section):
    """Trunk against head, where checkpoints are runs of a grid."""

    order = 50

    def find(self, evidence: Evidence) -> Finding:
        found = grids(evidence.comparisons, evidence.runs, seed=evidence.seed)
        return Finding(
            "Trunk and head over a grid",
            sentences=[sentence(one, evidence.titles) for one in found],
            note=NOTE,
            figures=by_source("grid", found, lambda some: grid_figure(some, evidence.titles)),
            files={"grids.csv": grids_csv(found)} if found else {},
            records=found,
        )


def grids_csv(found: Sequence[Grid]) -> str:
    """Return one row for every task and run of a grid."""
    asked = ("source", "task", "estimator", "metric")
    return csv_text(
        {name: getattr(one, name) for name in asked} | asdict(point)
        for one in found
        for point in one.points
    )


def grid_figure(found: Sequence[Grid], titles: Mapping[str, str]) -> Figure:
    """Draw a square panel for each task and probe; on the dashed line both are worth the same."""
    figure, panels = panel_grid(
        len(found),
        COLUMNS,
        lambda rows, columns: (WIDTH * max(columns, 1.4) / COLUMNS, MARGIN + rows * PANEL),
    )
    key, kinds = _distinguishing_setting([point for one in found for point in one.points])
    for axes, one in zip(panels, found, strict=True):
        _draw(axes, one, key, kinds)
        axes.set_title(f"{title(one.task, one.source, titles)} · {one.estimator}")
        axes.set_xlabel(f"{metric_name(one.metric)} at the end of the trunk")
        axes.set_ylabel(f"{metric_name(one.metric)} at the last head layer")
    heading(figure, f"{found[0].source}: trunk and head over the runs of a grid")
    if key:
        handles = [
            legend_mark(f"{key} {kind}", marker, color=colour)
            for kind, colour, marker in zip(kinds, COLOURS, MARKERS, strict=False)
        ]
        legend(figure, handles, 4 if len(found) > 1 else 2)
    return figure


def _distinguishing_setting(points: Sequence[GridPoint]) -> tuple[str, list[Any]]:
    """Return the setting by which points are told apart, words before numbers, and its values."""
    values: dict[str, list[Any]] = defaultdict(list)
    for key, value in (item for point in points for item in point.settings.items()):
        if value not in values[key]:
            values[key].append(value)
    usable = {key: them for key, them in values.items() if 1 < len(them) <= len(MARKERS)}
    worded = [key for key, them in usable.items() if isinstance(them[0], str)]
    key = next(iter([*worded, *usable]), "")
    return key, sorted(usable[key], key=str if worded else None) if key else []


def _draw(axes: Any, one: Grid, key: str, kinds: Sequence[Any]) -> None:
    for point in one.points:
        which = kinds.index(point.settings[key]) if point.settings.get(key) in kinds else 0
        axes.errorbar(
            point.at_trunk,
            point.at_head,
            xerr=NORMAL_95 * point.trunk_stderr,
            yerr=NORMAL_95 * point.head_stderr,
            color=COLOURS[which],
            marker=MARKERS[which],
            markersize=5,
            markeredgecolor="white",
            markeredgewidth=0.5,
            elinewidth=0.7,
            gid="run",
        )
    ends = _ends(one.points)
    axes.plot(ends, ends, color=FAINT, linestyle=(0, (3, 2)), linewidth=0.9, zorder=1)
    axes.set(xlim=ends, ylim=ends)
    axes.set_box_aspect(1)
    tau, spread = (describe_interval(it, no_interval="") for it in (one.tau, one.spread))
    text = f"τ {tau}\nhead/trunk deviation {spread}"
    # Where the head is worse there are no points: above the line or, for errors, below it.
    x, y, ha, va = (0.03, 0.97, "left", "top")
    if one.direction == "minimise":
        x, y, ha, va = (0.97, 0.03, "right", "bottom")
    axes.text(x, y, text, transform=axes.transAxes, ha=ha, va=va, fontsize=7)


def _ends(points: Sequence[GridPoint]) -> tuple[float, float]:
    """Return the ends of both axes: one scale, so that a stable trunk is seen to be stable."""
    pairs = [(it.at_trunk, it.trunk_stderr) for it in points]
    pairs += [(it.at_head, it.head_stderr) for it in points]
    low = min(value - NORMAL_95 * error for value, error in pairs)
    high = max(value + NORMAL_95 * error for value, error in pairs)
    air = AIR * (high - low or 1.0)
    return low - air, high + air
