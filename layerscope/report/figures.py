"""The figures: metric against depth by task and by checkpoint, and the overview of all cuts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from layerscope.report import panel
from layerscope.report.curve import Curve, curves
from layerscope.report.grid_figure import grid_figure
from layerscope.report.heatmap import heatmap
from layerscope.report.samples import samples_figure
from layerscope.report.scorecard_figure import scorecard_figure
from layerscope.report.series_figure import series_figures
from layerscope.report.style import FAINT, INK, SHADE, WIDTH, Stroke, save, strokes, styled
from layerscope.results.measures import divided
from layerscope.types import UNLABELLED, Score, Verdict
from layerscope.verdicts.grid import Grid
from layerscope.verdicts.scorecard import MeasureScore
from layerscope.verdicts.series import Series

PANEL_HEIGHT = 1.9
MARGIN = 1.5
"""Inches for the title, the legend and the names of the cut points."""
NORMALISED = "nmse"
"""The metric in which different latents share an axis: 1 is what a constant answer earns."""
ARROWS = {"minimise": "↓", "maximise": "↑"}

Sourced = TypeVar("Sourced", Score, MeasureScore, Series, Grid)


@dataclass(frozen=True, slots=True)
class Beside:
    """What stands beside the verdicts: the scorecard of measures, series and grids."""

    standings: Sequence[MeasureScore] = ()
    series: Sequence[Series] = ()
    grids: Sequence[Grid] = ()


def figures(
    scores: Iterable[Score],
    verdicts: Sequence[Verdict],
    titles: Mapping[str, str] | None = None,
    beside: Beside | None = None,
) -> dict[str, Figure]:
    """Draw every figure of a report.

    Args:
        scores: The long table.
        verdicts: The verdicts whose cuts are marked.
        titles: By task, what to call it; by default its name without the source's.
        beside: The scorecard, series and grids. Of a series only the last snapshot is drawn over
            depth.

    Returns:
        By name: ``depth-SOURCE``, ``latents-SOURCE`` where a source has latents, ``samples-SOURCE``
        where probes were trained on several numbers of rows, ``overview``, ``measures-SOURCE``
        where there are measures, and ``scorecard-``, ``series-``, ``series-measures-`` and
        ``grid-SOURCE`` where there is what they show.
    """
    drawn: dict[str, Figure] = {}
    more, named = beside or Beside(), dict(titles or {})
    passed = {name for one in more.series for name in one.checkpoints[:-1]}
    table, measures = divided(score for score in scores if score.checkpoint not in passed)
    every = curves(table, titles=titles)
    with styled():
        for source, group in _grouped(every, "source").items():
            drawn[f"depth-{source}"] = depth_figure(group, verdicts)
        for source, group in _grouped(curves(table, NORMALISED, titles), "source").items():
            drawn[f"latents-{source}"] = latents_figure(group, verdicts)
        for source, some in _by_source(table).items():
            samples = samples_figure(some, named)
            if samples is not None:
                drawn[f"samples-{source}"] = samples
        if every:
            drawn["overview"] = overview_figure(every, verdicts)
        for source, group in _grouped(curves(measures, titles=titles), "source").items():
            drawn[f"measures-{source}"] = measures_figure(group)
        drawn |= _beside(more, named)
    return drawn


def _beside(more: Beside, titles: Mapping[str, str]) -> dict[str, Figure]:
    drawn: dict[str, Figure] = {}
    for source, standings in _by_source(more.standings).items():
        drawn[f"scorecard-{source}"] = scorecard_figure(standings, titles)
    for source, series in _by_source(more.series).items():
        for name, figure in series_figures(series, titles).items():
            drawn[f"{name}-{source}"] = figure
    for source, grids in _by_source(more.grids).items():
        drawn[f"grid-{source}"] = grid_figure(grids, titles)
    return drawn


def write(drawn: dict[str, Figure], folder: Path) -> list[Path]:
    """Write every figure as PNG and SVG into a folder and return the paths."""
    return [path for name, figure in drawn.items() for path in save(figure, folder / name)]


def depth_figure(drawn: Sequence[Curve], verdicts: Sequence[Verdict]) -> Figure:
    """Draw one panel per task, with one line per checkpoint."""
    panels = list(_panels(drawn))
    look = _strokes(drawn)
    shared = panel.aligned(drawn)
    figure, grid = _grid(len(panels), columns=3)
    columns = min(3, len(panels))
    for axes, group in zip(grid, panels, strict=True):
        _fill(axes, group, look, verdicts, shared)
        axes.set_title(_task_title(group[0], panels))
        axes.set_ylabel(panel.value_label(group[0]))
    _hide_inner_names(grid, columns)
    _head(figure, *_heading(drawn, "what every cut is worth"))
    _legend(figure, look, shared and bool(drawn[0].heads))
    return figure


def latents_figure(drawn: Sequence[Curve], verdicts: Sequence[Verdict]) -> Figure:
    """Draw one panel per checkpoint, with one line per latent: the paper's own view."""
    panels = list(_grouped(drawn, "checkpoint").values())
    tasks = list(dict.fromkeys(curve.task for curve in drawn))
    names = {curve.task: curve.title for curve in drawn}
    look = strokes(tasks)
    figure, grid = _grid(len(panels), columns=2)
    for axes, group in zip(grid, panels, strict=True):
        _fill(axes, group, look, verdicts, panel.aligned(group), by="task")
        axes.set_title(group[0].checkpoint)
        axes.set_ylabel(panel.value_label(group[0]))
        # One linear scale for all: 1 is a constant answer, and most of the story is below it.
        panel.scale_from_zero(axes, drawn)
    if panel.aligned(drawn):
        _hide_inner_names(grid, 2)
    _head(figure, *_heading(drawn, "all latents over depth"))
    heads = any(group[0].heads for group in panels)
    _legend(figure, {names[task]: stroke for task, stroke in look.items()}, heads)
    return figure


def measures_figure(drawn: Sequence[Curve]) -> Figure:
    """Draw one panel per measure, with one line per checkpoint."""
    panels: dict[tuple[str, str, str], list[Curve]] = defaultdict(list)
    for curve in drawn:
        panels[curve.estimator, curve.metric, curve.task].append(curve)
    look = _strokes(drawn)
    shared = panel.aligned(drawn)
    figure, grid = _grid(len(panels), columns=3)
    for axes, group in zip(grid, panels.values(), strict=True):
        _fill(axes, group, look, (), shared)
        first = group[0]
        labels = "" if first.task == UNLABELLED.name else f" · {first.title}"
        axes.set_title(f"{first.estimator}{labels}")
        axes.set_ylabel(panel.metric_name(first.metric))
    _hide_inner_names(grid, min(3, len(panels)))
    heading = f"{drawn[0].source}: measures of every cut, without a probe"
    _head(figure, heading, "bands: 95% intervals")
    _legend(figure, look, shared and bool(drawn[0].heads), marks=False)
    return figure


def overview_figure(drawn: Sequence[Curve], verdicts: Sequence[Verdict]) -> Figure:
    """Draw the heat map of cut points by tasks for every checkpoint."""
    groups = _grouped(drawn, "checkpoint")
    sources = {curve.source for curve in drawn}

    def label(curve: Curve) -> str:
        name = curve.title if len(sources) == 1 else curve.task
        return f"{name}, {panel.metric_name(curve.metric)} {ARROWS[curve.direction]}"

    rows = [(name, group, [label(curve) for curve in group]) for name, group in groups.items()]
    return heatmap(rows, verdicts)


def _fill(
    axes: Any,
    group: Sequence[Curve],
    look: dict[str, Stroke],
    verdicts: Sequence[Verdict],
    shared: bool,
    by: str = "checkpoint",
) -> None:
    known = {panel.key(verdict): verdict for verdict in verdicts}
    by_name = {curve.checkpoint: look[getattr(curve, by)] for curve in group}
    panel.frame(axes, group, shared, by_name)
    for curve in group:
        panel.draw(axes, curve, look[getattr(curve, by)], known.get(panel.key(curve)), shared)
    panel.scale(axes, group)


def _strokes(drawn: Sequence[Curve]) -> dict[str, Stroke]:
    names = [curve.checkpoint for curve in drawn]
    return strokes(names, {curve.checkpoint for curve in drawn if not curve.trained})


def _grid(count: int, columns: int) -> tuple[Figure, list[Any]]:
    columns = min(columns, count)
    rows = -(-count // columns)
    height = MARGIN + rows * PANEL_HEIGHT
    # A single panel is narrower, and its legend takes more lines.
    size = (WIDTH, height) if columns > 1 else (0.6 * WIDTH, height + 0.8)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    for axes in grid[count:]:
        axes.set_visible(False)
    return figure, grid[:count]


def _hide_inner_names(grid: Sequence[Any], columns: int) -> None:
    """Name the cut points under the lowest panel of every column only."""
    for axes in grid[:-columns]:
        axes.tick_params(labelbottom=False)


def _panels(drawn: Sequence[Curve]) -> Iterator[list[Curve]]:
    by_question: dict[tuple[str, str, str], list[Curve]] = defaultdict(list)
    for curve in drawn:
        by_question[curve.task, curve.estimator, curve.metric].append(curve)
    yield from by_question.values()


def _task_title(curve: Curve, panels: Sequence[Sequence[Curve]]) -> str:
    twice = sum(group[0].task == curve.task for group in panels) > 1
    return f"{curve.title} · {curve.estimator}" if twice else curve.title


def _heading(drawn: Sequence[Curve], what: str) -> tuple[str, str]:
    first = drawn[0]
    groups = f" in {first.n_groups:,} groups" if first.n_groups < first.n_test else ""
    rows = f"{first.n_test:,} test images{groups}, unseen by the probes"
    return f"{first.source}: {what}", f"{rows}; bands: 95% intervals"


def _head(figure: Figure, heading: str, details: str) -> None:
    text = f"{heading} ({details})" if _wide(figure) else f"{heading}\n{details}"
    figure.suptitle(text, x=0.01, ha="left")


def _wide(figure: Figure) -> bool:
    return bool(figure.get_figwidth() >= WIDTH)


def _legend(figure: Figure, look: dict[str, Stroke], heads: bool, *, marks: bool = True) -> None:
    handles: list[Artist] = [
        Line2D([], [], color=s.colour, linestyle=s.dash, linewidth=1.8, label=name)
        for name, s in look.items()
    ]
    square = {"marker": "s", "markersize": 7, "markeredgecolor": "white"}
    circle = {"marker": "o", "markersize": 4.5, "markerfacecolor": "white"}
    none = {"color": INK, "linestyle": "none"}
    if marks:
        handles += [
            Line2D([], [], label="best cut, chosen on validation", **none, **square),  # type: ignore[arg-type]
            Line2D([], [], label="tied with it", **none, **circle),  # type: ignore[arg-type]
        ]
    end = {"color": FAINT, "linestyle": (0, (3, 2)), "linewidth": 0.9}
    handles += [Line2D([], [], label="end of trunk", **end)]  # type: ignore[arg-type]
    handles += [Patch(facecolor=SHADE, label="head")] if heads else []
    figure.legend(handles=handles, loc="outside lower center", ncols=4 if _wide(figure) else 2)


def _by_source(items: Iterable[Sourced]) -> dict[str, list[Sourced]]:
    groups: dict[str, list[Sourced]] = defaultdict(list)
    for item in items:
        groups[item.source].append(item)
    return dict(groups)


def _grouped(drawn: Iterable[Curve], by: str) -> dict[str, list[Curve]]:
    groups: dict[str, list[Curve]] = defaultdict(list)
    for curve in drawn:
        groups[getattr(curve, by)].append(curve)
    return dict(groups)
