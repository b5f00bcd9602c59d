"""The look of every figure: one font, one palette that survives colour blindness, fixed bytes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

DPI = 200
WIDTH = 9.0
"""Inches: 8-point type is still legible when a README shows the figure 900 pixels wide."""
INK = "#222222"
FAINT = "#8a8a8a"
SHADE = "#f0ede4"
# Okabe and Ito's palette, without the yellow that vanishes on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
"""One for each colour, so that grey print tells points apart too."""
GREYS = ("#707070", "#a6a6a6")
DASHES = ((0, (5, 2)), (0, (1.5, 1.5)))

# Any: matplotlib spells out the type of every key, differently in every version.
SETTINGS: Any = {
    "font.family": "DejaVu Sans",  # ships with matplotlib: the same letters everywhere
    "font.size": 8,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "figure.facecolor": "white",
    "axes.facecolor": "white",
    "svg.hashsalt": "layerscope",  # otherwise every run names its clip paths anew
    "svg.fonttype": "path",
}


@dataclass(frozen=True, slots=True)
class Stroke:
    """How one line is drawn."""

    colour: str
    dash: Any
    random: bool


@contextmanager
def styled() -> Iterator[None]:
    """Apply the look while figures are built and saved, and leave the caller's own alone."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(SETTINGS)
        yield


def strokes(names: Iterable[str], untrained: Collection[str] = ()) -> dict[str, Stroke]:
    """Return a stroke by name: colours for what was trained, dashed greys for random weights.

    Examples:
        >>> drawn = strokes(["simclr", "simclr-random"], {"simclr-random"})
        >>> drawn["simclr"].dash, drawn["simclr-random"].random
        ('solid', True)
    """
    unique = list(dict.fromkeys(names))
    trained = [name for name in unique if name not in untrained]
    rest = [name for name in unique if name in untrained]
    drawn = {n: Stroke(COLOURS[i % len(COLOURS)], "solid", False) for i, n in enumerate(trained)}
    for i, name in enumerate(rest):
        drawn[name] = Stroke(GREYS[i % len(GREYS)], DASHES[i % len(DASHES)], True)
    return drawn


def save(figure: Figure, stem: Path) -> tuple[Path, Path]:
    """Write a figure as PNG and SVG, with neither date nor version in the bytes.

    The paths are the stem with either ending, and are returned.
    """
    png, svg = stem.with_name(f"{stem.name}.png"), stem.with_name(f"{stem.name}.svg")
    stem.parent.mkdir(parents=True, exist_ok=True)
    with styled():
        figure.savefig(png, dpi=DPI, metadata={"Software": None})
        figure.savefig(svg, metadata={"Date": None, "Creator": None})
    return png, svg
