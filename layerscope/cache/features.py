"""The features of one cut, read when they are asked for, and checked as they are read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from layerscope.cache.checksum import checksums
from layerscope.cache.hdf5_offsets import Extent, Rows
from layerscope.cache.storage import decoded
from layerscope.cache.threads import THREADS, in_threads
from layerscope.errors import CacheError
from layerscope.types import Storage

if TYPE_CHECKING:
    import torch

_BLOCK_BYTES = 4 * 2**20
"""Read, checked and converted at a time: what stays in a processor's cache."""
_GAP_BYTES = 4 * 2**10
"""Bytes between two wanted rows that are read along rather than skipped: a page."""
_DENSE = 16
"""Rows of which at least one in so many is wanted are fetched from the disk together."""


@dataclass(frozen=True, slots=True)
class Segment:
    """Consecutive rows that lie one after the other in one file."""

    handle: int
    place: Extent
    storage: Storage
    first: int
    """The row of the cache with which it begins."""
    start: int
    """The place of that row in the file's dataset."""
    count: int


class Features:
    """(rows, width) float32 features of one cut, which behaves like an array of that shape.

    Args:
        name: For messages.
        shape: (rows, width).
        segments: That together are all rows, in their order.
        checksums: (rows,) of the stored bytes of each row; None to read without checking.

    Examples:
        ``features[10:20]``, ``features[[3, 1, 2]]`` and ``features[5]`` are NumPy arrays,
        ``features.tensor([3, 1, 2])`` is a tensor; ``numpy.asarray(features)`` reads everything.
    """

    def __init__(
        self,
        name: str,
        shape: tuple[int, int],
        segments: tuple[Segment, ...],
        checksums: npt.NDArray[np.uint32] | None,
    ) -> None:
        self.name = name
        self.shape = shape
        self.dtype = np.dtype(np.float32)
        self._segments = segments
        self._starts = np.array([segment.first for segment in segments], np.int64)
        self._checksums = checksums

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def ndim(self) -> int:
        """Two."""
        return 2

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        del copy  # what is read is nobody else's
        return self.take(np.arange(len(self))).astype(dtype or self.dtype, copy=False)

    def __getitem__(self, rows: Any) -> npt.NDArray[np.float32]:
        """Return some rows: by a number, a slice, a list, or an array of numbers or booleans."""
        picked = np.arange(len(self))[rows]
        return self.take(picked) if picked.ndim else np.asarray(self.take(picked[None])[0])

    def tensor(self, rows: Any = slice(None)) -> torch.Tensor:
        """Return some rows as a float32 tensor."""
        import torch

        return torch.from_numpy(self[rows])

    def take(
        self, rows: Rows, dtype: type[np.float32] | type[np.float16] = np.float32
    ) -> npt.NDArray[Any]:
        """Return (n, width) the rows of (n,) numbers, in their order.

        Args:
            rows: Their numbers.
            dtype: ``numpy.float16`` to have them as most cuts are stored, in half the memory;
                values that it cannot hold become infinite.

        Raises:
            CacheError: Some are not what was written, or cannot be read.
        """
        rows = np.asarray(rows, np.int64)
        out = np.empty((len(rows), self.shape[1]), dtype)
        if np.all(np.diff(rows) > 0):
            self._fill(rows, out)
        else:
            unique, back = np.unique(rows, return_inverse=True)
            np.take(self.take(unique, dtype), back, axis=0, out=out)
        return out

    def blocks(
        self, count: int, dtype: type[np.float32] | type[np.float16] = np.float32
    ) -> Iterator[npt.NDArray[Any]]:
        """Yield all rows in their order, at most ``count`` at a time."""
        for start in range(0, len(self), count):
            yield self.take(np.arange(start, min(start + count, len(self))), dtype)

    def damaged(self) -> Rows:
        """Return the rows that are not what was written, ascending.

        Raises:
            ValueError: The cache was opened without verification.
        """
        if self._checksums is None:
            raise ValueError("Open the cache with verify=True.")
        rows = np.arange(len(self))
        jobs = [job for stretch in self._stretches(rows) for job in self._cut_up(*stretch)]
        found = in_threads(lambda job: self._wrong(self._raw(*job[:2]), job[1]), jobs)
        return np.concatenate([np.empty(0, np.int64), *found])

    def _fill(self, rows: Rows, out: npt.NDArray[Any]) -> None:
        jobs = [
            job
            for segment, some, at in self._stretches(rows)
            for job in self._cut_up(
                segment, some, at, self._checksums is None and segment.place.dtype == out.dtype
            )
        ]

        def fill(job: tuple[Segment, Rows, int]) -> None:
            segment, wanted, at = job
            part = out[at : at + len(wanted)]
            if segment.place.dtype == out.dtype:
                self._read(segment, wanted, part)
                self._require_whole(part, wanted)
            else:
                raw = self._raw(segment, wanted)
                self._require_whole(raw, wanted)
                with np.errstate(over="ignore"):
                    part[:] = decoded(raw, segment.storage)

        if len(rows) and rows[-1] - rows[0] + 1 == len(rows):
            in_threads(fill, jobs)
        else:
            # Many small reads, between which two threads would only wait for each other.
            for job in jobs:
                fill(job)

    def _stretches(self, rows: Rows) -> Iterator[tuple[Segment, Rows, int]]:
        """Yield ``(segment, its rows among those wanted, their place)``."""
        owner = np.searchsorted(self._starts, rows, side="right") - 1
        for number in np.unique(owner):
            first, last = np.searchsorted(owner, [number, number + 1])
            yield self._segments[number], rows[first:last], int(first)

    def _cut_up(
        self, segment: Segment, rows: Rows, at: int, as_stored: bool = False
    ) -> Iterator[tuple[Segment, Rows, int]]:
        size = max(segment.place.row_bytes, 1)
        step = max(1, _BLOCK_BYTES // size)
        if as_stored and len(rows) * size > _BLOCK_BYTES:
            step = -(-len(rows) // THREADS)  # nothing is done with it but to read it
        for start in range(0, len(rows), step):
            yield segment, rows[start : start + step], at + start

    def _raw(self, segment: Segment, rows: Rows) -> npt.NDArray[Any]:
        place = segment.place
        raw = np.empty((len(rows), *place.shape), place.dtype)
        self._read(segment, rows, raw)
        return raw

    def _read(self, segment: Segment, rows: Rows, raw: npt.NDArray[Any]) -> None:
        """Fill (n, width) with stored rows."""
        place, handle = segment.place, segment.handle
        local = rows - segment.first + segment.start
        try:
            if len(local) and local[-1] - local[0] + 1 == len(local):
                place.read(handle, int(local[0]), raw)
            elif len(local):
                self._announce(segment, local)
                _read_scattered(handle, place, local, raw)
        except OSError as error:
            raise CacheError(
                f"The features {self.name} cannot be read: {error}.",
                hint="Look at the disk, or make them anew with layerscope extract.",
            ) from error

    def _announce(self, segment: Segment, local: Rows) -> None:
        """Have the system fetch rows that lie densely in one go."""
        size = segment.place.row_bytes
        span = (int(local[-1]) - int(local[0]) + 1) * size
        if span <= _DENSE * len(local) * size and hasattr(os, "posix_fadvise"):
            first = segment.place.offset + int(local[0]) * size
            os.posix_fadvise(segment.handle, first, span, os.POSIX_FADV_WILLNEED)

    def _require_whole(self, raw: npt.NDArray[Any], rows: Rows) -> None:
        wrong = self._wrong(raw, rows)
        if len(wrong):
            raise CacheError(
                f"Row {wrong[0]} of the features {self.name} is damaged: its bytes differ from "
                "their checksum.",
                hint="Run layerscope check cache on it; with --repair, extract computes such rows "
                "again.",
            )

    def _wrong(self, raw: npt.NDArray[Any], rows: Rows) -> Rows:
        return (
            rows[:0] if self._checksums is None else rows[checksums(raw) != self._checksums[rows]]
        )


def _read_scattered(handle: int, place: Extent, rows: Rows, raw: npt.NDArray[Any]) -> None:
    """Fill (n, width) with ascending rows, and small gaps between them only read along."""
    size = place.row_bytes
    flat = memoryview(raw.reshape(-1).view(np.uint8).data)
    edges = np.flatnonzero((np.diff(rows) - 1) * size > _GAP_BYTES) + 1
    starts, stops = [0, *edges.tolist()], [*edges.tolist(), len(rows)]
    for start, stop in zip(starts, stops, strict=True):
        first = int(rows[start])
        span = int(rows[stop - 1]) - first + 1
        if span == stop - start:
            at = place.offset + first * size
            if os.preadv(handle, [flat[start * size : stop * size]], at) != span * size:
                place.read(handle, first, raw[start:stop])  # which goes on, or says why not
        else:
            along = np.empty((span, *place.shape), place.dtype)
            place.read(handle, first, along)
            raw[start:stop] = along[rows[start:stop] - first]
