"""Writers: what each process is to write, and how the rows get into the file."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from layerscope.cache.checkpoint_settings import is_news, series_in, with_series
from layerscope.cache.existing import CacheStatus, Found, cache_status, look, started
from layerscope.cache.fingerprint import ANNOTATIONS, differences
from layerscope.cache.hdf5_offsets import Rows
from layerscope.cache.header import Header
from layerscope.cache.layout import PART, part_of, whole_of
from layerscope.cache.lock import Lock
from layerscope.cache.part import Part, lay_out
from layerscope.cache.shards import assemble, clear, clear_drafts, reannotate, shard_name
from layerscope.cache.storage import encoded, overflows, widened
from layerscope.errors import CacheError, DiskError
from layerscope.types import Existing

_OVERHEAD = 2**20
"""Bytes granted to everything in the file that is not a feature."""
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


class CacheBuild:
    """The making of one cache, by one process or many: held by the one that leads.

    Args:
        path: Where the finished cache belongs.
        header: What is written; rows of the same fingerprint that are there are kept.
        existing: What to do with a file that is there.

    Raises:
        CacheError: Something else is there, or another process is writing it.
    """

    def __init__(self, path: Path, header: Header, existing: Existing = "missing") -> None:
        self.path = path
        self.header = header
        _require_unfinished(
            path, cache_status(path, header, existing)
        )  # before anything is touched
        with storing(path):
            self._lock = Lock(path)
        try:
            with storing(path):
                self._settle(existing)
                self.cache_status: CacheStatus = cache_status(path, header, existing)
            _require_unfinished(path, self.cache_status)
        except BaseException:
            self._lock.release()
            raise
        if self.cache_status.parts:  # what is begun is gone on with
            begun = self.cache_status.parts[0]
            settings = with_series(begun.settings, series_in(header.settings))
            self.header = replace(header, stored=begun.stored, settings=settings)

    def __enter__(self) -> CacheBuild:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._lock.release()

    def shares(self, processes: int = 1, unit: int = 1) -> list[WriteAssignment]:
        """Return what each process is to write: together, all that is missing.

        Parts that are there are continued where each process finds one; otherwise they are left as
        they are, and the rest is divided evenly, in the order of the rows.

        Args:
            processes: How many there are.
            unit: Rows that have to be computed together, because they depend on each other.

        Raises:
            DiskError: The disk has no room.
        """
        missing = whole_units(self.cache_status.missing, unit, self.header.rows)
        self._require_room(len(missing))
        if not len(missing):
            return []
        open_parts = [part for part in self.cache_status.parts if not part.done.all()]
        fits = len(open_parts) == processes and not any(map(self._is_outdated, open_parts))
        held = [np.intersect1d(part.index, missing) for part in open_parts]
        if fits and sum(map(len, held)) == len(missing):
            shares = zip(open_parts, held, strict=True)
            return [WriteAssignment(part.path, rows, True, part.is_shard) for part, rows in shares]
        if processes == 1 and not self.cache_status.parts:
            return [WriteAssignment(part_of(self.path), missing, False, is_shard=False)]
        return [
            WriteAssignment(part_of(shard_name(self.path, rows)), rows, False)
            for rows in divided(missing, processes, unit)
            if len(rows)
        ]

    def finish(self) -> Path:
        """Make one cache of all that was written.

        Raises:
            CacheError: Rows are missing.
            DiskError: The disk could not take it.
        """
        self._lock.require()
        with storing(self.path):
            return assemble(self.path, self.header)

    def discard(self) -> None:
        """Delete what was written, because it turned out to be wrong."""
        clear(self.path)

    def _settle(self, existing: Existing) -> None:
        clear_drafts(self.path)
        if existing == "replace":
            for part in _unfinished(self.path):
                part.unlink()
            return
        for part in _unfinished(self.path):
            opened = Part(part)
            opened.settle()
            opened.close()

    def _is_outdated(self, part: Found) -> bool:
        # A shard has no annotations that could be, and nobody asks it for settings.
        changed = differences(part.ingredients, self.header.ingredients)
        news = is_news(part.settings, series_in(self.header.settings))
        return (ANNOTATIONS in changed or news) and not part.is_shard

    def _require_room(self, rows: int) -> None:
        needed = rows * self.header.row_bytes + _OVERHEAD
        free = shutil.disk_usage(self.path.parent).free
        if free < needed:
            raise DiskError(
                f"{str(self.path)!r} needs {needed:,} bytes and {free:,} are free.",
                hint="Free some space, choose another disk with -o, or fewer layers with --cuts.",
            )


def _require_unfinished(path: Path, found: CacheStatus) -> None:
    if found.status == "there":
        raise CacheError(f"{str(path)!r} is complete.", hint="There is nothing left to write.")


def _unfinished(path: Path) -> list[Path]:
    return [found.path for found in started(path) if found.path.name.endswith(PART)]


class AssignmentWriter:
    """Writes one share; a context manager that keeps finished rows whatever happens.

    Args:
        path: Where the finished cache belongs.
        header: Of the whole cache.
        share: From :meth:`CacheBuild.shares`.

    Raises:
        CacheError: Another process writes the same part.
        DiskError: The part cannot be laid out.
    """

    def __init__(self, path: Path, header: Header, share: WriteAssignment) -> None:
        self.rows = share.rows
        self.rows_done = 0
        """Of the share, and safely in the file."""
        self._path = path
        self._header = header
        self._lock: Lock | None = None
        self._part: Part | None = None
        self._syncing = ThreadPoolExecutor(1, thread_name_prefix="sync")
        self._sync: Future[None] | None = None
        self._synced, self._unsynced = time.monotonic(), 0
        with self._storing():
            share.path.parent.mkdir(parents=True, exist_ok=True)
            # The whole of a cache is locked by whoever leads; a shard by who writes it.
            self._lock = Lock(whole_of(share.path)) if share.is_shard else None
            self._part = self._opened(share)

    def __enter__(self) -> AssignmentWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.close()
        except DiskError:
            if error is None:  # the first error is the one to report
                raise

    def write(
        self,
        rows: Rows,
        features: Mapping[str, npt.NDArray[np.float32]],
        valid: npt.NDArray[np.bool_],
    ) -> None:
        """Write some rows of every cut, so that a kill at any moment loses no more.

        Args:
            rows: (b,) rows of the source, ascending.
            features: By cut and pooling, ``blocks.3@cls``: (b, width).
            valid: (b,) False for an image that could not be read.

        Raises:
            DiskError: The rows could not be stored; those before them are safe.
        """
        with self._storing():
            raw = self._encoded(rows, features)
            self._writing.write(places_of(rows, self._writing), raw, valid)
            self.rows_done += len(rows)
            self._unsynced += sum(part.nbytes for part in raw.values())
            self._sync_if_due()

    def close(self) -> None:
        """Wait for the disk, and let others write."""
        if self._part is None:
            return
        part = self._part
        try:
            with self._storing():
                self._wait()
                part.sync()
        finally:
            self._part = None
            self._syncing.shutdown()
            part.close()
            if self._lock is not None:
                self._lock.release()

    @property
    def _writing(self) -> Part:
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

    def _opened(self, share: WriteAssignment) -> Part:
        if share.there:
            return Part(share.path)
        index = share.rows if share.is_shard else None
        return lay_out(share.path, self._header, self._header.storage, index)

    def _encoded(
        self, rows: Rows, features: Mapping[str, npt.NDArray[np.float32]]
    ) -> dict[str, npt.NDArray[Any]]:
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

    @contextmanager
    def _storing(self) -> Iterator[None]:
        with storing(self._path):
            yield


class CacheWriter:
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
        with storing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        self._undertaking = CacheBuild(path, header, existing)
        try:
            shares = self._undertaking.shares(unit=unit)
            self._writer = (
                AssignmentWriter(path, self._undertaking.header, shares[0]) if shares else None
            )
        except BaseException:
            self._undertaking.__exit__(None, None, None)
            raise
        self.missing: Rows = shares[0].rows if shares else np.empty(0, np.int64)
        """(m,) rows that are still to be computed, ascending."""

    def __enter__(self) -> CacheWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if self._writer is not None:
                self._writer.__exit__(kind, error, trace)
        finally:
            self._undertaking.__exit__(kind, error, trace)

    def write(
        self,
        rows: Rows,
        features: Mapping[str, npt.NDArray[np.float32]],
        valid: npt.NDArray[np.bool_],
    ) -> None:
        """Write some rows of every cut, as :meth:`AssignmentWriter.write` does."""
        if self._writer is None:
            raise ValueError("No row is missing.")
        self._writer.write(rows, features, valid)

    def finish(self) -> Path:
        """Give the cache its name.

        Raises:
            CacheError: Rows are missing.
            DiskError: The file could not be completed.
        """
        if self._writer is not None:
            self._writer.close()
        return self._undertaking.finish()

    def discard(self) -> None:
        """Delete what was written, because it turned out to be wrong."""
        if self._writer is not None:
            self._writer.close()
        self._undertaking.discard()


def annotate(path: Path, header: Header) -> None:
    """Give a complete cache other splits, groups, targets and settings of the checkpoint.

    Its features stay as they are. A list of training images that was found later, or a column
    more, costs no second extraction.

    Args:
        path: The cache, whose features were made from the same ingredients.
        header: What is known about the images and the checkpoint now.

    Raises:
        CacheError: Another process has it open.
        DiskError: The disk is full; the same call completes the cache.
    """
    with Lock(path), storing(path):
        whole = look(path)
        # What the features went through does not change with what is known about them.
        settings = with_series(whole.settings, series_in(header.settings))
        reannotate(path, replace(header, stored=whole.stored, settings=settings))


@contextmanager
def storing(path: Path) -> Iterator[None]:
    """Turn what the system says about the disk into an error that names the cache."""
    try:
        yield
    except OSError as error:
        raise DiskError(
            f"{str(part_of(path))!r} cannot be written: {_reason(error)}.",
            hint="The rows that were written are safe; make room or mend the folder, and repeat "
            "the command.",
        ) from error


def _reason(error: OSError) -> str:
    # HDF5's own text runs over several lines, with the time and the file's name once more.
    return os.strerror(error.errno) if error.errno else str(error)


def places_of(rows: Rows, part: Part) -> Rows:
    """Return (b,) the places in a part of some rows of the source that it is for."""
    return np.searchsorted(part.index, rows).astype(np.int64)


def whole_units(rows: Rows, unit: int, count: int) -> Rows:
    """Return the rows and those of the same units, which begin at multiples of ``unit``."""
    if unit == 1 or not len(rows):
        return rows
    first = np.unique(rows // unit) * unit
    return np.concatenate([np.arange(at, min(at + unit, count)) for at in first])


def divided(rows: Rows, processes: int, unit: int) -> list[Rows]:
    """Return the rows in consecutive parts of about the same size, units kept whole."""
    units = np.unique(rows // unit)
    return [rows[np.isin(rows // unit, part)] for part in np.array_split(units, processes)]
