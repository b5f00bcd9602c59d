"""The figure of similarities between layers: one map, the head's cuts behind a white line."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from layerscope.report.layout import draw_map, heading
from layerscope.report.style import INK, styled
from layerscope.results.layer_cka import LayerCka
from layerscope.types import CutPoint

CELL = 0.32
"""Inches: two digits fit."""
NUMBERED = 30
"""Cuts on a side up to which every cell has its number."""
DARK_BELOW = 0.45
"""Similarity under which a number is printed in white."""


def similarity_map(found: LayerCka, *, biased: bool = False) -> Figure:
    """Draw one of the estimates, in about [0, 1]; what is not defined is left blank."""
    kind, values = ("Biased", found.biased) if biased else ("Unbiased", found.unbiased)
    cuts = found.cuts
    with styled():
        size = (2.2 + CELL * len(cuts[1]), 1.8 + CELL * len(cuts[0]))
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots()
        rows, columns = ([cut.key for cut in side] for side in cuts)
        image = draw_map(axes, values, rows, columns)
        axes.set_xlabel(found.checkpoints[1])
        axes.set_ylabel(found.checkpoints[0])
        _heads(axes, cuts)
        if max(map(len, cuts)) <= NUMBERED:
            _numbers(axes, values)
        bar = figure.colorbar(image, ax=axes, shrink=0.6)
        bar.outline.set_visible(False)
        images = f"{found.images:,} {found.split} images of {found.source}"
        heading(figure, f"{kind} linear CKA of {images}")
        return figure


def _heads(axes: Axes, cuts: tuple[Sequence[CutPoint], Sequence[CutPoint]]) -> None:
    for line, side in zip((axes.axhline, axes.axvline), cuts, strict=True):
        first = next((place for place, cut in enumerate(side) if cut.part == "head"), 0)
        if first:
            line(first - 0.5, color="white", linewidth=2, gid="head")


def _numbers(axes: Axes, values: npt.NDArray[np.float64]) -> None:
    for (row, column), value in np.ndenumerate(values):
        if np.isnan(value):
            continue
        text = f"{value:.2f}".replace("0.", ".", 1) if abs(value) < 0.995 else "1"
        colour = "white" if value < DARK_BELOW else INK
        axes.text(column, row, text, ha="center", va="center", size=6, color=colour)
