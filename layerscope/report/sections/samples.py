"""What more training images are worth, where probes were trained on several numbers of them."""

from __future__ import annotations

from layerscope.report.evidence import Evidence
from layerscope.report.grouping import grouped
from layerscope.report.samples import samples_figure
from layerscope.report.section import Finding, Section, sections


@sections.register("samples")
class Samples(Section):
    """A figure of the metric against the number of training images."""

    order = 12

    def find(self, evidence: Evidence) -> Finding:
        probes = evidence.drawn("probe")
        drawn = {
            f"samples-{source}": samples_figure(scores, evidence.titles)
            for source, scores in grouped(probes, "source").items()
        }
        return Finding(
            "Training images",
            figures={name: figure for name, figure in drawn.items() if figure is not None},
        )
