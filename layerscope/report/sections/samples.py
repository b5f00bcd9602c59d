"""Training images: the metric against their number, for the cuts that matter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import itemgetter
from statistics import fmean
from typing import Any

from matplotlib.figure import Figure

from layerscope.report.curve import title
from layerscope.report.evidence import Evidence
from layerscope.report.layout import band, heading, legend, panel_grid
from layerscope.report.section import Finding, Section, by_source, sections
from layerscope.report.style import WIDTH, Stroke, strokes
from layerscope.results.equal_cuts import without_repeats
from layerscope.results.grouping import grouped
from layerscope.types import Score

COLUMNS = 3
HEIGHT = 2.2
MARGIN = 1.2
"""Inches for the title and the legend."""


SamplePoint = tuple[int, float, float]
"""A number of training rows, and what a cut is worth with them: mean over seeds, standard error."""


@sections.register("samples")
class Samples(Section):
    """A figure of the metric against the number of training images."""

    order = 12

    def find(self, evidence: Evidence) -> Finding:
        probes = evidence.drawn("probe")
        figures = by_source("samples", probes, lambda some: samples_figure(some, evidence.titles))
        return Finding("Training images", figures=figures)


def samples_figure(scores: Sequence[Score], titles: Mapping[str, str]) -> Figure | None:
    """Draw one panel per checkpoint, task and estimator, with one line per cut.

    Drawn are the first cut, the end of the trunk, the last cut, and whichever cut validation
    prefers at some number of rows. There is no figure of a source where no question was asked with
    several numbers of rows.
    """
    primary = (it for it in scores if it.primary and it.status == "done" and not it.control)
    done = without_repeats(list(primary))
    panels = {
        question: _lines(rows)
        for question, rows in grouped(done, "checkpoint", "task", "estimator").items()
        if len({it.train for it in rows}) > 1
    }
    if not panels:
        return None
    look = strokes(cut for lines in panels.values() for cut in lines)
    figure, grid = panel_grid(len(panels), COLUMNS, lambda rows, _: (WIDTH, MARGIN + rows * HEIGHT))
    source, metrics = scores[0].source, {(it.task, it.metric) for it in scores if it.primary}
    for axes, ((checkpoint, task, estimator), drawn) in zip(grid, panels.items(), strict=True):
        _draw(axes, drawn, look)
        axes.set_title(f"{checkpoint} · {title(task, source, titles)} · {estimator}")
        axes.set_ylabel(next(metric for name, metric in metrics if name == task))
        axes.set_xlabel("training images")
    handles = {line.get_label(): line for axes in grid for line in axes.get_lines()}
    legend(figure, list(handles.values()))
    heading(figure, f"{source}: what more training images are worth")
    return figure


def _lines(scores: Sequence[Score]) -> dict[str, list[SamplePoint]]:
    lines: dict[str, list[SamplePoint]] = {cut: [] for cut in _shown(scores)}
    for (cut, _), group in grouped(scores, "cut", "train").items():
        if cut in lines:
            test, stderr = fmean(it.test for it in group), fmean(it.stderr for it in group)
            lines[cut].append((round(fmean(it.n_train for it in group)), test, stderr))
    return {cut: sorted(points, key=itemgetter(0)) for cut, points in lines.items()}


def _shown(scores: Sequence[Score]) -> list[str]:
    ordered = sorted(scores, key=lambda it: it.index)
    names = {ordered[0].cut, ordered[-1].cut}
    names |= {it.cut for it in [it for it in ordered if it.part == "trunk"][-1:]}
    sign = 1 if scores[0].direction == "maximise" else -1
    for train in {it.train for it in scores}:
        drawn = [it for it in ordered if it.train == train]
        names.add(max(drawn, key=lambda it: sign * it.val).cut)
    return [cut for cut in dict.fromkeys(it.cut for it in ordered) if cut in names]


def _draw(axes: Any, lines: dict[str, list[SamplePoint]], look: dict[str, Stroke]) -> None:
    for cut, points in lines.items():
        x, y, stderr = zip(*points, strict=True)
        band(axes, x, y, stderr, look[cut].colour)
        axes.plot(x, y, color=look[cut].colour, marker="o", markersize=3, label=cut)
    axes.set_xscale("log")
    rows = sorted({rows for points in lines.values() for rows, *_ in points})
    axes.set_xticks(rows, [f"{count:,}" for count in rows])
    axes.minorticks_off()
