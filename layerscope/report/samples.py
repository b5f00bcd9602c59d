"""The figure of a metric against the number of training rows, for the cuts that matter."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from matplotlib.figure import Figure

from layerscope.report.curve import NORMAL_95, title
from layerscope.report.style import WIDTH, Stroke, strokes
from layerscope.types import Score

COLUMNS = 3
HEIGHT = 2.2
MARGIN = 1.2
"""Inches for the title and the legend."""

Question = tuple[str, str, str]
"""Checkpoint, task and estimator: one panel."""


@dataclass(frozen=True, slots=True)
class Place:
    """What one cut is worth with some number of training rows, averaged over seeds."""

    rows: int
    value: float
    stderr: float


def samples_figure(scores: Sequence[Score], titles: dict[str, str]) -> Figure | None:
    """Draw one panel per checkpoint, task and estimator, with one line per cut.

    Drawn are the first cut, the end of the trunk, the last cut, and whichever cut validation
    prefers at some number of rows.

    Args:
        scores: Of one source.
        titles: By task, what to call it.

    Returns:
        The figure, or None where no question was asked with several numbers of rows.
    """
    panels = {
        question: _lines(rows) for question, rows in _questions(scores).items() if _varies(rows)
    }
    if not panels:
        return None
    look = strokes(cut for lines in panels.values() for cut in lines)
    columns = min(COLUMNS, len(panels))
    lines = -(-len(panels) // columns)
    figure = Figure(figsize=(WIDTH, MARGIN + lines * HEIGHT), layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False).ravel().tolist()
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    source, metrics = scores[0].source, {(it.task, it.metric) for it in scores if it.primary}
    for axes, ((checkpoint, task, estimator), drawn) in zip(grid, panels.items(), strict=False):
        _draw(axes, drawn, look)
        axes.set_title(f"{checkpoint} · {titles.get(task) or title(task, source)} · {estimator}")
        axes.set_ylabel(next(metric for name, metric in metrics if name == task))
        axes.set_xlabel("training images")
    handles = {line.get_label(): line for axes in grid for line in axes.get_lines()}
    figure.legend(handles=list(handles.values()), loc="outside lower center", ncols=4)
    figure.suptitle(f"{source}: what more training images are worth", x=0.01, ha="left")
    return figure


def _questions(scores: Sequence[Score]) -> dict[Question, list[Score]]:
    found: dict[Question, list[Score]] = defaultdict(list)
    for it in scores:
        if it.primary and it.status == "done" and not it.control:
            found[it.checkpoint, it.task, it.estimator].append(it)
    return found


def _varies(scores: Sequence[Score]) -> bool:
    return len({score.train for score in scores}) > 1


def _lines(scores: Sequence[Score]) -> dict[str, list[Place]]:
    cells: dict[tuple[str, str], list[Score]] = defaultdict(list)
    for score in scores:
        cells[score.cut, score.train].append(score)
    shown = _shown(scores)
    lines: dict[str, list[Place]] = {cut: [] for cut in shown}
    for (cut, _), group in cells.items():
        if cut in lines:
            lines[cut].append(
                Place(
                    round(fmean(it.n_train for it in group)),
                    fmean(it.test for it in group),
                    fmean(it.stderr for it in group),
                )
            )
    return {cut: sorted(places, key=lambda it: it.rows) for cut, places in lines.items()}


def _shown(scores: Sequence[Score]) -> list[str]:
    ordered = sorted(scores, key=lambda it: it.index)
    names = {ordered[0].cut, ordered[-1].cut}
    names |= {it.cut for it in [it for it in ordered if it.part == "trunk"][-1:]}
    sign = 1 if scores[0].direction == "maximise" else -1
    for train in {it.train for it in scores}:
        drawn = [it for it in ordered if it.train == train]
        names.add(max(drawn, key=lambda it: sign * it.val).cut)
    return [cut for cut in dict.fromkeys(it.cut for it in ordered) if cut in names]


def _draw(axes: Any, lines: dict[str, list[Place]], look: dict[str, Stroke]) -> None:
    for cut, places in lines.items():
        x, y = [it.rows for it in places], [it.value for it in places]
        half = [NORMAL_95 * it.stderr for it in places]
        low, high = ([v + s * h for v, h in zip(y, half, strict=True)] for s in (-1, 1))
        axes.fill_between(x, low, high, color=look[cut].colour, alpha=0.15, linewidth=0)
        axes.plot(x, y, color=look[cut].colour, marker="o", markersize=3, label=cut)
    axes.set_xscale("log")
    rows = sorted({it.rows for places in lines.values() for it in places})
    axes.set_xticks(rows, [f"{count:,}" for count in rows])
    axes.minorticks_off()
