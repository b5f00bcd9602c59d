"""A file that holds rows of a cache, as it is found: what was written, and how far it came."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from layerscope.cache.hdf5_offsets import Rows
from layerscope.cache.label import open_file, seal_in
from layerscope.cache.layout import (
    ATTRIBUTES,
    MISSING,
    OLDER,
    PART,
    ROW_STATE,
    ROW_VALID,
    SCHEMA,
    SHARD_LIST,
    SUFFIX,
    is_shard,
    part_of,
    shards_of,
)
from layerscope.cache.part import index_in, storage_in
from layerscope.cache.storage import StorageChoice
from layerscope.errors import CacheError

UNREADABLE = (OSError, RuntimeError, KeyError, ValueError, TypeError)
"""What HDF5 and JSON raise about bytes that are not what they should be."""


@dataclass(frozen=True, slots=True)
class CacheFile:
    """A file that holds rows of a cache: the whole of it, a part, or a shard."""

    path: Path
    ingredients: Mapping[str, Any]
    stored: Mapping[str, StorageChoice]
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
        return is_shard(self.path)

    @property
    def rows(self) -> Rows:
        """The rows of the source that it has."""
        return self.index[self.done]

    @property
    def skipped(self) -> Rows:
        """Those among them whose image could not be read."""
        return self.index[self.done & ~self.valid]


def inspect_file(path: Path) -> CacheFile:
    """Return what a file holds.

    Raises:
        CacheError: It is damaged, older, or none of ours.
    """
    try:
        with open_file(path) as file:
            if file.attrs.get("schema") in OLDER:
                raise CacheError(
                    f"{str(path)!r} was written in an older format, which cannot be continued.",
                    hint="Extract it again with --existing replace, or choose another folder with "
                    "-o.",
                )
            if file.attrs.get("schema") != SCHEMA or any(n not in file.attrs for n in ATTRIBUTES):
                raise foreign(path)
            return _read(path, file)
    except UNREADABLE as error:
        raise foreign(path) from error


def storage_of(path: Path) -> Mapping[str, StorageChoice]:
    """Return by cut and pooling how the features of a file were stored, or taken in."""
    with open_file(path) as file:
        return storage_in(file)


def _read(path: Path, file: h5py.File) -> CacheFile:
    shards = json.loads(file.attrs[SHARD_LIST]) if SHARD_LIST in file.attrs else []
    return CacheFile(
        path=path,
        ingredients=json.loads(file.attrs["ingredients"]),
        stored=storage_in(file),
        settings=json.loads(file.attrs["settings"]),
        index=index_in(file),
        done=file[ROW_STATE][()] != MISSING,
        valid=file[ROW_VALID][()],
        sealed=bool(seal_in(path)),
        shards=tuple(shard["file"] for shard in shards),
    )


def started(path: Path) -> tuple[CacheFile, ...]:
    """Return the files that hold rows of a cache that is not whole, in the order of their names.

    Shards that a whole cache at ``path`` refers to are not among them.

    Raises:
        CacheError: One of them is no part of a cache.
    """
    taken = set[Path]()
    with suppress(CacheError):  # there is no whole cache
        taken = {path.parent / name for name in inspect_file(path).shards}
    files = [part_of(path), *shard_files(path)]
    return tuple(inspect_file(file) for file in files if file.exists() and file not in taken)


def shard_files(path: Path) -> list[Path]:
    """Return the shards of a cache, whole or not, sorted."""
    folder = shards_of(path)
    return sorted((*folder.glob(f"*{SUFFIX}"), *folder.glob(f"*{SUFFIX}{PART}")))


def rows_of(parts: Iterable[CacheFile]) -> Rows:
    """Return the rows of the source that some files have together, ascending."""
    return np.unique(np.concatenate([np.empty(0, np.int64), *(part.rows for part in parts)]))


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
