"""A part: a file that is being written, laid out once and from then on filled at known places."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from layerscope.cache.checksum import checksums
from layerscope.cache.fingerprint import VIEWS_OF
from layerscope.cache.hdf5_offsets import Extent, Rows, extent_of, runs
from layerscope.cache.header import Header
from layerscope.cache.label import SEAL_BYTES, open_file, room_for_label, write_label, write_seal
from layerscope.cache.layout import (
    MISSING,
    ROW_GROUP,
    ROW_ID,
    ROW_INDEX,
    ROW_SPLIT,
    ROW_STATE,
    ROW_VALID,
    SCHEMA,
    SEAL,
    SYNCED,
    WRITTEN,
    checksums_of,
    features_of,
    part_of,
    split_of,
    target_of,
    whole_of,
)
from layerscope.cache.records import to_json
from layerscope.cache.storage import StorageChoice
from layerscope.cache.threads import in_threads
from layerscope.errors import DiskError

CHECKED = 2048
"""Rows that are checked at a time."""


class PartFile:
    """A file of rows, open for writing.

    Nothing in it depends on this process: every write is done when it returns, and a row counts as
    written only after all of its bytes.

    Args:
        path: From :func:`lay_out`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with open_file(path) as file:
            self.keys = tuple(file["checksums"])
            self.stored = storage_in(file)
            self._features = {key: extent_of(file, features_of(key)) for key in self.keys}
            self._checksums = {key: extent_of(file, checksums_of(key)) for key in self.keys}
            self._valid, self._state = extent_of(file, ROW_VALID), extent_of(file, ROW_STATE)
            self._seal = extent_of(file, SEAL)
            self.state: npt.NDArray[np.uint8] = file[ROW_STATE][()]
            self.index = index_in(file)
        self._handle = os.open(path, os.O_RDWR)
        self._pending: list[tuple[int, int]] = []
        self._guard = threading.Lock()

    def close(self) -> None:
        """Close the file as it is."""
        os.close(self._handle)

    def write(
        self,
        rows: Rows,
        features: Mapping[str, npt.NDArray[Any]],
        valid: npt.NDArray[np.bool_],
    ) -> None:
        """Write rows, wherever they belong.

        Args:
            rows: (b,) their places in this file, ascending.
            features: By cut and pooling: (b, width) as they are stored.
            valid: (b,) False for an image that could not be read.

        Raises:
            OSError: They could not be written; none of them counts as written.
        """
        stretches = list(runs(rows))

        def write(key: str) -> None:
            sums = checksums(features[key])
            for place, first, count in stretches:
                part = slice(place, place + count)
                self._features[key].write(self._handle, first, features[key][part])
                self._checksums[key].write(self._handle, first, sums[part])

        in_threads(write, self.keys)
        for place, first, count in stretches:
            self._valid.write(self._handle, first, valid[place : place + count])
            self._mark(first, count, WRITTEN)
            with self._guard:
                self._pending.append((first, count))

    def sync(self) -> None:
        """Wait until the disk has every row that was written, and say so in the file.

        Another thread may write meanwhile; what it writes is left for the next time.

        Raises:
            OSError: The disk could not take them.
        """
        with self._guard:
            pending, self._pending = self._pending, []
        if pending:
            getattr(os, "fdatasync", os.fsync)(self._handle)
            for first, count in _join(pending):
                self._mark(first, count, SYNCED)

    def settle(self) -> None:
        """Look at rows of which the last writer did not say that the disk has them.

        After a power failure they may lack bytes; those that differ from their checksums count as
        missing from now on.
        """
        for _, first, count in runs(np.flatnonzero(self.state == WRITTEN), CHECKED):
            whole = np.ones(count, np.bool_)
            for key in self.keys:
                found = read_rows(self._handle, self._features[key], first, count)
                known = read_rows(self._handle, self._checksums[key], first, count)
                whole &= checksums(found) == known
            for _, lost, many in runs(first + np.flatnonzero(~whole)):
                self._mark(lost, many, MISSING)
            self._pending += [(kept, n) for _, kept, n in runs(first + np.flatnonzero(whole))]
        self.sync()

    def forget(self, rows: Rows) -> None:
        """Count rows as missing, so that they are computed again."""
        for _, first, count in runs(rows):
            self._mark(first, count, MISSING)

    def unseal(self) -> None:
        """Let the file count as unfinished again."""
        self._seal.write(self._handle, 0, np.zeros(SEAL_BYTES, np.uint8))
        os.fsync(self._handle)

    def finish(self, whole: Path | None = None) -> Path:
        """Seal the file and give it its name.

        Args:
            whole: The name; its own without ``.part`` by default.

        Raises:
            OSError: The disk could not take it.
        """
        self.sync()
        write_seal(self.path)
        self.close()
        target = whole or whole_of(self.path)
        self.path.replace(target)
        sync_folder(target.parent)
        return target

    def _mark(self, first: int, count: int, state: int) -> None:
        values = np.full(count, state, np.uint8)
        self._state.write(self._handle, first, values)
        self.state[first : first + count] = values


def lay_out(
    path: Path,
    header: Header,
    storage: Mapping[str, StorageChoice],
    index: Rows | None = None,
) -> PartFile:
    """Make a part without a row in it, all at once.

    Args:
        path: Its name, with ``.part``.
        header: What it is a part of.
        storage: By cut and pooling.
        index: (n,) the rows of the source that a shard is for; None for a whole cache.

    Raises:
        OSError: The disk is full, or the folder may not be written.
    """
    rows = header.rows if index is None else len(index)
    with drafted(path) as draft:
        with new_file(draft, header) as file:
            for cut in header.cuts:
                _reserve(file, features_of(cut.key), (rows, cut.width), storage[cut.key].dtype)
            lay_out_rows(file, header, index)
            file.create_dataset(SEAL, data=np.zeros(SEAL_BYTES, np.uint8))
            file.attrs.update(attributes(header, storage))
        write_label(draft)
    return PartFile(path)


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn what the system says about the disk into an error that names the cache."""
    try:
        yield
    except OSError as error:
        # HDF5's own text runs over several lines, with the time and the file's name once more.
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise DiskError(
            f"{str(part_of(path))!r} cannot be written: {reason}.",
            hint="The rows that were written are safe; make room or mend the folder, and repeat "
            "the command.",
        ) from error


def require_free(path: Path, what: str, needed: int, hint: str) -> None:
    """Refuse something that needs more bytes than the disk of a path has free."""
    free = shutil.disk_usage(path.parent).free
    if free < needed:
        raise DiskError(f"{what} needs {needed:,} bytes and {free:,} are free.", hint=hint)


@contextmanager
def drafted(path: Path) -> Iterator[Path]:
    """Yield the name of a draft, which replaces the file once the disk has all of it.

    Raises:
        OSError: The disk could not take it; nothing is left of the draft.
    """
    draft = path.with_name(f"{path.name}.{secrets.token_hex(4)}.draft")
    try:
        yield draft
        sync_file(draft)
        draft.replace(path)
    except BaseException:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def new_file(path: Path, header: Header) -> h5py.File:
    """Return a new file with room for its label."""
    own = [name for key in header.keys for name in (features_of(key), checksums_of(key))]
    rows = [ROW_GROUP, ROW_ID, ROW_INDEX, ROW_SPLIT, ROW_STATE, ROW_VALID, SEAL]
    targets = [target_of(task.name) for task in header.source.tasks]
    splits = [split_of(name) for name in header.source.task_splits]
    room = room_for_label([*own, *rows, *targets, *splits])
    return h5py.File(path, "x", userblock_size=room)


def lay_out_rows(file: h5py.File, header: Header, index: Rows | None) -> None:
    """Make every dataset of a file but its features and its seal."""
    source = header.source
    rows = np.arange(header.rows) if index is None else index
    for key in header.keys:
        file.create_dataset(checksums_of(key), data=np.zeros(len(rows), np.uint32))
    file.create_dataset(ROW_VALID, data=np.zeros(len(rows), np.bool_))
    file.create_dataset(ROW_STATE, data=np.zeros(len(rows), np.uint8))
    _write_texts(file, ROW_ID, [source.ids[row] for row in rows])
    if index is not None:
        file.create_dataset(ROW_INDEX, data=index.astype(np.int64))
        return
    _write_texts(file, ROW_SPLIT, source.splits)
    _write_texts(file, ROW_GROUP, source.groups)
    for task in source.tasks:
        file.create_dataset(target_of(task.name), data=source.targets[task.name])
    for name, split in source.task_splits.items():
        file.create_dataset(split_of(name), data=split)


def attributes(header: Header, storage: Mapping[str, StorageChoice]) -> dict[str, str]:
    """Return the attributes of the root, but for its digests."""
    return {
        "schema": SCHEMA,
        "fingerprint": header.fingerprint,
        "ingredients": to_json(header.ingredients),
        "storage": to_json({key: asdict(stored) for key, stored in storage.items()}),
        "source": header.source.name,
        "checkpoint": to_json(header.checkpoint),
        "cuts": to_json(header.cuts),
        "tasks": to_json(header.source.tasks),
        "settings": to_json(header.settings),
        # Only of views, so that caches of images stay the same to the byte.
        **({VIEWS_OF: header.source.views_of} if header.source.views_of else {}),
    }


def storage_in(file: h5py.File) -> dict[str, StorageChoice]:
    """Return how a file's features are stored."""
    return {key: StorageChoice(**kept) for key, kept in json.loads(file.attrs["storage"]).items()}


def index_in(file: h5py.File) -> Rows:
    """Return (n,) the row of the source of each row of a file."""
    return np.asarray(
        file[ROW_INDEX] if ROW_INDEX in file else range(len(file[ROW_STATE])), np.int64
    )


def read_rows(handle: int, place: Extent, first: int, count: int) -> npt.NDArray[Any]:
    """Return (count, …) rows of a dataset of an open file."""
    rows = np.empty((count, *place.shape), place.dtype)
    place.read(handle, first, rows)
    return rows


def sync_file(path: Path) -> None:
    """Wait until the disk has a file."""
    with path.open("r+b") as file:
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Wait until the disk has a folder's names."""
    handle = os.open(path, os.O_RDONLY)
    try:
        with suppress(OSError):  # some network file systems have nothing to wait for
            os.fsync(handle)
    finally:
        os.close(handle)


def _join(stretches: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the same stretches of rows, neighbours as one."""
    joined: list[tuple[int, int]] = []
    for first, count in stretches:
        if joined and joined[-1][0] + joined[-1][1] == first:
            joined[-1] = (joined[-1][0], joined[-1][1] + count)
        else:
            joined.append((first, count))
    return joined


def _write_texts(file: h5py.File, name: str, values: Iterable[str]) -> None:
    encoded = [str(value).encode() for value in values]
    longest = max((len(text) for text in encoded), default=0)
    kind = h5py.string_dtype("utf-8", max(longest, 1))
    file.create_dataset(name, data=np.array(encoded, dtype=kind), dtype=kind)


def _reserve(file: h5py.File, name: str, shape: tuple[int, int], dtype: np.dtype[Any]) -> None:
    """Give a dataset its place without filling it: the disk need not write every row twice."""
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    file.create_dataset(name, shape, dtype, dcpl=plan, fill_time="never")
