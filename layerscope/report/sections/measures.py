"""Measures that train no probe, over depth."""

from __future__ import annotations

from layerscope.report.curve import curves
from layerscope.report.depth import measures_figure
from layerscope.report.evidence import Evidence
from layerscope.report.section import Finding, Section, sections
from layerscope.results.grouping import grouped


@sections.register("measures")
class Measures(Section):
    """A figure of every measure against depth; what it is worth is in the scorecard."""

    order = 16

    def find(self, evidence: Evidence) -> Finding:
        drawn = curves(evidence.drawn("measure"), titles=evidence.titles)
        by_source = grouped(drawn, "source").items()
        return Finding(
            "Measures", figures={f"measures-{name}": measures_figure(it) for name, it in by_source}
        )
