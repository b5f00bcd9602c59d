"""The names in the file format, ``layerscope-cache/4``: HDF5, readable without this package.

``docs/cache-format.md`` lists every dataset and attribute, and tells what shards and views are.

**Everything that HDF5 has to know is written once, before the first row, and never again.** From
then on bytes are written at known places of contiguous datasets: the rows of a batch, their
checksums, their states, at last the seal. So no kill can leave a file that HDF5 cannot read. While
it is written the file is called ``….h5.part``. Before HDF5's first byte stands a label, with the
sha256 of everything that is written only once (``label.py``).
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
    stem = "@".join(re.sub(r"[^\w.+-]+", "-", name) for name in (checkpoint, source))
    return f"{stem}{SUFFIX}" if limit is None else f"{stem}.limit{limit}{SUFFIX}"


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


def is_shard(path: Path) -> bool:
    """Return whether a file lies among shards; its images are then described elsewhere."""
    return path.parent.name.endswith(SHARDS)


def features_of(key: str) -> str:
    """Return the path inside the file of the features of ``blocks.3@cls``, say."""
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
