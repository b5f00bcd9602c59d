"""Verdicts: comparisons of cuts with their intervals, tied sets, scorecards, series and grids."""

from layerscope.verdicts.common_cut import CommonCut, find_common_cut
from layerscope.verdicts.comparison import sentence, verdict, verdicts
from layerscope.verdicts.grid import Grid
from layerscope.verdicts.scorecard import MeasureScore
from layerscope.verdicts.series import Series

__all__ = [
    "CommonCut",
    "Grid",
    "MeasureScore",
    "Series",
    "find_common_cut",
    "sentence",
    "verdict",
    "verdicts",
]
