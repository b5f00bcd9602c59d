"""What is there already, and what may be done with it: keep, go on, replace or refuse."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from layerscope.cache.cache_file import (
    CacheFile,
    foreign,
    inspect_file,
    rows_of,
    shard_files,
    started,
    without_shard,
)
from layerscope.cache.fingerprint import ANNOTATIONS, differences
from layerscope.cache.hdf5_offsets import Rows
from layerscope.cache.header import Header
from layerscope.cache.label import seal_in, seal_of, wrong_with
from layerscope.cache.layout import whole_of
from layerscope.cache.lock import require_unlocked
from layerscope.cache.records import is_news, series_in
from layerscope.errors import CacheError
from layerscope.types import Existing

State = Literal["new", "part", "there"]


@dataclass(frozen=True, slots=True)
class CacheStatus:
    """How far a cache has come."""

    state: State
    """Nothing of use is there; some rows are; all of it is."""
    rows_done: int = 0
    skipped: tuple[int, ...] = ()
    """Rows among them whose image could not be read."""
    outdated: bool = False
    """Whether the features are those asked for, beside other splits, groups, targets or settings
    of the checkpoint."""
    parts: tuple[CacheFile, ...] = field(default=(), repr=False)
    """The files that hold its rows, where it is not whole."""
    missing: Rows = field(default_factory=lambda: np.empty(0, np.int64), repr=False)
    """Rows that are still to be computed, ascending."""


def cache_status(path: Path, header: Header, existing: Existing) -> CacheStatus:
    """Return how far the cache at ``path`` has come, and refuse what must not be touched.

    Args:
        path: Where the finished cache belongs.
        header: What is about to be written.
        existing: What to do with a file that is there.

    Raises:
        CacheError: Something else is there, or another process is writing it.
    """
    for file in (path, *shard_files(path)):
        require_unlocked(whole_of(file))
    if existing == "replace":
        return CacheStatus("new", missing=np.arange(header.rows))
    parts = started(path)
    same = [part for part in parts if not _other_features(part, header)]
    if path.exists():
        whole = inspect_file(path)
        # A part of what is asked for was begun with --existing replace, and goes before.
        if existing == "keep" or not same or not _other_features(whole, header):
            return _whole_status(path, whole, header)
    return parts_status(parts, header, existing, _require_same)


def parts_status(
    parts: Sequence[CacheFile],
    header: Header,
    existing: Existing,
    require_same: Callable[[CacheFile, Header], None],
) -> CacheStatus:
    """Return how far files have come that hold rows of one that is not whole.

    Raises:
        CacheError: They hold rows of something else, or are to be left as they are.
    """
    if existing == "keep" and parts:
        raise CacheError(
            f"{str(parts[0].path)!r} is incomplete and was left as it is.",
            hint="Go on with --existing missing, or start again with --existing replace.",
        )
    for part in parts:
        require_same(part, header)
    done = rows_of(parts)
    return CacheStatus(
        "part" if parts else "new",
        len(done),
        skipped=tuple(sorted({int(row) for part in parts for row in part.skipped})),
        parts=tuple(parts),
        missing=np.setdiff1d(np.arange(header.rows), done),
    )


def _whole_status(path: Path, whole: CacheFile, header: Header) -> CacheStatus:
    if not whole.sealed:
        raise foreign(path)
    for name in whole.shards:
        if not (path.parent / name).is_file():
            raise without_shard(path, name)
    require_sealed(path)
    _require_same(whole, header)
    news = is_news(whole.settings, series_in(header.settings))
    outdated = news or whole.ingredients != header.ingredients
    skipped = tuple(map(int, whole.skipped))
    return CacheStatus("there", header.rows, skipped, outdated, parts=(whole,))


def require_sealed(path: Path) -> None:
    """Refuse a cache whose targets, ids, checksums or attributes are not what was written.

    Raises:
        CacheError: Something differs; it is named.
    """
    wrong = wrong_with(path) or (() if seal_of(path) == seal_in(path) else ("its seal",))
    if wrong:
        raise CacheError(
            f"{str(path)!r} is damaged: {', '.join(wrong)} changed after it was written.",
            hint=f"See what else is wrong with layerscope check cache {path}; with --repair, "
            "extract mends it.",
        )


def _other_features(file: CacheFile, header: Header) -> bool:
    return bool(set(differences(file.ingredients, header.ingredients)) - {ANNOTATIONS})


def _require_same(file: CacheFile, header: Header) -> None:
    if _other_features(file, header):
        changed = differences(file.ingredients, header.ingredients)
        raise made_otherwise(file.path, changed, "write over it with --existing replace")


def made_otherwise(path: Path, changed: Sequence[str], anew: str) -> CacheError:
    """Return the error for a file in which ingredients differ; ``anew`` has it made again."""
    return CacheError(
        f"{str(path)!r} was made from something else; it differs in {', '.join(changed)}.",
        hint=f"Choose another folder with -o, {anew}, or return to the settings that it was "
        "made with.",
    )
