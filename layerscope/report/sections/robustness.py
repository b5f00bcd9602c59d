"""Robustness: what probes of clean images are worth on shifted ones, at every cut."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from matplotlib.figure import Figure

from layerscope.report import panel
from layerscope.report.curve import Curve, CurvePoint, title
from layerscope.report.depth import depth_legend, depth_panels, hide_inner_names, write_heading
from layerscope.report.evidence import Evidence
from layerscope.report.layout import legend_line, legend_mark
from layerscope.report.section import Finding, Section, Table, by_source, sections
from layerscope.report.style import INK, Stroke, strokes
from layerscope.report.table import csv_text
from layerscope.results.evaluations import ShiftSummary, shift_summaries
from layerscope.results.grouping import grouped
from layerscope.types import Direction

HEADER = ("checkpoint", "task", "shift", "cut", "clean top-1", "shifted top-1", "mCE")
NUMBERS = (4, 5, 6)
NOTE = """A logistic probe of clean images is judged on shifted ones, averaged over all conditions
of the shift. A star marks the cut that clean validation images prefer; no shifted image had a say
in that choice. The mean corruption error (mCE) is relative to AlexNet's. Only the share of right
answers is kept of each condition, so that there are no intervals. Where the clean accuracy is
missing the evaluation is an older one: layerscope evaluate, repeated, adds it."""
COLUMNS = 3
CLEAN_DASH: Any = (0, (1.5, 1.5))

_Line = tuple[Curve, Stroke, str]
"""One checkpoint in one panel, and the cut that was chosen."""


@sections.register("robustness")
class Robustness(Section):
    """Probes of clean images on shifted ones, from ``layerscope evaluate``."""

    order = 60

    def find(self, evidence: Evidence) -> Finding:
        found = shift_summaries(evidence.folder)
        return Finding(
            "Robustness under shift",
            sentences=[sentence(it, evidence.titles) for it in found if it.chosen],
            tables=[Table(HEADER, cells(found), NUMBERS, may_fold=True)] if found else [],
            note=NOTE,
            figures=by_source(
                "robustness",
                (it for it in found if it.parts),
                lambda some: robustness_figure(some, evidence.titles),
            ),
            files={"robustness.csv": robustness_csv(found)} if found else {},
            records=found or None,
        )


def sentence(found: ShiftSummary, titles: Mapping[str, str]) -> str:
    """Return in one plain sentence what the chosen cut keeps under a shift."""
    chosen = next(cut for cut in found.cuts if cut.key == found.chosen)
    mce = "" if chosen.mce is None else f", mCE {chosen.mce:.1%}"
    trunk = [cut for cut, part in zip(found.cuts, found.parts, strict=True) if part == "trunk"]
    usual = trunk[-1] if trunk else chosen
    other = "" if usual == chosen else f"; {usual.key} on {usual.shifted:.1%}"
    return (
        f"{found.checkpoint}, {titles.get(found.task, found.task)} under {found.shift}: "
        f"{chosen.key}, chosen on clean validation images, is right on {chosen.clean:.1%} of clean "
        f"and {chosen.shifted:.1%} of shifted images{mce}{other}."
    )


def cells(found: Iterable[ShiftSummary]) -> list[tuple[str, ...]]:
    """Return a row for every cut under every shift, under :data:`HEADER`."""
    return [
        (
            one.checkpoint,
            one.task,
            one.shift,
            f"{cut.key} *" if cut.key == one.chosen else cut.key,
            _percent(cut.clean),
            _percent(cut.shifted),
            _percent(cut.mce, digits=1),
        )
        for one in found
        for cut in one.cuts
    ]


def robustness_csv(found: Iterable[ShiftSummary]) -> str:
    """Return one row for every cut under every shift."""
    names = ("checkpoint", "source", "task", "shift", "conditions")
    return csv_text(
        {name: getattr(one, name) for name in names}
        | {"chosen": cut.key == one.chosen}
        | asdict(cut)
        for one in found
        for cut in one.cuts
    )


def robustness_figure(found: Sequence[ShiftSummary], titles: Mapping[str, str]) -> Figure:
    """Draw for one source top-1 over depth, clean beside shifted, and mean corruption errors."""
    look = strokes(one.checkpoint for one in found)
    panels = list(_panels(found, look, titles))
    shared = panel.aligned([curve for lines in panels for curve, *_ in lines])
    figure, grid = depth_panels(len(panels), COLUMNS)
    for axes, lines in zip(grid, panels, strict=True):
        for line in lines:
            _draw(axes, *line, shared)
        curves = [curve for curve, *_ in lines]
        panel.frame(axes, curves, shared, look)
        axes.set_title(curves[0].title)
        axes.set_ylabel(panel.value_label(curves[0]))
    if shared:
        hide_inner_names(grid, min(COLUMNS, len(panels)))
    text = f"{found[0].source}: probes of clean images on shifted ones"
    write_heading(figure, text, "mean over the conditions of each shift")
    marks = [
        legend_mark("chosen on clean validation", "s", color=INK, markersize=7),
        legend_line("shifted images", color=INK, linewidth=1.8),
        legend_line("clean images", color=INK, linewidth=1.2, linestyle=CLEAN_DASH),
    ]
    depth_legend(figure, look, shared and "head" in found[0].parts, marks)
    return figure


def _panels(
    found: Sequence[ShiftSummary], look: Mapping[str, Stroke], titles: Mapping[str, str]
) -> Iterator[list[_Line]]:
    for (task, shift), group in grouped(found, "task", "shift").items():
        name = f"{title(task, group[0].source, titles)} · {shift}"
        top_1, mce = [], []
        for one in group:
            stroke = look[one.checkpoint]
            clean = _curve(one, name, "top-1", [cut.clean for cut in one.cuts])
            shifted = _curve(one, name, "top-1", [cut.shifted for cut in one.cuts])
            dashed = Stroke(stroke.colour, CLEAN_DASH, random=True)
            top_1 += [(clean, dashed, one.chosen), (shifted, stroke, one.chosen)]
            errors = [cut.mce for cut in one.cuts if cut.mce is not None]
            if len(errors) == len(one.cuts):
                mce.append((_curve(one, name, "mCE", errors), stroke, one.chosen))
        yield top_1
        if mce:
            yield mce


def _curve(one: ShiftSummary, name: str, metric: str, values: Sequence[float]) -> Curve:
    last = max(len(values) - 1, 1)
    points = tuple(
        CurvePoint(cut.key, i, part, i / last, value, 0.0)
        for i, (cut, part, value) in enumerate(zip(one.cuts, one.parts, values, strict=True))
    )
    direction: Direction = "minimise" if metric == "mCE" else "maximise"
    asked = (one.checkpoint, one.source, one.task, "logistic", metric, direction)
    return Curve(*asked, n_test=0, n_groups=0, title=name, points=points)


def _draw(axes: Any, curve: Curve, stroke: Stroke, chosen: str, shared: bool) -> None:
    panel.draw(axes, curve, stroke, None, shared)
    for x, point in zip(panel.positions(curve, shared), curve.points, strict=True):
        if point.cut == chosen:
            square = {"marker": "s", "markersize": 7, "markeredgecolor": "white", "gid": "chosen"}
            axes.plot(x, point.value, color=stroke.colour, zorder=5, **square)


def _percent(share: float | None, digits: int = 2) -> str:
    return "–" if share is None or math.isnan(share) else f"{share:.{digits}%}"
