"""The overview: a heat map of cut points by tasks for every checkpoint."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from layerscope.report.curve import Curve, curves
from layerscope.report.evidence import Evidence
from layerscope.report.heatmap import heatmap
from layerscope.report.panel import metric_name
from layerscope.report.section import Finding, Section, sections
from layerscope.results.grouping import grouped
from layerscope.types import Verdict

ARROWS = {"minimise": "↓", "maximise": "↑"}


@sections.register("overview")
class Overview(Section):
    """A figure of all cuts, tasks and checkpoints at once."""

    order = 14

    def find(self, evidence: Evidence) -> Finding:
        drawn = curves(evidence.drawn("probe"), titles=evidence.titles)
        figures = {"overview": overview_figure(drawn, evidence.marked)} if drawn else {}
        return Finding("Overview", figures=figures)


def overview_figure(drawn: Sequence[Curve], verdicts: Sequence[Verdict]) -> Figure:
    """Draw the heat map of cut points by tasks for every checkpoint."""
    sources = {curve.source for curve in drawn}

    def label(curve: Curve) -> str:
        name = curve.title if len(sources) == 1 else curve.task
        return f"{name}, {metric_name(curve.metric)} {ARROWS[curve.direction]}"

    groups = grouped(drawn, "checkpoint").items()
    return heatmap(
        [(name, group, [label(curve) for curve in group]) for name, group in groups], verdicts
    )
