"""The overview: cut points by tasks, one map per checkpoint, the best cut in a square."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.colors import Colormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from layerscope.report.curve import Curve
from layerscope.report.layout import draw_map, heading
from layerscope.report.panel import Question, metric_name, question
from layerscope.report.style import INK, WIDTH
from layerscope.results.grouping import grouped
from layerscope.types import Verdict

ARROWS = {"minimise": "↓", "maximise": "↑"}
DARK_BELOW = 0.45
"""Luminance under which a cell's number is printed in white."""
REMOVED = "share of a constant answer's error that the cut removes (0 = none)"
NO_SQUARE = "no square: no cut is shown to read the task better than a constant answer"
UNKNOWN = "#e4e4e4"
"""Of cells that failed, and of rows that have no share."""


def heatmap(drawn: Sequence[Curve], verdicts: Sequence[Verdict]) -> Figure:
    """Draw one map per checkpoint, with squares at the cuts of verdicts.

    Colours are shares of a constant answer's error, so that a task that no cut reads is pale at
    every cut. Results from before constants were kept have shares of the task's best cut.
    """
    kept = any(math.isfinite(curve.constant) for curve in drawn)
    known = {question(verdict): verdict for verdict in verdicts}
    groups = grouped(drawn, "checkpoint")
    several = len({curve.source for curve in drawn}) > 1
    rows = [len(curves) for curves in groups.values()]
    figure = Figure(
        figsize=(WIDTH, 0.9 + 0.85 * len(groups) + 0.24 * sum(rows)), layout="constrained"
    )
    grid = figure.subplots(len(groups), 1, squeeze=False, height_ratios=rows)
    image: Any = None
    for axes, (checkpoint, curves) in zip(grid[:, 0], groups.items(), strict=True):
        image = _map(axes, curves, [_label(curve, several) for curve in curves], known, kept)
        axes.set_title(checkpoint)
    bar = figure.colorbar(
        image, ax=list(grid[:, 0]), orientation="horizontal", shrink=0.4, aspect=30, pad=0.02
    )
    bar.set_label(REMOVED if kept else "share of the task's best cut (1 = best)")
    bar.outline.set_visible(False)
    unread = any(question(curve) not in known for curve in drawn) if known else False
    text = "Test metric at every cut; the square marks the cut chosen on validation"
    heading(figure, f"{text}\n{NO_SQUARE}" if kept and unread else text)
    return figure


def _label(curve: Curve, several_sources: bool) -> str:
    name = curve.task if several_sources else curve.title
    return f"{name}, {metric_name(curve.metric)} {ARROWS[curve.direction]}"


def _map(
    axes: Axes,
    curves: list[Curve],
    titles: list[str],
    known: Mapping[Question, Verdict],
    kept: bool,
) -> Any:
    names = {
        cut: name.replace(" (= ", "\n(= ")  # columns are wide, and room below them is scarce
        for curve in curves
        for cut, name in curve.labels.items()
    }
    cuts = list(names)
    shares = [_shares(curve, cuts, kept) for curve in curves]
    image = draw_map(axes, shares, titles, list(names.values()), aspect="auto", cmap="Blues")
    axes.set_facecolor(UNKNOWN)
    if curves[0].heads:
        axes.axvline(curves[0].heads[0] - 0.5, color="white", linewidth=3, gid="head")
    for row, curve in enumerate(curves):
        _numbers(axes, row, curve, cuts, shares[row], image.cmap)
        _square(axes, row, cuts, known.get(question(curve)))
    return image


def _shares(curve: Curve, cuts: list[str], kept: bool) -> list[float]:
    shares = curve.removed() if kept else curve.relative()
    by_cut = dict(zip(curve.cuts, shares, strict=True))
    return [by_cut.get(cut, math.nan) for cut in cuts]


def _numbers(
    axes: Axes, row: int, curve: Curve, cuts: list[str], shares: list[float], colours: Colormap
) -> None:
    values = {point.cut: point.value for point in curve.points}
    for column, cut in enumerate(cuts):
        if not math.isfinite(values.get(cut, math.nan)):
            axes.text(
                column, row, "failed" if cut in values else "", ha="center", va="center", size=6
            )
            continue
        red, green, blue, _ = colours(shares[column])
        known = math.isfinite(shares[column])
        dark = known and 0.3 * red + 0.6 * green + 0.1 * blue < DARK_BELOW
        colour = "white" if dark else INK
        text = _short(values[cut])
        axes.text(column, row, text, ha="center", va="center", size=7, color=colour)


def _short(value: float) -> str:
    return f"{value:.2f}" if abs(value) >= 0.1 or value == 0 else f"{value:#.2g}"


def _square(axes: Axes, row: int, cuts: list[str], verdict: Verdict | None) -> None:
    if verdict is None or verdict.best not in cuts:
        return
    corner = (cuts.index(verdict.best) - 0.46, row - 0.44)
    square = Rectangle(corner, 0.92, 0.88, fill=False, edgecolor="#D55E00", linewidth=2, gid="best")
    axes.add_patch(square)
