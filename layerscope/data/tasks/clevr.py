"""CLEVR: how many objects are in a scene, and how near the nearest is.

The folder (``CLEVR_v1.0``) holds ``images/{train,val,test}/*.png`` and
``scenes/CLEVR_{train,val}_scenes.json``. The official test images have no scenes and are no rows.

The two tasks are those of VTAB (Zhai et al. 2019; google-research/task_adaptation, ``clevr.py``)
and of VISSL. The count is 3 to 10, so 8 classes. The distance is the depth of the nearest object
(the third of its ``pixel_coords``) in 6 bins, of which the first ends at 8 and the last at 100; an
object that lies on an edge belongs to the nearer bin. VTAB trains on 90 % of the training scenes
too, but in the order of TensorFlow Datasets. Images are resized whole: a crop would cut off what is
counted.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from layerscope.data.annotations import entry, json_records
from layerscope.data.assembly import assemble
from layerscope.data.class_task import class_task
from layerscope.data.listing import require_folder
from layerscope.data.sources import sources, tasks
from layerscope.errors import SourceError
from layerscope.types import Source, Task

COUNTS = range(3, 11)
EDGES = (8.0, 8.5, 9.0, 9.5, 10.0, 100.0)
"""Where the bins of the distance end, each with its edge."""
TRAIN_SHARE = 0.9

_LAYOUT = "It is the folder CLEVR_v1.0, with images/ and scenes/, as the archive unpacks it."
_SPLIT = "the official validation scenes test; the last 10 % of the training scenes validate"


def _task(word: str, title: str, classes: tuple[str, ...]) -> Task:
    return class_task(
        f"clevr-{word}",
        title,
        _SPLIT,
        source="clevr",
        classes=classes,
        licence="CC BY 4.0",
        citation="Johnson et al. (2017), CLEVR; task of Zhai et al. (2019), VTAB",
    )


COUNT = _task("count", "CLEVR count", tuple(map(str, COUNTS)))
DISTANCE = _task(
    "dist",
    "CLEVR distance",
    tuple(f"{low:g} < d ≤ {high:g}" for low, high in zip((0.0, *EDGES[:-1]), EDGES, strict=True)),
)
for _each in (COUNT, DISTANCE):
    tasks.add(_each.name, _each)


@sources.register(COUNT.source)
def open_clevr(root: Path) -> Source:
    """Return the record of CLEVR's training and validation scenes.

    Rows come in the order of the two files of scenes.

    Raises:
        SourceError: A file is missing, or a scene is incomplete.
    """
    files = {part: f"scenes/CLEVR_{part}_scenes.json" for part in ("train", "val")}
    require_folder(root, *files.values(), "images/train", "images/val", hint=_LAYOUT)
    scenes = {part: _scenes(root / path, part) for part, path in files.items()}
    rows = [row for part in scenes.values() for row in part]
    train = round(TRAIN_SHARE * len(scenes["train"]))
    order = np.arange(len(rows))
    splits = np.where(order < train, "train", "val")
    splits = np.where(order < len(scenes["train"]), splits, "test")
    return assemble(
        COUNT.source,
        root,
        [name for name, _, _ in rows],
        splits,
        {
            COUNT: np.array([count for _, count, _ in rows], np.int64),
            DISTANCE: np.array([distance for _, _, distance in rows], np.int64),
        },
        framing="whole",
    )


def _scenes(path: Path, part: str) -> list[tuple[str, int, int]]:
    """Return the image, the class of the count and the class of the distance of every scene."""
    found = []
    for i, scene in enumerate(json_records(path, "scenes")):
        where = f"scene {i}"
        name = entry(scene, "image_filename", str, path, where)
        objects = entry(scene, "objects", list, path, where)
        depths = [_depth(it, path, f"{where}, object {j}") for j, it in enumerate(objects)]
        found.append(
            (
                f"images/{part}/{name}",
                _count_class(len(objects), path, where),
                _distance_class(min(depths), path, where),
            )
        )
    return found


def _depth(record: Mapping[str, Any], path: Path, where: str) -> float:
    place = entry(record, "pixel_coords", list, path, where)
    if len(place) != 3:
        raise SourceError(
            f"{str(path)!r}, {where}, has the pixel_coords {place}, not three.", hint=_LAYOUT
        )
    return entry({"depth": place[2]}, "depth", float, path, where)


def _count_class(count: int, path: Path, where: str) -> int:
    if count not in COUNTS:
        raise SourceError(
            f"{str(path)!r}, {where}, has {count} objects; CLEVR's scenes have 3 to 10.",
            hint=_LAYOUT,
        )
    return COUNTS.index(count)


def _distance_class(depth: float, path: Path, where: str) -> int:
    if not 0 < depth <= EDGES[-1]:
        raise SourceError(
            f"{str(path)!r}, {where}, has its nearest object at a depth of {depth:g}; CLEVR's lie "
            f"between 0 and {EDGES[-1]:g}.",
            hint=_LAYOUT,
        )
    return bisect_left(EDGES, depth)
