"""Merging: one file of the shards of a cache, checked row by row on the way."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from layerscope.cache.cache_file import inspect_file
from layerscope.cache.header import Header
from layerscope.cache.layout import (
    ROW_GROUP,
    ROW_ID,
    ROW_SPLIT,
    part_of,
    split_of,
    target_of,
)
from layerscope.cache.lock import Lock
from layerscope.cache.part import PartFile, disk_errors, lay_out, require_free
from layerscope.cache.reader import Cache, open_cache
from layerscope.cache.shards import clear
from layerscope.cache.storage import encoded
from layerscope.errors import CacheError
from layerscope.types import Source

BLOCK = 1024
"""Rows that are copied at a time."""


def merge(
    path: Path,
    *,
    keep_shards: bool = False,
    progress: Callable[..., None] = lambda rows, note="": None,
) -> Path:
    """Make one file of a cache of shards; killed on the way, the same call goes on.

    Args:
        path: The cache.
        keep_shards: Whether the shards stay, for whom they have cost more than the disk.
        progress: Called with the number of rows that were copied.

    Raises:
        CacheError: It has no shards, one of them is damaged, or another process writes the cache.
        DiskError: The disk cannot hold both.
    """
    with Lock(path), open_cache(path) as cache:
        if not cache.shards:
            raise CacheError(
                f"{str(path)!r} is one file already.", hint="There is nothing to merge."
            )
        header = header_of(cache)
        with disk_errors(path):
            part = _open_part(path, header, cache)
            try:
                _copy(cache, part, progress)
                part.finish(path)
            except BaseException:
                part.close()
                raise
            if not keep_shards:
                clear(path)
    return path


def header_of(cache: Cache) -> Header:
    """Return the header that a cache was written with, as far as the file tells."""
    everything = np.arange(cache.rows)
    tasks = [task.name for task in cache.tasks]
    ingredients = cache.ingredients
    source = Source(
        name=cache.source,
        ids=tuple(cache.texts(ROW_ID, everything).tolist()),
        splits=cache.texts(ROW_SPLIT, everything),
        groups=cache.texts(ROW_GROUP, everything),
        tasks=cache.tasks,
        targets={name: cache.numbers(target_of(name), everything) for name in tasks},
        manifest=ingredients["images"],
        annotations=ingredients["annotations"],
        root=Path(),
        views_of=cache.views_of,
        task_splits={n: cache.numbers(split_of(n), everything) for n in sorted(cache.own_splits)},
    )
    return Header(cache.card, cache.cuts, source, ingredients, cache.computation, cache.stored)


def _open_part(path: Path, header: Header, cache: Cache) -> PartFile:
    target = part_of(path)
    if target.exists() and inspect_file(target).ingredients == cache.ingredients:
        part = PartFile(target)
        part.settle()
        return part
    target.unlink(missing_ok=True)
    require_free(
        path,
        f"One file of {str(path)!r}",
        header.rows * header.row_bytes,
        "Free some space; until then the shards are as good a cache as one file.",
    )
    return lay_out(target, header, header.storage)


def _copy(cache: Cache, part: PartFile, progress: Callable[..., None]) -> None:
    left = np.flatnonzero(part.state == 0)
    progress(len(part.state) - len(left))
    for start in range(0, len(left), BLOCK):
        rows = left[start : start + BLOCK]
        raw = {
            cut.key: encoded(cache.features_of(cut).take(rows), part.stored[cut.key])
            for cut in cache.cuts
        }
        part.write(rows, raw, cache.valid[rows])
        progress(len(rows))
