"""Writing one cache alone, from its beginning to its name."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from layerscope.cache.build import CacheBuild
from layerscope.cache.hdf5_offsets import Rows
from layerscope.cache.header import Header
from layerscope.cache.storage import FeatureRows, Valid
from layerscope.cache.writer import AssignmentWriter
from layerscope.types import Existing


class CacheWriter(CacheBuild):
    """Writes one cache alone; a context manager that keeps finished rows whatever happens.

    Args:
        path: Where the finished cache belongs; until then the file is called ``….h5.part``.
        header: What is written; rows of the same fingerprint are kept.
        existing: What to do with a file that is there.
        unit: Rows that have to be computed together.

    Raises:
        CacheError: Something else is there, or another process is writing it.
        DiskError: The disk has no room for it.
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

    def __enter__(self) -> CacheWriter:
        return self

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
        """Give the cache its name; described by :class:`CacheBuild`."""
        if self._writer is not None:
            self._writer.close()
        return super().finish()

    def discard(self) -> None:
        """Delete what was written, because it turned out to be wrong."""
        if self._writer is not None:
            self._writer.close()
        super().discard()
