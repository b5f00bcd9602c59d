"""The file format, ``layerscope-cache/4``: HDF5, readable without this package.

A cache is one HDF5 file with the pooled features of one checkpoint over one image source::

    features/<cut name>@<pooling>   (rows, width) float16, float32, or bfloat16 as uint16
    checksums/<cut name>@<pooling>  (rows,) uint32, the CRC-32 of each row's bytes
    rows/id          (rows,) UTF-8, what the source calls the image
    rows/split       (rows,) UTF-8: train, val or test
    rows/group       (rows,) UTF-8, what rows share that are not independent: their object
    rows/valid       (rows,) bool, False for an image that could not be read (its rows are NaN)
    rows/state       (rows,) uint8: 0 not written, 1 written, 2 synchronised with the disk
    targets/<task>   (rows,) int64 classes, (rows, k) int64 labels of 0 and 1, or (rows, k) float64
                     latents in their own unit
    splits/<task>    (rows,) int8, only of a task that divides the rows otherwise: 0 train, 1 val,
                     2 test, -1 for a row that it leaves out
    seal             (64,) the hexadecimal sha256 over what is listed in ``label.py``; zeros until
                     the file is whole

Rows are in source order everywhere. The root's attributes are

    schema        "layerscope-cache/4"
    fingerprint   sha256 of ``ingredients``
    ingredients   JSON: everything that determines the features
    storage       JSON: for each cut and pooling the stored type and why
    source        name of the image source
    checkpoint    JSON: the checkpoint's card
    cuts          JSON: the cut points in call order, a cut once for each of its poolings
    tasks         JSON: the tasks whose targets are stored
    settings      JSON: how the features were computed, with versions

**Everything that HDF5 has to know is written once, before the first row, and never again.** From
then on bytes are written at known places of contiguous datasets: the rows of a batch, their
checksums, their states, at last the seal. So no kill can leave a file that HDF5 cannot read. While
it is written the file is called ``….h5.part``. Before HDF5's first byte stands a label, with the
sha256 of everything that is written only once (``label.py``).

In a cache of N augmented *views* row ``r`` is view ``r mod N`` of image ``r div N``; N is in the
ingredients as ``views.count``, and the name of the images' source is the attribute ``views_of``.
What distinguishes the checkpoint in a series of several is in the settings as ``series``.

A cache of several *shards* is a small file of the same form, in which ``features`` are virtual
datasets over the files in ``<name>.shards/`` beside it, and the attribute ``shards`` lists them
(JSON: the file, and runs of ``[first row, first row in the shard, count]``). A shard has
``rows/index``, the row of the source of each of its rows, and no splits, groups and targets.
"""

from __future__ import annotations

import re
from pathlib import Path

SCHEMA = "layerscope-cache/4"
OLDER = ("layerscope-cache/1", "layerscope-cache/2", "layerscope-cache/3")
"""Schemas that no version after them reads."""
SUFFIX = ".h5"
PART = ".part"
LOCK = ".lock"
SHARDS = ".shards"

FEATURES = "features"
CHECKSUMS = "checksums"
TARGETS = "targets"
TASK_SPLITS = "splits"
ROW_ID = "rows/id"
ROW_INDEX = "rows/index"
ROW_SPLIT = "rows/split"
ROW_GROUP = "rows/group"
ROW_STATE = "rows/state"
ROW_VALID = "rows/valid"
SEAL = "seal"

MISSING, WRITTEN, SYNCED = 0, 1, 2
"""States of a row: not there; there unless the power failed; there."""

ATTRIBUTES = (
    "schema",
    "fingerprint",
    "ingredients",
    "storage",
    "source",
    "checkpoint",
    "cuts",
    "tasks",
    "settings",
)
SHARD_LIST = "shards"
LABEL = "label"


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
    """Return the name that a cache or shard has while it is written."""
    return path.with_name(path.name + PART)


def whole_of(part: Path) -> Path:
    """Return the name that a part gets once it is whole."""
    return part.with_name(part.name.removesuffix(PART))


def lock_of(path: Path) -> Path:
    """Return the file that says who is writing a cache or shard."""
    return path.with_name(path.name + LOCK)


def shards_of(path: Path) -> Path:
    """Return the folder of a cache's shards."""
    return path.with_name(path.name.removesuffix(SUFFIX) + SHARDS)


def features_of(key: str) -> str:
    """Return the path inside the file of the features of a cut in one pooling.

    Args:
        key: Such as ``blocks.3@cls``.
    """
    return f"{FEATURES}/{key}"


def checksums_of(key: str) -> str:
    """Return the path inside the file of the checksums of a cut in one pooling."""
    return f"{CHECKSUMS}/{key}"


def split_of(task: str) -> str:
    """Return the path inside the file of the splits of a task that divides the rows otherwise."""
    return f"{TASK_SPLITS}/{task}"


def target_of(task: str) -> str:
    """Return the path inside the file of one task's targets."""
    return f"{TARGETS}/{task}"
