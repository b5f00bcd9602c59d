"""Rows that two splits share: images whose answers a probe may know by heart."""

from __future__ import annotations

from layerscope.report.evidence import Evidence
from layerscope.report.section import Finding, Section, sections
from layerscope.results.shared_rows import read_shared_rows, sentences

NOTE = """Two rows with the very same features are one image, or two that the network cannot tell
apart. A probe that trained on the one may know the answer of the other by heart, so that values are
too good. Leave such images out of one of the splits; verdicts.json has their ids."""


@sections.register("shared_rows")
class SharedImages(Section):
    """Test and validation rows with the very features of rows of another split."""

    order = 15

    def find(self, evidence: Evidence) -> Finding:
        found = read_shared_rows(evidence.folder)
        return Finding(
            "Rows that two splits share",
            sentences=sentences(found),
            note=NOTE,
            records=found or None,
        )
