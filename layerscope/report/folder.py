"""The report's folder: figures, tables and the page, from a folder of results."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from layerscope.errors import LayerScopeError
from layerscope.report import table
from layerscope.report.evidence import Evidence, gather
from layerscope.report.page import page
from layerscope.report.section import Finding, find_all
from layerscope.report.style import save, styled
from layerscope.results.store import MAKE, open_results
from layerscope.types import Score, Verdict


@dataclass(frozen=True, slots=True)
class Report:
    """What a report was made of, and where its page lies."""

    page: Path
    evidence: Evidence
    findings: Mapping[str, Finding]
    """By section, in the order of the page."""

    @property
    def scores(self) -> tuple[Score, ...]:
        """The long table."""
        return self.evidence.scores

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """The verdict of every checkpoint, task and estimator."""
        return self.evidence.verdicts

    @property
    def sentences(self) -> list[str]:
        """All that sections say beside the verdicts."""
        return [text for finding in self.findings.values() for text in finding.sentences]

    def document(self) -> dict[str, Any]:
        """Return what ``--json`` prints and ``verdicts.json`` holds."""
        return {
            name: table.records(finding.records)
            for name, finding in self.findings.items()
            if finding.records is not None
        }


def write_report(results: Path, output: Path) -> Report:
    """Write figures, tables and one self-contained page about a folder of results.

    Args:
        results: The folder that ``layerscope probe`` wrote.
        output: Where to put ``index.html``, ``verdicts.json``, ``scores.csv``, ``figures/`` and,
            of every section that found something, its own files.

    Returns:
        The verdicts, what every section found, and the place of the page.

    Raises:
        LayerScopeError: There are no results, or they are damaged.
    """
    evidence = gather(open_results(results))
    with styled():
        findings = find_all(evidence)
    report = Report(output / "index.html", evidence, findings)
    if not evidence.scores and not report.sentences:
        raise LayerScopeError(f"The folder {str(results)!r} holds no scores.", hint=MAKE)
    _write(report, output)
    return report


def _write(report: Report, output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    texts = {
        "verdicts.json": json.dumps(report.document(), indent=2, ensure_ascii=False) + "\n",
        "scores.csv": table.scores_csv(report.scores),
    }
    images = {}
    for finding in report.findings.values():
        texts |= finding.files
        for name, figure in finding.figures.items():
            _, images[name] = save(figure, output / "figures" / name)
    evidence = report.evidence
    texts["index.html"] = page(
        list(report.findings.values()), images, evidence.scores, evidence.settings
    )
    for name, text in texts.items():
        (output / name).write_text(text, encoding="utf-8")
