"""What one process is to write, and the writer that brings its rows into the file."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from layerscope.cache.hdf5_offsets import Rows
from layerscope.cache.header import Header
from layerscope.cache.layout import part_of, whole_of
from layerscope.cache.lock import Lock
from layerscope.cache.part import PartFile, disk_errors, lay_out
from layerscope.cache.shards import shard_name
from layerscope.cache.storage import FeatureRows, Valid, encoded, overflows, widened
from layerscope.errors import DiskError

SYNC_EVERY = 5.0
"""Seconds of work that a power failure may cost."""
SYNC_BYTES = 2**26
"""Bytes after which the disk is set to work: it writes while the next ones are computed."""


@dataclass(frozen=True, slots=True)
class WriteAssignment:
    """What one process is to write: some rows, into one file."""

    path: Path
    """The part; it is there, or to be laid out."""
    rows: Rows = field(repr=False)
    """(m,) rows of the source that are to be computed, ascending."""
    there: bool
    """Whether the part is there, and continued."""
    is_shard: bool = True


class AssignmentWriter:
    """Writes one assignment; a context manager that keeps finished rows whatever happens.

    Args:
        path: Where the finished cache belongs.
        header: Of the whole cache.
        assignment: From :meth:`layerscope.cache.build.CacheBuild.assignments`.

    Raises:
        CacheError: Another process writes the same part.
        DiskError: The part cannot be laid out.
    """

    def __init__(self, path: Path, header: Header, assignment: WriteAssignment) -> None:
        self.rows = assignment.rows
        self.rows_done = 0
        """Of the assignment, and safely in the file."""
        self._path = path
        self._header = header
        self._lock: Lock | None = None
        self._part: PartFile | None = None
        self._syncing = ThreadPoolExecutor(1, thread_name_prefix="sync")
        self._sync: Future[None] | None = None
        self._synced, self._unsynced = time.monotonic(), 0
        with disk_errors(self._path):
            assignment.path.parent.mkdir(parents=True, exist_ok=True)
            # The whole of a cache is locked by whoever leads; a shard by who writes it.
            if assignment.is_shard:
                self._lock = Lock(whole_of(assignment.path))
            if assignment.there:
                self._part = PartFile(assignment.path)
            else:
                index = self.rows if assignment.is_shard else None
                self._part = lay_out(assignment.path, header, header.storage, index)

    def __enter__(self) -> AssignmentWriter:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            self.close()
        except DiskError:
            if error is None:  # the first error is the one to report
                raise

    def write(self, rows: Rows, features: FeatureRows, valid: Valid) -> None:
        """Write some rows of every cut, so that a kill at any moment loses no more.

        Args:
            rows: (b,) rows of the source, ascending.
            features: By cut and pooling, ``blocks.3@cls``: (b, width).
            valid: (b,) False for an image that could not be read.

        Raises:
            DiskError: The rows could not be stored; those before them are safe.
        """
        with disk_errors(self._path):
            raw = self._encoded(rows, features)
            self._writing.write(np.searchsorted(self._writing.index, rows), raw, valid)
            self.rows_done += len(rows)
            self._unsynced += sum(part.nbytes for part in raw.values())
            self._sync_if_due()

    def close(self) -> None:
        """Wait for the disk, and let others write."""
        part = self._part
        if part is None:
            return
        try:
            with disk_errors(self._path):
                self._wait()
                part.sync()
        finally:
            self._part = None
            self._syncing.shutdown()
            part.close()
            if self._lock is not None:
                self._lock.release()

    @property
    def _writing(self) -> PartFile:
        if self._part is None:
            raise ValueError("The writer is closed.")
        return self._part

    def _sync_if_due(self) -> None:
        """Have the disk take what was written, without waiting for it."""
        now = time.monotonic()
        if now - self._synced < SYNC_EVERY and self._unsynced < SYNC_BYTES:
            return
        if self._sync is not None and not self._sync.done():
            return
        self._wait()
        if self._lock is not None:
            self._lock.require()
        self._sync = self._syncing.submit(self._writing.sync)
        self._synced, self._unsynced = now, 0

    def _wait(self) -> None:
        """Wait for the disk, and raise what it said."""
        if self._sync is not None:
            sync, self._sync = self._sync, None
            sync.result()

    def _encoded(self, rows: Rows, features: FeatureRows) -> dict[str, npt.NDArray[Any]]:
        stored = self._writing.stored
        raw = {key: encoded(features[key], stored[key]) for key in stored}
        late = [key for key in stored if overflows(raw[key], features[key], stored[key])]
        if not late:
            return raw
        self._widen(late, rows)
        stored = self._writing.stored
        return raw | {key: encoded(features[key], stored[key]) for key in late}

    def _widen(self, late: list[str], rows: Rows) -> None:
        """Go on in a shard of its own, in which the cuts that float16 cannot hold are wider."""
        kept = {**self._writing.stored, **{key: widened() for key in late}}
        left = self.rows[np.searchsorted(self.rows, rows[0]) :]
        self._wait()
        self._writing.sync()
        self._writing.close()
        if self._lock is not None:
            self._lock.release()
            self._lock = None
        target = shard_name(self._path, left)
        target.parent.mkdir(exist_ok=True)
        self._lock = Lock(target)
        self._part = lay_out(part_of(target), self._header, kept, left)


def whole_units(rows: Rows, unit: int, count: int) -> Rows:
    """Return the rows and those of the same units, which begin at multiples of ``unit``."""
    if unit == 1 or not len(rows):
        return rows
    first = np.unique(rows // unit) * unit
    return np.concatenate([np.arange(at, min(at + unit, count)) for at in first])


def split_rows(rows: Rows, processes: int, unit: int) -> list[Rows]:
    """Return the rows in consecutive parts of about the same size, units kept whole."""
    units = np.unique(rows // unit)
    return [rows[np.isin(rows // unit, part)] for part in np.array_split(units, processes)]
