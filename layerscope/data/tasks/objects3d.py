"""The rendered 3D data set: 3D objects under known pose, floor and light, one image per view.

``layerscope render`` makes it. A folder holds ``latents.csv`` (a line for each image), the images
that it lists, and ``dataset.json``, which says whether rendering came to its end. The views of one
object are one group.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from layerscope.data.annotations import csv_lines
from layerscope.data.assembly import assemble
from layerscope.data.class_task import class_task
from layerscope.data.sources import sources, tasks
from layerscope.errors import SourceError
from layerscope.rendered_set import HEADER, LATENTS, MANIFEST, TABLE
from layerscope.types import SPLITS, Encoding, Source, Task

NAME = "objects3d"

_ROUNDING = 1e-6
"""What a value written with six decimals may lie outside its range."""

_SPLIT = "whole objects, as latents.csv says: no object is in two splits"
_LICENCE = "your own renders"
_CITATION = "latents of Bordes et al. (2023), Guillotine Regularization, table 1"

_RENDER = "Render the set with layerscope render, or give the folder that it wrote."


def _latent(
    word: str, title: str, unit: str, encoding: Encoding, period: float | None = None
) -> Task:
    return Task(
        name=f"{NAME}-{word}",
        source=NAME,
        kind="latents",
        metric="mse",
        direction="minimise",
        title=title,
        encoding=encoding,
        period=period,
        unit=unit,
        split=_SPLIT,
        licence=_LICENCE,
        citation=_CITATION,
    )


ROTATION = _latent("rotation", "Object rotation", "rad", "quaternion")
FLOOR_HUE = _latent("floor-hue", "Floor hue", "turn", "circular", 1.0)
SPOT_THETA = _latent("spot-theta", "Spot θ", "rad", "raw")
SPOT_PHI = _latent("spot-phi", "Spot φ", "rad", "circular", 2 * math.pi)
SPOT_HUE = _latent("spot-hue", "Spot hue", "turn", "circular", 1.0)
CATEGORY = class_task(
    f"{NAME}-category", "Category", _SPLIT, source=NAME, licence=_LICENCE, citation=_CITATION
)

COLUMNS: dict[Task, tuple[str, ...]] = {
    ROTATION: ("yaw", "pitch", "roll"),
    FLOOR_HUE: ("floor_hue",),
    SPOT_THETA: ("spot_theta",),
    SPOT_PHI: ("spot_phi",),
    SPOT_HUE: ("spot_hue",),
}
"""By latent task: the columns that its targets are made of."""

for _task in (*COLUMNS, CATEGORY):
    tasks.add(_task.name, _task)


@dataclass(frozen=True, slots=True)
class Line:
    """One line of ``latents.csv``: an image with everything that is known about it."""

    number: int
    """In the file, from 1; the header is the first."""
    image: str
    object: str
    category: str
    latents: dict[str, float]
    split: str


@sources.register(NAME)
def open_objects3d(root: Path) -> Source:
    """Return the record of a rendered folder.

    Rows come in the order of ``latents.csv``; the images of one object form one group.

    Raises:
        SourceError: Something is missing, incomplete or inconsistent; the message names the file
            and the line.
    """
    table = root / TABLE
    _require_complete(root)
    lines = tuple(_lines(table))
    if not lines:
        raise SourceError(f"{str(table)!r} lists no image.", hint=_RENDER)
    _require_consistent(table, lines)
    return _source(root, lines)


def _source(root: Path, lines: Sequence[Line]) -> Source:
    classes = tuple(sorted({line.category for line in lines}))
    targets: dict[Task, npt.NDArray[Any]] = {
        task: np.array([[line.latents[name] for name in names] for line in lines])
        for task, names in COLUMNS.items()
    }
    category = replace(CATEGORY, classes=classes)
    targets[category] = np.array([classes.index(line.category) for line in lines], np.int64)
    return assemble(
        NAME,
        root,
        [line.image for line in lines],
        np.array([line.split for line in lines]),
        targets,
        groups=np.array([line.object for line in lines]),
    )


def _require_complete(root: Path) -> None:
    card = root / MANIFEST
    if not root.is_dir():
        raise SourceError(f"There is no folder {str(root)!r}.", hint=_RENDER)
    if not (root / TABLE).is_file():
        raise SourceError(f"The folder {str(root)!r} has no {TABLE}.", hint=_RENDER)
    if not card.is_file():
        raise SourceError(f"The folder {str(root)!r} has no {MANIFEST}.", hint=_RENDER)
    try:
        known = json.loads(card.read_text())
    except ValueError as error:
        raise SourceError(f"{str(card)!r} is not JSON: {error}.", hint=_RENDER) from error
    if not isinstance(known, dict) or known.get("complete") is not True:
        raise SourceError(
            f"The set in {str(root)!r} is incomplete, says {str(card)!r}.",
            hint="Repeat the layerscope render command that made it; it goes on where it stopped.",
        )


def _lines(table: Path) -> Iterator[Line]:
    lines = csv_lines(table)
    _, header = next(lines, (1, []))
    if tuple(header) != HEADER:
        raise SourceError(
            f"{str(table)!r} has the columns {','.join(header) or '(none)'}.",
            hint=f"The columns must be {','.join(HEADER)}.",
        )
    for number, cells in lines:
        yield _line(table, number, cells)


def _line(table: Path, number: int, cells: Sequence[str]) -> Line:
    if len(cells) != len(HEADER):
        raise _fault(table, number, f"has {len(cells)} values for {len(HEADER)} columns")
    named = dict(zip(HEADER, cells, strict=True))
    for column in ("image", "object", "category"):
        if not named[column]:
            raise _fault(table, number, f"has no {column}")
    if named["split"] not in SPLITS:
        raise _fault(table, number, f"has the split {named['split']!r}, not {', '.join(SPLITS)}")
    latents = {name: _value(table, number, name, named[name]) for name in LATENTS}
    return Line(number, named["image"], named["object"], named["category"], latents, named["split"])


def _value(table: Path, number: int, name: str, cell: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        raise _fault(table, number, f"has {name} {cell!r}, which is no number") from None
    low, high, _ = LATENTS[name]
    if not low - _ROUNDING <= value <= high + _ROUNDING:  # False for a NaN too
        raise _fault(table, number, f"has {name} {cell}, outside [{low:.6g}, {high:.6g}]")
    return value


def _require_consistent(table: Path, lines: Sequence[Line]) -> None:
    images: dict[str, int] = {}
    objects: dict[str, Line] = {}
    for line in lines:
        first = images.setdefault(line.image, line.number)
        if first != line.number:
            raise _fault(table, line.number, f"repeats the image {line.image!r} of line {first}")
        other = objects.setdefault(line.object, line)
        if other.split != line.split:
            what = f"puts the object {line.object!r} into {line.split}, line {other.number} into"
            raise _fault(table, line.number, f"{what} {other.split}")


def _fault(table: Path, number: int, what: str) -> SourceError:
    return SourceError(f"{str(table)!r}, line {number}, {what}.", hint=_RENDER)
