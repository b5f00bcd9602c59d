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
from layerscope.report.layout import heading, plain_frame
from layerscope.report.panel import Question, question
from layerscope.report.style import INK, WIDTH
from layerscope.types import Verdict

DARK_BELOW = 0.55
"""Luminance under which a cell's number is printed in white."""


def heatmap(
    groups: Sequence[tuple[str, list[Curve], list[str]]], verdicts: Sequence[Verdict]
) -> Figure:
    """Draw one map per checkpoint.

    Args:
        groups: By checkpoint: its name, its curves and a title for each of them.
        verdicts: Where the squares go.
    """
    known = {question(verdict): verdict for verdict in verdicts}
    rows = [len(curves) for _, curves, _ in groups]
    figure = Figure(
        figsize=(WIDTH, 0.9 + 0.85 * len(groups) + 0.24 * sum(rows)), layout="constrained"
    )
    grid = figure.subplots(len(groups), 1, squeeze=False, height_ratios=rows)
    image: Any = None
    for axes, (checkpoint, curves, titles) in zip(grid[:, 0], groups, strict=True):
        image = _map(axes, curves, titles, known)
        axes.set_title(checkpoint)
    bar = figure.colorbar(
        image, ax=list(grid[:, 0]), orientation="horizontal", shrink=0.4, aspect=30, pad=0.02
    )
    bar.set_label("share of the task's best cut (1 = best)")
    bar.outline.set_visible(False)
    heading(figure, "Test metric at every cut; the square marks the cut chosen on validation")
    return figure


def _map(
    axes: Axes, curves: list[Curve], titles: list[str], known: Mapping[Question, Verdict]
) -> Any:
    cuts = list(dict.fromkeys(cut for curve in curves for cut in curve.cuts))
    shares = [_shares(curve, cuts) for curve in curves]
    image = axes.imshow(shares, cmap="cividis", vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(range(len(cuts)), labels=cuts, rotation=90)
    axes.set_yticks(range(len(curves)), labels=titles)
    plain_frame(axes)
    if curves[0].heads:
        axes.axvline(curves[0].heads[0] - 0.5, color="white", linewidth=3, gid="head")
    for row, curve in enumerate(curves):
        _numbers(axes, row, curve, cuts, shares[row], image.cmap)
        _square(axes, row, cuts, known.get(question(curve)))
    return image


def _shares(curve: Curve, cuts: list[str]) -> list[float]:
    by_cut = dict(zip(curve.cuts, curve.relative(), strict=True))
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
        dark = 0.3 * red + 0.6 * green + 0.1 * blue < DARK_BELOW
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
