"""Sinks: what becomes of the features that an extraction computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol, Self

from layerscope.cache.hdf5_offsets import Rows
from layerscope.cache.header import Header
from layerscope.cache.status import CacheStatus
from layerscope.cache.storage import FeatureRows, Valid
from layerscope.cache.writer import WriteAssignment
from layerscope.types import Existing, Source


class RowWriter(Protocol):
    """Takes in the rows of one assignment; at the end of ``with``, finished ones are kept."""

    def __enter__(self) -> Self: ...
    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None: ...
    def write(self, rows: Rows, features: FeatureRows, valid: Valid) -> None:
        """Take in ascending rows of the source; those that were written before are safe."""


class Sink(Protocol):
    """A kind of file that features go into: all of them, or statistics of them.

    :class:`layerscope.cache.build.CacheBuild` holds the lock and calls these in their order.
    """

    def file_name(self, checkpoint: str, source: str, limit: int | None) -> str:
        """Return the name of the file."""

    def ingredients(self, source: Source) -> dict[str, Any]:
        """Return what determines the file beside what determines the features."""

    def size(self, header: Header) -> int:
        """Return the bytes of the whole file."""

    def size_left(self, header: Header, status: CacheStatus) -> int:
        """Return how many bytes are still to be written."""

    def status(self, path: Path, header: Header, existing: Existing) -> CacheStatus:
        """Return how far the file has come, and refuse what must not be touched."""

    def settle(self, path: Path, existing: Existing) -> None:
        """Clear away what is of no use, once the file is locked."""

    def rows_due(self, header: Header, missing: Rows, unit: int) -> Rows:
        """Return the rows to compute where some are missing and units depend on each other."""

    def assign(
        self, path: Path, header: Header, status: CacheStatus, processes: int, unit: int
    ) -> list[WriteAssignment]:
        """Return what each process is to write, as ``CacheBuild.assignments`` describes it."""

    def writer(self, path: Path, header: Header, assignment: WriteAssignment) -> RowWriter:
        """Return what takes in the rows of one assignment."""

    def finish(self, path: Path, header: Header) -> Path:
        """Make one file of all that was written, or refuse if rows are missing."""

    def discard(self, path: Path) -> None:
        """Delete what was written and is no whole file."""
