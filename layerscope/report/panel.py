"""One panel: curves over the cut points of a network, on a pair of axes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes

from layerscope.report.curve import Curve
from layerscope.report.style import FAINT, INK, SHADE, Stroke
from layerscope.types import Verdict

DIRECTIONS = {"minimise": "lower is better", "maximise": "higher is better"}
WIDE_RANGE = 50.0
"""Above this ratio of largest to smallest value, a linear axis would flatten the best cuts."""

CONSTANT_LOOK: dict[str, Any] = {"color": INK, "linestyle": (0, (1, 2)), "linewidth": 0.9}
"""Of the line at what a constant answer is worth."""
METRICS = {
    "mse": "MSE",
    "nmse": "nMSE",
    "r2": "R²",
    "mean-average-precision": "mAP",
    "auroc": "AUROC",
}
"""How the field writes a metric's name, where that differs from the table's."""

Question = tuple[str, str, str]
"""Checkpoint, task and estimator: what a verdict answers."""


def question(of: Curve | Verdict) -> Question:
    """Return what a curve and its verdict have in common."""
    return of.checkpoint, of.task, of.estimator


def aligned(curves: Sequence[Curve]) -> bool:
    """Return whether all curves run over the same cut points."""
    return len({curve.cuts for curve in curves}) == 1


def positions(curve: Curve, shared: bool) -> list[float]:
    """Return where a curve's points stand: evenly when the axis names cuts, else by depth."""
    return [float(i) if shared else point.depth for i, point in enumerate(curve.points)]


def draw(axes: Axes, curve: Curve, stroke: Stroke, verdict: Verdict | None, shared: bool) -> None:
    """Draw one curve with its interval, and the tied set and the best cut of its verdict.

    A failed cell is a gap. The axis names cut points if all curves share them.
    """
    x = positions(curve, shared)
    low, high = [p.low for p in curve.points], [p.high for p in curve.points]
    alpha = 0.12 if stroke.random else 0.18
    axes.fill_between(x, low, high, color=stroke.colour, alpha=alpha, linewidth=0)
    axes.plot(
        x,
        [point.value for point in curve.points],
        color=stroke.colour,
        linestyle=stroke.dash,
        linewidth=1.2 if stroke.random else 1.8,
        marker="o",  # a cut whose neighbours both failed is still seen
        markersize=2.2,
        label=curve.checkpoint,
        zorder=2 if stroke.random else 3,
    )
    if verdict is not None:
        _mark(axes, curve, stroke, verdict, x)


def _mark(axes: Axes, curve: Curve, stroke: Stroke, verdict: Verdict, x: list[float]) -> None:
    at = {point.cut: (x[i], point.value) for i, point in enumerate(curve.points)}
    tied = [at[cut] for cut in verdict.tied if cut != verdict.best and cut in at]
    # A best cut at the axis' edge keeps its whole square.
    bare: dict[str, Any] = {"linestyle": "none", "clip_on": False}
    if tied and not stroke.random:
        circle = bare | {"marker": "o", "markersize": 4.5, "markerfacecolor": "white"}
        edge = stroke.colour
        axes.plot(*zip(*tied, strict=True), gid="tied", zorder=4, markeredgecolor=edge, **circle)
    if verdict.best in at:
        size, z = (5.5, 3) if stroke.random else (8.5, 5)
        square = bare | {"marker": "s", "markersize": size, "markerfacecolor": stroke.colour}
        axes.plot(*at[verdict.best], gid="best", zorder=z, markeredgecolor="white", **square)


def frame(axes: Axes, curves: Sequence[Curve], shared: bool, strokes: Mapping[str, Stroke]) -> None:
    """Name the cut points, shade the head and mark the end of the trunk."""
    if not shared:
        axes.set_xlabel("depth in the network")
        for curve in curves:
            if curve.trunk_end is not None:
                depth = curve.points[curve.trunk_end].depth
                trunk_line(axes, depth, strokes[curve.checkpoint].colour)
        return
    first = curves[0]
    axes.set_xticks(range(len(first.cuts)), labels=list(first.labels.values()), rotation=90)
    axes.set_xlim(-0.5, len(first.cuts) - 0.5)
    if first.heads:
        shade = axes.axvspan(first.heads[0] - 0.5, first.heads[-1] + 0.5, color=SHADE, zorder=0)
        shade.set_gid("head")
        shade.set_linewidth(0)
    if first.trunk_end is not None:
        trunk_line(axes, first.trunk_end, FAINT)


def trunk_line(axes: Axes, x: float, colour: str) -> None:
    """Mark the end of the trunk."""
    line = axes.axvline(x, color=colour, linestyle=(0, (3, 2)), linewidth=0.9, zorder=1)
    line.set_gid("trunk")


def constant_lines(axes: Axes, colours: Mapping[float, str]) -> None:
    """Mark what constant answers are worth, each in its colour."""
    for value, colour in colours.items():
        if math.isfinite(value):
            line = axes.axhline(value, **CONSTANT_LOOK | {"color": colour}, zorder=1)
            line.set_gid("constant")


def scale_from_zero(axes: Axes, curves: Sequence[Curve]) -> None:
    """Let a linear value axis reach from zero to the largest value of the curves."""
    axes.set_yscale("linear")
    axes.set_ylim(bottom=0, top=1.08 * max(_values(curves), default=1.0))


def scale(axes: Axes, curves: Sequence[Curve]) -> None:
    """Choose the value axis: from zero for errors, logarithmic only where zero would hide all."""
    values = _values(curves)
    if not values or min(values) <= 0 or curves[0].direction == "maximise":
        return
    if max(values) / min(values) > WIDE_RANGE:
        axes.set_yscale("log")
    else:
        scale_from_zero(axes, curves)


def _values(curves: Sequence[Curve]) -> list[float]:
    drawn = [p.value for curve in curves for p in curve.points]
    return [value for value in (*drawn, *(c.constant for c in curves)) if math.isfinite(value)]


def value_label(curve: Curve) -> str:
    """Return the metric and its direction."""
    return f"{metric_name(curve.metric)}, {DIRECTIONS[curve.direction]}"


def metric_name(metric: str) -> str:
    """Return a metric's name as the field writes it."""
    return METRICS.get(metric, metric)
