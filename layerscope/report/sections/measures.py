"""Measures that train no probe, over depth."""

from __future__ import annotations

from layerscope.report.curve import curves
from layerscope.report.depth import measures_figure
from layerscope.report.evidence import Evidence
from layerscope.report.section import Finding, Section, by_source, sections


@sections.register("measures")
class Measures(Section):
    """A figure of every measure against depth; what it is worth is in the scorecard."""

    order = 16

    def find(self, evidence: Evidence) -> Finding:
        drawn = curves(evidence.drawn("measure"), titles=evidence.titles)
        return Finding("Measures", figures=by_source("measures", drawn, measures_figure))
