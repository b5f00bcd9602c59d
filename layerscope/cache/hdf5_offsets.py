"""Where in a file the bytes of a dataset lie, and reading and writing them there.

HDF5 stores a contiguous dataset as its rows, one after the other, from an offset on. Reading rows
by themselves goes around the library, whose selections of scattered rows are slow; and writing them
goes around it, because nothing but the rows then changes in the file.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from layerscope.errors import CacheError

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Extent:
    """The rows of one contiguous dataset."""

    offset: int
    """Of the first row, in bytes from the beginning of the file."""
    count: int
    shape: tuple[int, ...]
    """Of one row."""
    dtype: np.dtype[Any]

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return self.dtype.itemsize * int(np.prod(self.shape, dtype=np.int64))

    def read(self, handle: int, first: int, out: npt.NDArray[Any]) -> None:
        """Fill ``out``, (n, …) contiguous, with the rows from ``first`` on.

        Raises:
            OSError: The file ends before them.
        """
        view = memoryview(out.reshape(-1).view(np.uint8).data)
        at = self.offset + first * self.row_bytes
        while view:
            count = os.preadv(handle, [view], at)
            if not count:
                raise OSError("the file is shorter than it was")
            view, at = view[count:], at + count

    def write(self, handle: int, first: int, rows: npt.NDArray[Any]) -> None:
        """Write (n, …) rows from ``first`` on.

        Raises:
            OSError: The disk is full, say; some of the bytes may be there.
        """
        view = memoryview(np.ascontiguousarray(rows, self.dtype).reshape(-1).view(np.uint8).data)
        at = self.offset + first * self.row_bytes
        while view:
            count = os.pwrite(handle, view, at)
            view, at = view[count:], at + count


def extent_of(file: h5py.File, name: str) -> Extent:
    """Return where a dataset lies.

    Raises:
        CacheError: The file has none of this name, or it is not contiguous.
    """
    dataset = file.get(name)
    if not isinstance(dataset, h5py.Dataset):
        raise CacheError(f"{file.filename!r} has no dataset {name}.", hint="Extract it again.")
    offset = dataset.id.get_offset()
    if offset is None and dataset.size:
        raise CacheError(
            f"The dataset {name} of {file.filename!r} is not contiguous.",
            hint="It was written by another program; extract it again.",
        )
    dtype = np.dtype(np.bool_) if dataset.dtype == np.bool_ else dataset.dtype
    return Extent(offset or 0, dataset.shape[0], dataset.shape[1:], dtype)


def runs(rows: Rows, longest: int | None = None) -> Iterator[tuple[int, int, int]]:
    """Yield ``(place, first, count)`` of each stretch of consecutive numbers, or pieces of it.

    Examples:
        >>> list(runs(np.array([4, 5, 6, 9])))
        [(0, 4, 3), (3, 9, 1)]
    """
    if not len(rows):
        return
    edges = np.flatnonzero(np.diff(rows) != 1) + 1
    starts = np.concatenate(([0], edges))
    for start, stop in zip(starts, np.concatenate((edges, [len(rows)])), strict=True):
        for place in range(start, stop, longest or len(rows)):
            yield place, int(rows[place]), min(int(stop) - place, longest or len(rows))
