"""Cells without a value, and why."""

from __future__ import annotations

from collections.abc import Iterable

from layerscope.report.curve import failed
from layerscope.report.evidence import Evidence
from layerscope.report.section import Finding, Section, Table, sections
from layerscope.types import Score

HEADER = ("checkpoint", "task", "cut", "estimator", "metric", "note")


@sections.register("failed")
class Failures(Section):
    """Cells without a value, with the reason that was noted."""

    order = 90

    def find(self, evidence: Evidence) -> Finding:
        found = failures(evidence.scores)
        rows = [tuple(record.values()) for record in found]
        return Finding(
            f"Cells without a value: {len(rows)}",
            tables=[Table(HEADER, rows)] if rows else [],
            records=found,
        )


def failures(scores: Iterable[Score]) -> list[dict[str, str]]:
    """Return the cells that have no value, with the reason that was noted."""
    return [{name: str(getattr(score, name)) for name in HEADER} for score in failed(scores)]
