"""Reports: the results folder, verdicts, the scorecard, series, figures and the page."""

from layerscope.report.across import Across, across
from layerscope.report.folder import Report, write_report
from layerscope.report.grid import Grid
from layerscope.report.results import Results, open_results
from layerscope.report.scorecard import Standing
from layerscope.report.series import Series
from layerscope.report.verdict import sentence, verdict, verdicts

__all__ = [
    "Across",
    "Grid",
    "Report",
    "Results",
    "Series",
    "Standing",
    "across",
    "open_results",
    "sentence",
    "verdict",
    "verdicts",
    "write_report",
]
