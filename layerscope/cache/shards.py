"""Shards: several files that are one cache, through a small file of virtual datasets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from layerscope.cache.cache_file import CacheFile, inspect_file, rows_of, shard_files, started
from layerscope.cache.hdf5_offsets import Rows, runs
from layerscope.cache.header import Header
from layerscope.cache.label import SEAL_BYTES, open_file, write_label, write_seal
from layerscope.cache.layout import (
    ROW_STATE,
    ROW_VALID,
    SEAL,
    SHARD_LIST,
    SUFFIX,
    SYNCED,
    checksums_of,
    features_of,
    part_of,
    shards_of,
)
from layerscope.cache.lock import Lock
from layerscope.cache.part import (
    PartFile,
    attributes,
    disk_errors,
    drafted,
    lay_out_rows,
    new_file,
    sync_folder,
)
from layerscope.cache.records import is_news, series_in, to_json, with_series
from layerscope.cache.storage import StorageChoice
from layerscope.errors import CacheError


def shard_name(path: Path, index: Rows) -> Path:
    """Return a name that no shard of a cache has, for one with (n,) ascending rows."""
    folder = shards_of(path)
    stem = f"rows-{index[0]:09d}-{index[-1]:09d}"
    for number in range(1_000_000):
        name = folder / (f"{stem}.{number}{SUFFIX}" if number else f"{stem}{SUFFIX}")
        if not name.exists() and not part_of(name).exists():
            return name
    raise CacheError(f"The folder {str(folder)!r} is full of shards.", hint="Merge the cache.")


def assemble(path: Path, header: Header) -> Path:
    """Make one cache of the files that hold its rows.

    A single part of all rows is sealed and renamed. Several become shards under a file of virtual
    datasets; what was at ``path`` is replaced at the very end, and shards that are of no use any
    more are deleted after it.

    Raises:
        CacheError: Rows are missing.
        OSError: The disk could not take it.
    """
    parts = started(path)
    count = len(rows_of(parts))
    if count < header.rows:
        raise CacheError(
            f"{str(part_of(path))!r} has {count} of {header.rows} rows.",
            hint="Repeat the layerscope extract command; it goes on where it stopped.",
        )
    # What was found out later is written into the file over the shards.
    same = parts[0].ingredients == header.ingredients and not is_news(
        parts[0].settings, series_in(header.settings)
    )
    if len(parts) == 1 and same and parts[0].done.all() and not parts[0].is_shard:
        PartFile(parts[0].path).finish(path)
    else:
        _write_head(path, header, [_as_shard(path, part) for part in parts])
    clear(path)
    return path


def annotate(path: Path, header: Header) -> None:
    """Give a complete cache other splits, groups, targets and settings of the checkpoint.

    Its features stay as they are: a list of training images that was found later costs no second
    extraction. A file that held everything becomes the only shard of a new one, which alone is
    written. Killed on the way, the rows are there as shards, and extraction makes a cache of them.

    Args:
        path: The cache, whose features were made from the same ingredients.
        header: What is known about the images and the checkpoint now.

    Raises:
        CacheError: Another process has it open.
        DiskError: The disk is full; the same call completes the cache.
    """
    with Lock(path), disk_errors(path):
        whole = inspect_file(path)
        # What the features went through does not change with what is known about them.
        settings = with_series(whole.settings, series_in(header.settings))
        known = replace(header, stored=whole.stored, settings=settings)
        shards = [inspect_file(path.parent / name) for name in whole.shards]
        _write_head(path, known, shards or [_as_shard(path, whole)])


def clear(path: Path) -> None:
    """Delete what a whole cache no longer needs: its part, and shards that it does not refer to."""
    clear_drafts(path)
    taken = {path.parent / name for name in inspect_file(path).shards} if path.exists() else set()
    for file in (part_of(path), *shard_files(path)):
        if file not in taken:
            file.unlink(missing_ok=True)
    with suppress(OSError):
        shards_of(path).rmdir()


def clear_drafts(path: Path) -> None:
    """Delete what processes that were killed left of files that they were laying out."""
    beside = path.parent.glob(f"{path.name}*.draft")
    for draft in (*beside, *shards_of(path).glob("*.draft")):
        draft.unlink(missing_ok=True)


def _as_shard(path: Path, part: CacheFile) -> CacheFile:
    """Give a file its place among the shards, under the name of a whole one."""
    if part.sealed and part.path.parent == shards_of(path):
        return part
    folder = shards_of(path)
    folder.mkdir(exist_ok=True)
    if part.path.parent == folder:
        return inspect_file(PartFile(part.path).finish())
    name = shard_name(path, part.index)
    if part.sealed:
        part.path.replace(name)
        sync_folder(folder)
        return inspect_file(name)
    return inspect_file(PartFile(part.path).finish(name))


def _write_head(path: Path, header: Header, shards: Sequence[CacheFile]) -> None:
    with drafted(path) as draft:
        with new_file(draft, header) as file:
            storage = _widest(header, shards)
            records = _records(path, header, shards)
            lay_out_rows(file, header, None)
            _virtual(file, header, storage, list(zip(shards, records, strict=True)))
            _copy(file, path, header, records)
            file.create_dataset(SEAL, data=np.zeros(SEAL_BYTES, np.uint8))
            file.attrs.update(attributes(header, storage) | {SHARD_LIST: to_json(records)})
        write_label(draft)
        write_seal(draft)


def _widest(header: Header, shards: Sequence[CacheFile]) -> dict[str, StorageChoice]:
    """Return how the cut is stored where it takes the most bytes."""
    return {
        key: max((shard.stored[key] for shard in shards), key=lambda kept: kept.dtype.itemsize)
        for key in header.keys
    }


def _records(path: Path, header: Header, shards: Sequence[CacheFile]) -> list[dict[str, Any]]:
    """Return which rows come from which shard: ``[first, first in the shard, count]``."""
    owner, place = np.full(header.rows, -1), np.zeros(header.rows, np.int64)
    for number, shard in enumerate(shards):
        local = np.flatnonzero(shard.done)
        rows = shard.index[local]
        free = owner[rows] < 0
        owner[rows[free]], place[rows[free]] = number, local[free]
    records = []
    for number, shard in enumerate(shards):
        rows = np.flatnonzero(owner == number)
        # Rows that follow each other in the cache do so in the shard, unless some are elsewhere.
        stretches = [
            [int(rows[at + here]), first, count]
            for at, first, many in runs(place[rows])
            for here, _, count in runs(rows[at : at + many])
            for first in [first + here]
        ]
        name = shard.path.relative_to(path.parent).as_posix()
        records.append({"file": name, "runs": stretches})
    return records


def _virtual(
    file: h5py.File,
    header: Header,
    storage: Mapping[str, StorageChoice],
    shards: Sequence[tuple[CacheFile, Mapping[str, Any]]],
) -> None:
    for cut in header.cuts:
        dtype = storage[cut.key].dtype
        layout = h5py.VirtualLayout((header.rows, cut.width), dtype)
        for shard, record in shards:
            name, shape = f"/{features_of(cut.key)}", (len(shard.index), cut.width)
            source = h5py.VirtualSource(record["file"], name, shape, shard.stored[cut.key].dtype)
            for first, place, count in record["runs"]:
                layout[first : first + count] = source[place : place + count]
        # What a lost shard held must not pass for zeros.
        fill = np.nan if dtype.kind == "f" else None
        file.create_virtual_dataset(features_of(cut.key), layout, fillvalue=fill)


def _copy(
    file: h5py.File, path: Path, header: Header, records: Sequence[Mapping[str, Any]]
) -> None:
    names = [*(checksums_of(key) for key in header.keys), ROW_VALID]
    for record in records:
        with open_file(path.parent / record["file"]) as shard:
            for name in names:
                values, target = shard[name][()], file[name]
                for first, place, count in record["runs"]:
                    target[first : first + count] = values[place : place + count]
    file[ROW_STATE][()] = np.full(header.rows, SYNCED, np.uint8)
