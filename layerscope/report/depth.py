"""Figures of a metric against depth: by task, by checkpoint, and by measure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from layerscope.report import panel
from layerscope.report.curve import Curve
from layerscope.report.layout import heading, legend, legend_line, legend_mark, panel_grid
from layerscope.report.style import FAINT, INK, SHADE, WIDTH, Stroke, strokes
from layerscope.results.grouping import grouped
from layerscope.types import UNLABELLED, Verdict

PANEL_HEIGHT = 1.9
MARGIN = 1.5
"""Inches for the title, the legend and the names of the cut points."""


def depth_figure(drawn: Sequence[Curve], verdicts: Sequence[Verdict]) -> Figure:
    """Draw one panel per task, with one line per checkpoint."""
    panels = list(grouped(drawn, "task", "estimator", "metric").values())

    def label(curve: Curve) -> tuple[str, str]:
        return _task_title(curve, panels), panel.value_label(curve)

    texts = _heading(drawn, "what every cut is worth")
    marks = [*verdict_marks(), *constant_marks(drawn)]
    return _by_checkpoint(drawn, panels, label, texts, verdicts, marks)


def latents_figure(drawn: Sequence[Curve], verdicts: Sequence[Verdict]) -> Figure:
    """Draw one panel per checkpoint, with one line per latent: the paper's own view."""
    panels = list(grouped(drawn, "checkpoint").values())
    tasks = list(dict.fromkeys(curve.task for curve in drawn))
    names = {curve.task: curve.title for curve in drawn}
    look = strokes(tasks)
    figure, grid = depth_panels(len(panels), columns=2)
    for axes, group in zip(grid, panels, strict=True):
        fill_panel(axes, group, look, verdicts, panel.aligned(group), by="task")
        axes.set_title(group[0].checkpoint)
        axes.set_ylabel(panel.value_label(group[0]))
        # One linear scale for all: 1 is a constant answer, and most of the story is below it.
        panel.scale_from_zero(axes, drawn)
    if panel.aligned(drawn):
        hide_inner_names(grid, 2)
    write_heading(figure, *_heading(drawn, "all latents over depth"))
    heads = any(group[0].heads for group in panels)
    marks = [*verdict_marks(), *constant_marks(drawn)]
    depth_legend(figure, {names[task]: stroke for task, stroke in look.items()}, heads, marks)
    return figure


def measures_figure(drawn: Sequence[Curve]) -> Figure:
    """Draw one panel per measure, with one line per checkpoint."""

    def label(curve: Curve) -> tuple[str, str]:
        labels = "" if curve.task == UNLABELLED.name else f" · {curve.title}"
        return f"{curve.estimator}{labels}", panel.metric_name(curve.metric)

    panels = list(grouped(drawn, "estimator", "metric", "task").values())
    text = f"{drawn[0].source}: measures of every cut, without a probe"
    return _by_checkpoint(drawn, panels, label, (text, "bands: 95% intervals"))


def _by_checkpoint(
    drawn: Sequence[Curve],
    panels: Sequence[Sequence[Curve]],
    label: Callable[[Curve], tuple[str, str]],
    texts: tuple[str, str],
    verdicts: Sequence[Verdict] = (),
    marks: Sequence[Artist] = (),
) -> Figure:
    """Draw panels, each with the title and the label of its first curve."""
    names = [curve.checkpoint for curve in drawn]
    look = strokes(names, {curve.checkpoint for curve in drawn if not curve.trained})
    shared = panel.aligned(drawn)
    figure, grid = depth_panels(len(panels), columns=3)
    for axes, group in zip(grid, panels, strict=True):
        fill_panel(axes, group, look, verdicts, shared)
        title, quantity = label(group[0])
        axes.set_title(title)
        axes.set_ylabel(quantity)
    hide_inner_names(grid, min(3, len(panels)))
    write_heading(figure, *texts)
    depth_legend(figure, look, shared and bool(drawn[0].heads), marks)
    return figure


def depth_panels(count: int, columns: int) -> tuple[Figure, list[Any]]:
    """Return a figure of panels over depth."""

    def size(rows: int, columns: int) -> tuple[float, float]:
        height = MARGIN + rows * PANEL_HEIGHT
        # A single panel is narrower, and its legend takes more lines.
        return (WIDTH, height) if columns > 1 else (0.6 * WIDTH, height + 0.8)

    return panel_grid(count, columns, size)


def fill_panel(
    axes: Any,
    group: Sequence[Curve],
    look: dict[str, Stroke],
    verdicts: Sequence[Verdict],
    shared: bool,
    by: str = "checkpoint",
) -> None:
    """Draw curves into a panel, with the cuts of their verdicts marked.

    The axis names cut points if all curves of the figure share them. Strokes belong to an attribute
    of the curves: what sets them apart.
    """
    known = {panel.question(verdict): verdict for verdict in verdicts}
    by_name = {curve.checkpoint: look[getattr(curve, by)] for curve in group}
    panel.frame(axes, group, shared, by_name)
    for curve in group:
        stroke = look[getattr(curve, by)]
        panel.draw(axes, curve, stroke, known.get(panel.question(curve)), shared)
    # Of one task there is one constant answer; of several each has its own.
    one_task = by != "task"
    panel.constant_lines(
        axes, {it.constant: INK if one_task else look[getattr(it, by)].colour for it in group}
    )
    panel.scale(axes, group)


def write_heading(figure: Figure, text: str, details: str) -> None:
    """Write what a figure shows, and how: beside each other where there is room."""
    heading(figure, f"{text} ({details})" if _wide(figure) else f"{text}\n{details}")


def depth_legend(
    figure: Figure, look: dict[str, Stroke], heads: bool, marks: Sequence[Artist] = ()
) -> None:
    """Add the legend of a figure over depth, with entries for what is marked on the lines."""
    handles: list[Artist] = [
        legend_line(name, color=s.colour, linestyle=s.dash, linewidth=1.8)
        for name, s in look.items()
    ]
    handles += marks
    end = {"color": FAINT, "linestyle": (0, (3, 2)), "linewidth": 0.9}
    handles += [legend_line("end of trunk", **end)]
    handles += [Patch(facecolor=SHADE, label="head")] if heads else []
    legend(figure, handles, 4 if _wide(figure) else 2)


def verdict_marks() -> list[Artist]:
    """Return the legend's entries for the cuts of verdicts."""
    square = {"markersize": 7, "markeredgecolor": "white"}
    circle = {"markersize": 4.5, "markerfacecolor": "white"}
    return [
        legend_mark("best cut, chosen on validation", "s", color=INK, **square),
        legend_mark("tied with it", "o", color=INK, **circle),
    ]


def constant_marks(drawn: Sequence[Curve]) -> list[Artist]:
    """Return the legend's entry for constant answers, if any is drawn."""
    if not any(math.isfinite(curve.constant) for curve in drawn):
        return []
    return [legend_line("constant answer (chance)", **panel.CONSTANT_LOOK)]


def hide_inner_names(grid: Sequence[Any], columns: int) -> None:
    """Name the cut points under the lowest panel of every column only."""
    for axes in grid[:-columns]:
        axes.tick_params(labelbottom=False)


def _task_title(curve: Curve, panels: Sequence[Sequence[Curve]]) -> str:
    twice = sum(group[0].task == curve.task for group in panels) > 1
    return f"{curve.title} · {curve.estimator}" if twice else curve.title


def _heading(drawn: Sequence[Curve], what: str) -> tuple[str, str]:
    first = drawn[0]
    groups = f" in {first.n_groups:,} groups" if first.n_groups < first.n_test else ""
    rows = f"{first.n_test:,} test images{groups}, unseen by the probes"
    return f"{first.source}: {what}", f"{rows}; bands: 95% intervals"


def _wide(figure: Figure) -> bool:
    return bool(figure.get_figwidth() >= WIDTH)
