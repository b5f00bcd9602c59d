"""The figure of the scorecard: how well each measure ranks the cuts, and what trusting it costs."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from layerscope.report.curve import title
from layerscope.report.panel import metric_name
from layerscope.report.style import COLOURS, FAINT, INK, MARKERS, WIDTH
from layerscope.types import Interval
from layerscope.verdicts.scorecard import MeasureScore, named

MARGIN = 1.3
"""Inches for the title and the legend."""
PER_MEASURE = 0.26
"""Inches of height for each measure."""
MOST = 6
"""Checkpoints up to which each has a mark and an interval of its own."""
SPREAD = 0.7
"""Share of a measure's row over which its checkpoints are spread."""


def scorecard_figure(standings: Sequence[MeasureScore], titles: Mapping[str, str]) -> Figure:
    """Draw two panels for each task and probe: rank correlations, and regrets.

    Args:
        standings: Of one source.
        titles: By task, what to call it.
    """
    panels: dict[tuple[str, str], list[MeasureScore]] = defaultdict(list)
    for one in standings:
        panels[one.task, one.estimator].append(one)
    checkpoints = list(dict.fromkeys(one.checkpoint for one in standings))
    rows = [list(dict.fromkeys(named(one) for one in group)) for group in panels.values()]
    counts = [len(names) for names in rows]
    height = MARGIN + 0.55 * len(rows) + PER_MEASURE * sum(counts)
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    grid = figure.subplots(len(rows), 2, squeeze=False, sharey="row", height_ratios=counts)
    for (left, right), names, ((task, probe), group) in zip(
        grid, rows, panels.items(), strict=True
    ):
        _ranks(left, group, names, checkpoints)
        _regrets(right, group, names, checkpoints)
        heading = titles.get(task) or title(task, group[0].source)
        left.set_title(f"{heading} · {probe}")
        left.set_xlabel("Kendall's τ with the probe")
        right.set_xlabel(f"regret in {metric_name(group[0].metric)}")
    figure.suptitle(
        f"{standings[0].source}: what measures without a probe are worth as a guide to the cut",
        x=0.01,
        ha="left",
    )
    _legend(figure, checkpoints)
    return figure


def _ranks(
    axes: Any, group: Sequence[MeasureScore], names: Sequence[str], checkpoints: Sequence[str]
) -> None:
    _rows(axes, names)
    axes.set_xlim(-1.05, 1.05)
    _marks(axes, group, names, checkpoints, [one.tau for one in group])


def _regrets(
    axes: Any, group: Sequence[MeasureScore], names: Sequence[str], checkpoints: Sequence[str]
) -> None:
    _rows(axes, names)
    _marks(axes, group, names, checkpoints, [one.regret for one in group])
    if len(checkpoints) > MOST:
        return
    for one in group:
        at = _place(one, names, checkpoints)
        axes.plot(one.regret_random.estimate, at, marker="|", color=INK, markersize=6, gid="random")
        axes.plot(one.regret_usual.estimate, at, marker="x", color=FAINT, markersize=4, gid="usual")


def _rows(axes: Any, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), labels=list(names))
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    axes.grid(visible=True, axis="x")
    axes.axvline(0, color=FAINT, linewidth=0.9, zorder=1)
    for line in range(1, len(names)):
        axes.axhline(line - 0.5, color="#e4e4e4", linewidth=0.6, zorder=0)


def _place(one: MeasureScore, names: Sequence[str], checkpoints: Sequence[str]) -> float:
    row, count = names.index(named(one)), len(checkpoints)
    if count == 1 or count > MOST:
        return float(row)
    return row + SPREAD * (checkpoints.index(one.checkpoint) / (count - 1) - 0.5)


def _marks(
    axes: Any,
    group: Sequence[MeasureScore],
    names: Sequence[str],
    checkpoints: Sequence[str],
    values: Sequence[Interval],
) -> None:
    if len(checkpoints) > MOST:
        _cloud(axes, group, names, values)
        return
    for one, value in zip(group, values, strict=True):
        which = checkpoints.index(one.checkpoint)
        at, colour = _place(one, names, checkpoints), COLOURS[which]
        if math.isfinite(value.low):
            axes.plot([value.low, value.high], [at, at], color=colour, linewidth=1.2, zorder=2)
        axes.plot(
            value.estimate, at, marker=MARKERS[which], color=colour, markersize=5, gid="standing"
        )


def _cloud(
    axes: Any, group: Sequence[MeasureScore], names: Sequence[str], values: Sequence[Interval]
) -> None:
    """Draw a dot for each checkpoint and a bar at their median."""
    by_name: dict[str, list[float]] = defaultdict(list)
    for one, value in zip(group, values, strict=True):
        if math.isfinite(value.estimate):
            by_name[named(one)].append(value.estimate)
    for name, found in by_name.items():
        at = names.index(name)
        dots = {"linestyle": "none", "marker": "o", "markersize": 3.5, "markeredgewidth": 0}
        axes.plot(found, [at] * len(found), color=COLOURS[0], alpha=0.4, gid="standing", **dots)
        axes.plot(median(found), at, marker="|", color=INK, markersize=11, gid="median")


def _legend(figure: Figure, checkpoints: Sequence[str]) -> None:
    none = {"linestyle": "none"}
    if len(checkpoints) > MOST:
        handles = [
            Line2D([], [], marker="o", color=COLOURS[0], alpha=0.4, label="one checkpoint", **none),  # type: ignore[arg-type]
            Line2D([], [], marker="|", color=INK, markersize=9, label="median", **none),  # type: ignore[arg-type]
        ]
    else:
        handles = [
            Line2D([], [], marker=MARKERS[i], color=COLOURS[i], linewidth=1.2, label=name)
            for i, name in enumerate(checkpoints)
        ]
        handles += [
            Line2D([], [], marker="|", color=INK, markersize=7, label="a cut at random", **none),  # type: ignore[arg-type]
            Line2D([], [], marker="x", color=FAINT, markersize=5, label="end of trunk", **none),  # type: ignore[arg-type]
        ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
