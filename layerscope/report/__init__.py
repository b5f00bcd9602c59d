"""Reports: the results folder, verdicts, the cut table, figures and the page."""

from layerscope.report.across import Across, across
from layerscope.report.folder import Report, write_report
from layerscope.report.results import Results, open_results
from layerscope.report.verdict import sentence, verdict, verdicts

__all__ = [
    "Across",
    "Report",
    "Results",
    "across",
    "open_results",
    "sentence",
    "verdict",
    "verdicts",
    "write_report",
]
