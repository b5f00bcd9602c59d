"""The scorecard: how well each measure ranks the cuts, and what trusting it costs."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any

from matplotlib.figure import Figure

from layerscope.report.curve import title
from layerscope.report.evidence import Evidence
from layerscope.report.layout import heading, legend, legend_line, legend_mark
from layerscope.report.panel import metric_name
from layerscope.report.section import Finding, Section, Table, by_source, sections
from layerscope.report.style import COLOURS, FAINT, INK, MARKERS, WIDTH
from layerscope.report.table import csv_text, number, signed
from layerscope.results.grouping import grouped
from layerscope.types import Interval
from layerscope.verdicts.scorecard import MeasureScore, full_name, scorecard, sentences

HEADER = (
    "checkpoint",
    "task",
    "probe",
    "measure",
    "of which",
    "Kendall's τ",
    "cuts",
    "measure's cut",
    "probe's cut",
    "regret",
    "of the trunk",
    "at random",
)
NUMBERS = (5, 6, 9, 10, 11)
NOTE = """How well measures that train no probe rank the cuts of each checkpoint, and what
it would cost to trust them. Kendall's τ compares a measure, turned so that more is meant to be
better, with the probe's metric on the test split; its interval is over test images, the probe's
training rows and the measure's own standard error, for the layers at hand. The regret is what the
test split loses at the measure's best cut against the probe's own choice on validation; beside it
stand the regret of the usual cut and that of a cut drawn at random. Intervals are not corrected for
their number. No verdict takes any of this into account."""
MARGIN = 1.3
"""Inches for the title and the legend."""
PER_MEASURE = 0.26
"""Inches of height for each measure."""
MOST = 6
"""Checkpoints up to which each has a mark and an interval of its own."""
SPREAD = 0.7
"""Share of a measure's row over which its checkpoints are spread."""


@sections.register("scorecard")
class Scorecard(Section):
    """How well measures without a probe rank the cuts, and what trusting them costs."""

    order = 30

    def find(self, evidence: Evidence) -> Finding:
        found = scorecard(evidence.comparisons, evidence.measures, seed=evidence.seed)
        return Finding(
            "Scorecard of measures",
            sentences=sentences(found, evidence.titles),
            tables=[Table(HEADER, cells(found), NUMBERS, may_fold=True)] if found else [],
            note=NOTE,
            figures=by_source(
                "scorecard", found, lambda some: scorecard_figure(some, evidence.titles)
            ),
            files={"scorecard.csv": csv_text(found)} if found else {},
            records=found,
        )


def cells(found: Iterable[MeasureScore]) -> list[tuple[str, ...]]:
    """Return the scorecard's rows as a person reads them, under :data:`HEADER`."""
    return [
        (
            one.checkpoint,
            one.task,
            one.estimator,
            f"{one.measure} (labels)" if one.labels else one.measure,
            one.measure_metric,
            signed(one.tau),
            str(one.cuts),
            one.cut,
            one.best,
            f"{signed(one.regret)} {one.metric}",
            number(one.regret_usual.estimate),
            number(one.regret_random.estimate),
        )
        for one in found
    ]


def scorecard_figure(found: Sequence[MeasureScore], titles: Mapping[str, str]) -> Figure:
    """Draw for one source two panels for each task and probe: rank correlations, and regrets."""
    panels = grouped(found, "task", "estimator")
    checkpoints = list(dict.fromkeys(one.checkpoint for one in found))
    rows = [list(dict.fromkeys(full_name(one) for one in group)) for group in panels.values()]
    counts = [len(names) for names in rows]
    height = MARGIN + 0.55 * len(rows) + PER_MEASURE * sum(counts)
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    grid = figure.subplots(len(rows), 2, squeeze=False, sharey="row", height_ratios=counts)
    for (left, right), names, ((task, probe), group) in zip(
        grid, rows, panels.items(), strict=True
    ):
        heights = [_height_of(one, names, checkpoints) for one in group]
        for axes in (left, right):
            _rows(axes, names)
        left.set_xlim(-1.05, 1.05)
        _marks(left, group, heights, checkpoints, [one.tau for one in group])
        _marks(right, group, heights, checkpoints, [one.regret for one in group])
        if len(checkpoints) <= MOST:
            _references(right, group, heights)
        left.set_title(f"{title(task, group[0].source, titles)} · {probe}")
        left.set_xlabel("Kendall's τ with the probe")
        right.set_xlabel(f"regret in {metric_name(group[0].metric)}")
    heading(
        figure,
        f"{found[0].source}: what measures without a probe are worth as a guide to the cut",
    )
    legend(figure, _handles(checkpoints))
    return figure


def _references(axes: Any, group: Sequence[MeasureScore], heights: Sequence[float]) -> None:
    for one, at in zip(group, heights, strict=True):
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


def _height_of(one: MeasureScore, names: Sequence[str], checkpoints: Sequence[str]) -> float:
    row, count = names.index(full_name(one)), len(checkpoints)
    if count == 1 or count > MOST:
        return float(row)
    return row + SPREAD * (checkpoints.index(one.checkpoint) / (count - 1) - 0.5)


def _marks(
    axes: Any,
    group: Sequence[MeasureScore],
    heights: Sequence[float],
    checkpoints: Sequence[str],
    values: Sequence[Interval],
) -> None:
    if len(checkpoints) > MOST:
        _cloud(axes, heights, values)
        return
    for one, at, value in zip(group, heights, values, strict=True):
        which = checkpoints.index(one.checkpoint)
        colour = COLOURS[which]
        if math.isfinite(value.low):
            axes.plot([value.low, value.high], [at, at], color=colour, linewidth=1.2, zorder=2)
        axes.plot(
            value.estimate, at, marker=MARKERS[which], color=colour, markersize=5, gid="standing"
        )


def _cloud(axes: Any, heights: Sequence[float], values: Sequence[Interval]) -> None:
    """Draw a dot for each checkpoint and a bar at their median."""
    rows: dict[float, list[float]] = defaultdict(list)
    for at, value in zip(heights, values, strict=True):
        if math.isfinite(value.estimate):
            rows[at].append(value.estimate)
    for at, found in rows.items():
        dots = {"linestyle": "none", "marker": "o", "markersize": 3.5, "markeredgewidth": 0}
        axes.plot(found, [at] * len(found), color=COLOURS[0], alpha=0.4, gid="standing", **dots)
        axes.plot(median(found), at, marker="|", color=INK, markersize=11, gid="median")


def _handles(checkpoints: Sequence[str]) -> list[Any]:
    if len(checkpoints) > MOST:
        return [
            legend_mark("one checkpoint", "o", color=COLOURS[0], alpha=0.4),
            legend_mark("median", "|", color=INK, markersize=9),
        ]
    return [
        *(
            legend_line(name, marker=MARKERS[i], color=COLOURS[i], linewidth=1.2)
            for i, name in enumerate(checkpoints)
        ),
        legend_mark("a cut at random", "|", color=INK, markersize=7),
        legend_mark("end of trunk", "x", color=FAINT, markersize=5),
    ]
