"""What is there already, and what may be done with it: keep, go on, replace or refuse."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
import numpy.typing as npt

from layerscope.cache.checkpoint_settings import is_news, series_in
from layerscope.cache.fingerprint import ANNOTATIONS, differences
from layerscope.cache.hdf5_offsets import Rows
from layerscope.cache.header import Header
from layerscope.cache.label import open_file, seal_in, seal_of, wrong_with
from layerscope.cache.layout import (
    ATTRIBUTES,
    MISSING,
    OLDER,
    PART,
    ROW_STATE,
    ROW_VALID,
    SCHEMA,
    SHARD_LIST,
    SHARDS,
    SUFFIX,
    part_of,
    shards_of,
    whole_of,
)
from layerscope.cache.lock import require_unlocked
from layerscope.cache.part import index_in, stored_in
from layerscope.cache.storage import Stored
from layerscope.errors import CacheError
from layerscope.types import Existing

Status = Literal["new", "part", "there"]

UNREADABLE = (OSError, RuntimeError, KeyError, ValueError, TypeError)
"""What HDF5 and JSON raise about bytes that are not what they should be."""


@dataclass(frozen=True, slots=True)
class Found:
    """A file that holds rows of a cache: the whole of it, a part, or a shard."""

    path: Path
    ingredients: Mapping[str, Any]
    stored: Mapping[str, Stored]
    settings: Mapping[str, Any]
    index: Rows
    """(n,) the row of the source of each of its rows."""
    done: npt.NDArray[np.bool_]
    """(n,) which of them are written."""
    valid: npt.NDArray[np.bool_]
    sealed: bool
    shards: tuple[str, ...] = ()
    """Of a virtual cache: its shards, by their paths beside it."""

    @property
    def is_shard(self) -> bool:
        """Whether it lies among the shards; what is known about its images is then elsewhere."""
        return self.path.parent.name.endswith(SHARDS)

    @property
    def rows(self) -> Rows:
        """The rows of the source that it has."""
        return self.index[self.done]

    @property
    def skipped(self) -> Rows:
        """Those among them whose image could not be read."""
        return self.index[self.done & ~self.valid]


@dataclass(frozen=True, slots=True)
class CacheStatus:
    """How far a cache has come."""

    status: Status
    """Nothing of use is there; some rows are; all of it is."""
    rows_done: int = 0
    skipped: tuple[int, ...] = ()
    """Rows among them whose image could not be read."""
    outdated: bool = False
    """Whether the features are those asked for, beside other splits, groups, targets or settings
    of the checkpoint."""
    parts: tuple[Found, ...] = field(default=(), repr=False)
    """The files that hold its rows, where it is not whole."""
    missing: Rows = field(default_factory=lambda: np.empty(0, np.int64), repr=False)
    """Rows that are still to be computed, ascending."""

    @property
    def stored(self) -> Mapping[str, Stored] | None:
        """By cut and pooling, how the features that are there are stored."""
        return self.parts[0].stored if self.parts else None


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
    everything = np.arange(header.rows)
    if existing == "replace":
        return CacheStatus("new", missing=everything)
    parts = started(path)
    same = [part for part in parts if not _other_features(part.ingredients, header)]
    if path.exists():
        whole = look(path)
        # A part of what is asked for was begun with --existing replace, and goes before.
        if existing == "keep" or not same or not _other_features(whole.ingredients, header):
            return _finished(path, whole, header)
    if existing == "keep" and parts:
        raise CacheError(
            f"{str(parts[0].path)!r} is incomplete and was left as it is.",
            hint="Go on with --existing missing, or start again with --existing replace.",
        )
    for part in parts:
        _require_same(part.path, part.ingredients, header)
    done = rows_of(parts)
    return CacheStatus(
        "part" if parts else "new",
        len(done),
        skipped=_skipped(parts),
        parts=parts,
        missing=np.setdiff1d(everything, done),
    )


def started(path: Path) -> tuple[Found, ...]:
    """Return the files that hold rows of a cache that is not whole, in the order of their names.

    Shards that a whole cache at ``path`` refers to are not among them.

    Raises:
        CacheError: One of them is no part of a cache.
    """
    whole = look(path) if path.exists() and _is_cache(path) else None
    taken = {path.parent / name for name in whole.shards} if whole else set()
    files = [part_of(path), *shard_files(path)]
    return tuple(look(file) for file in files if file.exists() and file not in taken)


def shard_files(path: Path) -> list[Path]:
    """Return the shards of a cache, whole or not, sorted."""
    folder = shards_of(path)
    return sorted((*folder.glob(f"*{SUFFIX}"), *folder.glob(f"*{SUFFIX}{PART}")))


def rows_of(parts: Iterable[Found]) -> Rows:
    """Return the rows of the source that some files have together, ascending."""
    return np.unique(np.concatenate([np.empty(0, np.int64), *(part.rows for part in parts)]))


def _skipped(parts: Iterable[Found]) -> tuple[int, ...]:
    return tuple(sorted({int(row) for part in parts for row in part.skipped}))


def _finished(path: Path, whole: Found, header: Header) -> CacheStatus:
    if not whole.sealed:
        raise foreign(path)
    for name in whole.shards:
        if not (path.parent / name).is_file():
            raise without_shard(path, name)
    require_sealed(path)
    outdated = _require_same(path, whole.ingredients, header) or is_news(
        whole.settings, series_in(header.settings)
    )
    return CacheStatus("there", header.rows, _skipped([whole]), outdated, parts=(whole,))


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


def unreadable(path: Path, error: Exception) -> CacheError:
    """Return the error for a file that HDF5 cannot read."""
    return CacheError(
        f"{str(path)!r} cannot be read: {error}.",
        hint="If it was copied, copy it again; otherwise make it anew with layerscope extract.",
    )


def foreign(path: Path) -> CacheError:
    """Return the error for a file that is none of ours, where ours belongs."""
    return CacheError(
        f"{str(path)!r} is there and is not a complete LayerScope cache.",
        hint="Move it away, choose another folder with -o, or write over it with "
        "--existing replace.",
    )


def without_shard(path: Path, name: str) -> CacheError:
    """Return the error for a cache one of whose files is gone."""
    return CacheError(
        f"{str(path)!r} has lost its shard {name!r}.",
        hint="Put the folder of shards beside it again, or delete it and repeat the extract "
        "command: the rows of the shards that are left are kept.",
    )


def _older(path: Path) -> CacheError:
    return CacheError(
        f"{str(path)!r} was written in an older format, which cannot be continued.",
        hint="Extract it again with --existing replace, or choose another folder with -o.",
    )


def _other_features(there: Mapping[str, Any], header: Header) -> bool:
    return bool(set(differences(there, header.ingredients)) - {ANNOTATIONS})


def _require_same(path: Path, there: Mapping[str, Any], header: Header) -> bool:
    """Refuse other features; return whether only what is known about the images is another."""
    changed = differences(there, header.ingredients)
    if _other_features(there, header):
        raise CacheError(
            f"{str(path)!r} was made from something else; it differs in {', '.join(changed)}.",
            hint="Choose another folder with -o, write over it with --existing replace, or "
            "return to the settings that it was made with.",
        )
    return bool(changed)


def look(path: Path) -> Found:
    """Return what a file holds.

    Raises:
        CacheError: It is damaged, older, or none of ours.
    """
    try:
        with open_file(path) as file:
            if file.attrs.get("schema") in OLDER:
                raise _older(path)
            if file.attrs.get("schema") != SCHEMA or any(n not in file.attrs for n in ATTRIBUTES):
                raise foreign(path)
            return _read(path, file)
    except UNREADABLE as error:
        raise foreign(path) from error


def stored_as(path: Path) -> Mapping[str, Stored]:
    """Return by cut and pooling how the features of a cache are stored."""
    return look(path).stored


def _is_cache(path: Path) -> bool:
    try:
        look(path)
    except CacheError:
        return False
    return True


def _read(path: Path, file: h5py.File) -> Found:
    shards = json.loads(file.attrs[SHARD_LIST]) if SHARD_LIST in file.attrs else []
    return Found(
        path=path,
        ingredients=json.loads(file.attrs["ingredients"]),
        stored=stored_in(file),
        settings=json.loads(file.attrs["settings"]),
        index=index_in(file),
        done=file[ROW_STATE][()] != MISSING,
        valid=file[ROW_VALID][()],
        sealed=bool(seal_in(path)),
        shards=tuple(shard["file"] for shard in shards),
    )
