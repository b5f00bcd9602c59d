"""The overview: a heat map of cut points by tasks for every checkpoint."""

from __future__ import annotations

from layerscope.report.curve import curves
from layerscope.report.evidence import Evidence
from layerscope.report.heatmap import heatmap
from layerscope.report.section import Finding, Section, sections


@sections.register("overview")
class Overview(Section):
    """A figure of all cuts, tasks and checkpoints at once."""

    order = 14

    def find(self, evidence: Evidence) -> Finding:
        drawn = curves(
            evidence.drawn("probe"), titles=evidence.titles, constants=evidence.constants
        )
        figures = {"overview": heatmap(drawn, evidence.marked)} if drawn else {}
        return Finding("Overview", figures=figures)
