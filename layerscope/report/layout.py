"""What every figure has: a grid of panels, a heading, a legend, and bands around lines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D

from layerscope.report.curve import NORMAL_95


def panel_grid(
    count: int, columns: int, size: Callable[[int, int], tuple[float, float]]
) -> tuple[Figure, list[Axes]]:
    """Return a figure with some panels, and the panels.

    Args:
        count: Number of panels.
        columns: At most so many beside each other.
        size: From the numbers of rows and columns to width and height in inches.
    """
    columns = min(columns, count)
    rows = -(-count // columns)
    figure = Figure(figsize=size(rows, columns), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    for axes in panels[count:]:
        axes.set_visible(False)
    return figure, panels[:count]


def heading(figure: Figure, text: str) -> None:
    """Write what a figure shows above it, to the left."""
    figure.suptitle(text, x=0.01, ha="left")


def legend(figure: Figure, handles: Sequence[Artist], columns: int = 4) -> None:
    """Explain lines and marks below a figure."""
    figure.legend(handles=handles, loc="outside lower center", ncols=columns)


def legend_line(label: str, **look: Any) -> Line2D:
    """Return a legend's entry for a line."""
    return Line2D([], [], label=label, **look)


def legend_mark(label: str, marker: str, **look: Any) -> Line2D:
    """Return a legend's entry for a mark."""
    return Line2D([], [], linestyle="none", marker=marker, label=label, **look)


def band(
    axes: Axes,
    x: Sequence[float],
    y: Sequence[float],
    stderr: Sequence[float],
    colour: str,
) -> None:
    """Shade the 95% interval around a line."""
    half = [NORMAL_95 * error for error in stderr]
    low, high = ([v + s * h for v, h in zip(y, half, strict=True)] for s in (-1, 1))
    axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)


def draw_map(
    axes: Axes,
    values: Any,
    rows: Sequence[str],
    columns: Sequence[str],
    cmap: str = "cividis",
    **look: Any,
) -> AxesImage:
    """Draw shares as a map without a frame, with names of rows and columns."""
    image = axes.imshow(values, cmap=cmap, vmin=0, vmax=1, **look)
    axes.set_xticks(range(len(columns)), labels=columns, rotation=90)
    axes.set_yticks(range(len(rows)), labels=rows)
    axes.tick_params(length=0)
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return image
