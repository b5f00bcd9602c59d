"""The file format, ``layerscope-cache/3``: HDF5, readable without this package.

One file holds the pooled features of one checkpoint over one image source::

    features/<cut name>@<pooling>   (rows, width) float32, contiguous: a cut in one pooling
    rows/id          (rows,) text, what the source calls the image
    rows/split       (rows,) text: train, val or test
    rows/group       (rows,) text, what rows share that are not independent: their object
    rows/valid       (rows,) bool, False for an image that could not be read (its rows are NaN)
    targets/<task>   (rows,) int64 classes, (rows, k) int64 labels of 0 and 1, or (rows, k) float64
                     latents in their own unit
    splits/<task>    (rows,) int8, only of a task that divides the rows otherwise: 0 train, 1 val,
                     2 test, -1 for a row that it leaves out

Rows are in source order everywhere. The root's attributes are

    schema        "layerscope-cache/3"
    fingerprint   sha256 of ``ingredients``
    ingredients   JSON: everything that determines the features
    rows_done     rows written so far; rows from here on are not to be read
    complete      True once every row is written and the network was found unchanged
    source        name of the image source
    checkpoint    JSON: the checkpoint's card
    cuts          JSON: the cut points in call order, a cut once for each of its poolings
    tasks         JSON: the tasks whose targets are stored
    settings      JSON: how the features were computed, with versions

While it is written the file is called ``….h5.part``. Datasets are allocated in full before the
first row, and after each batch the rows are flushed, then ``rows_done`` advances and is flushed:
so a killed writer leaves a file in which the first ``rows_done`` rows are right. Nothing is
compressed: that would cost more time than it saves space on float features.

``layerscope-cache/2`` had no ``splits``; complete files of it are read. In ``layerscope-cache/1`` a
cut had one pooling and its dataset only the cut's name; such files are refused, since they do not
say how tokens were pooled.
"""

from __future__ import annotations

import re
from pathlib import Path

SCHEMA = "layerscope-cache/3"
READABLE = (SCHEMA, "layerscope-cache/2")
"""Schemas whose complete files are read."""
OLDER = ("layerscope-cache/1", "layerscope-cache/2")
"""Schemas that cannot be continued."""
SUFFIX = ".h5"
PART = ".part"

FEATURES = "features"
TARGETS = "targets"
TASK_SPLITS = "splits"
ROW_ID = "rows/id"
ROW_SPLIT = "rows/split"
ROW_GROUP = "rows/group"
ROW_VALID = "rows/valid"

ATTRIBUTES = (
    "schema",
    "fingerprint",
    "ingredients",
    "rows_done",
    "complete",
    "source",
    "checkpoint",
    "cuts",
    "tasks",
    "settings",
)

FEATURE_BYTES = 4
"""Bytes of one stored feature."""

STORAGE = "float32"


def cache_name(checkpoint: str, source: str, limit: int | None = None) -> str:
    """Return the file name of a cache; a smoke run's has its limit in it.

    Examples:
        >>> cache_name("simclr", "objects3d")
        'simclr@objects3d.h5'
        >>> cache_name("simclr", "objects3d", limit=200)
        'simclr@objects3d.limit200.h5'
    """
    stem = f"{_safe(checkpoint)}@{_safe(source)}"
    return f"{stem}{SUFFIX}" if limit is None else f"{stem}.limit{limit}{SUFFIX}"


def _safe(name: str) -> str:
    return re.sub(r"[^\w.+-]+", "-", name)


def part_of(path: Path) -> Path:
    """Return the name that a cache has while it is written."""
    return path.with_name(path.name + PART)


def features_of(key: str) -> str:
    """Return the path inside the file of the features of a cut in one pooling.

    Args:
        key: Such as ``blocks.3@cls``.
    """
    return f"{FEATURES}/{key}"


def split_of(task: str) -> str:
    """Return the path inside the file of the splits of a task that divides the rows otherwise."""
    return f"{TASK_SPLITS}/{task}"


def target_of(task: str) -> str:
    """Return the path inside the file of one task's targets."""
    return f"{TARGETS}/{task}"
