"""The making of one file by one process or many, held by the one that leads."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Self

import numpy as np

from layerscope.cache.feature_sink import FeatureSink
from layerscope.cache.hdf5_offsets import Rows
from layerscope.cache.header import Header
from layerscope.cache.lock import Lock
from layerscope.cache.part import disk_errors
from layerscope.cache.records import series_in, with_series
from layerscope.cache.sink import Sink
from layerscope.cache.status import CacheStatus
from layerscope.cache.storage import FeatureRows, Valid
from layerscope.cache.writer import AssignmentWriter, WriteAssignment
from layerscope.errors import CacheError
from layerscope.types import Existing


class CacheBuild:
    """Holds the lock of a file from its beginning to its end, and says who writes what of it.

    Args:
        path: Where the finished file belongs.
        header: What is written; rows of the same fingerprint that are there are kept.
        existing: What to do with a file that is there.
        sink: The kind of file; a cache of features by default.

    Raises:
        CacheError: Something else is there, or another process is writing it.
        DiskError: The disk could not take it.
    """

    def __init__(
        self,
        path: Path,
        header: Header,
        existing: Existing = "missing",
        sink: Sink | None = None,
    ) -> None:
        self.path = path
        self.header = header
        self._sink: Sink = sink or FeatureSink()
        # Asked before anything is touched, and again when nobody else can change it.
        self._unfinished(existing)
        with disk_errors(path):
            self._lock = Lock(path)
        try:
            with disk_errors(path):
                self._sink.settle(path, existing)
                self._status = self._unfinished(existing)
        except BaseException:
            self.close()
            raise
        if self._status.parts:  # what is begun is gone on with
            begun = self._status.parts[0]
            settings = with_series(begun.settings, series_in(header.settings))
            self.header = replace(header, stored=begun.stored, settings=settings)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self.close()

    def close(self) -> None:
        """Let the next one in."""
        self._lock.release()

    def assignments(self, processes: int = 1, unit: int = 1) -> list[WriteAssignment]:
        """Return what each process is to write: together, all that is missing.

        Args:
            processes: How many there are.
            unit: Rows that have to be computed together, because they depend on each other.

        Raises:
            DiskError: The disk has no room.
        """
        return self._sink.assign(self.path, self.header, self._status, processes, unit)

    def finish(self) -> Path:
        """Make one file of all that was written.

        Raises:
            CacheError: Rows are missing.
            DiskError: The disk could not take it.
        """
        self._lock.require()
        with disk_errors(self.path):
            return self._sink.finish(self.path, self.header)

    def discard(self) -> None:
        """Delete what was written, because it turned out to be wrong."""
        self._sink.discard(self.path)

    def _unfinished(self, existing: Existing) -> CacheStatus:
        status = self._sink.status(self.path, self.header, existing)
        if status.state == "there":
            raise CacheError(
                f"{str(self.path)!r} is complete.", hint="There is nothing left to write."
            )
        return status


class CacheWriter(CacheBuild):
    """Writes one cache alone; a context manager that keeps finished rows whatever happens.

    Like :class:`CacheBuild`, with ``unit``: rows that have to be computed together.
    """

    def __init__(
        self, path: Path, header: Header, existing: Existing = "missing", unit: int = 1
    ) -> None:
        super().__init__(path, header, existing)
        self._writer: AssignmentWriter | None = None
        self.missing: Rows = np.empty(0, np.int64)
        """(m,) rows that are still to be computed, ascending."""
        try:
            for assignment in self.assignments(unit=unit):
                self._writer = AssignmentWriter(path, self.header, assignment)
                self.missing = assignment.rows
        except BaseException:
            self.close()
            raise

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            if self._writer is not None:
                self._writer.__exit__(kind, error, trace)
        finally:
            self.close()

    def write(self, rows: Rows, features: FeatureRows, valid: Valid) -> None:
        """Write some rows of every cut, as :meth:`AssignmentWriter.write` does."""
        if self._writer is None:
            raise ValueError("No row is missing.")
        self._writer.write(rows, features, valid)

    def finish(self) -> Path:
        if self._writer is not None:
            self._writer.close()
        return super().finish()

    def discard(self) -> None:
        if self._writer is not None:
            self._writer.close()
        super().discard()
