"""Writes a ``.beton`` file in one pass, sample after sample in row order.

FFCV's own writer forks, encodes every image anew and never returns where one cannot be read. This
one needs nothing of FFCV, and the same samples give the same bytes.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from layerscope.data.betons import layout
from layerscope.errors import DiskError

FIELDS = ((layout.IMAGE, "image"), (layout.INTEGER, "index"))
"""Type and name of what every sample holds: its image, and its row."""

ENTRY = layout.metadata_type([layout.PARTS[kind] for kind, _ in FIELDS])


class EncodedImage(NamedTuple):
    """An image as it is stored."""

    mode: int
    """``JPEG`` or ``RAW``."""
    width: int
    height: int
    data: bytes | npt.NDArray[np.uint8]
    """A JPEG file's bytes, or (height, width, 3) pixels."""

    @property
    def size(self) -> int:
        """How many bytes it takes."""
        return len(self.data) if isinstance(self.data, bytes) else self.data.nbytes


class BetonWriter:
    """A file in the making: called ``….beton.part`` until it is whole, and deleted if it never is.

    Used as a context: after :meth:`complete`, leaving it gives the file its name.

    Args:
        path: Where the file belongs.
        samples: How many there will be.
        page_size: A power of two, which is doubled as soon as a sample does not fit.

    Raises:
        DiskError: The file cannot be written.
    """

    def __init__(self, path: Path, samples: int, page_size: int = layout.PAGE) -> None:
        self.path = path
        self.part = path.with_name(path.name + ".part")
        self.page_size = page_size
        self._metadata = np.zeros(samples, ENTRY)
        self._allocations = np.zeros(samples, layout.ALLOCATION)
        self._rows = 0
        self._whole = False
        self._metadata_at = layout.HEADER.itemsize + len(FIELDS) * layout.DESCRIPTOR.itemsize
        self._at = layout.up_to(self._metadata_at + self._metadata.nbytes, page_size)
        with storing(self.path):
            self._file: BinaryIO = self.part.open("wb")

    def __enter__(self) -> BetonWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self._file.close()
            if kind is None and self._whole:
                with storing(self.path):
                    self.part.replace(self.path)
        finally:
            self.part.unlink(missing_ok=True)

    def add(self, sample: EncodedImage) -> None:
        """Store the next row.

        Raises:
            DiskError: The disk is full.
        """
        place = self._allocate(sample)
        with storing(self.path):
            self._file.seek(place)
            self._file.write(sample.data if isinstance(sample.data, bytes) else sample.data.data)
        row, self._rows, self._at = self._rows, self._rows + 1, place + sample.size
        self._metadata[row] = ((sample.mode, sample.width, sample.height, place), row)
        self._allocations[row] = (row, place, sample.size)

    def _allocate(self, sample: EncodedImage) -> int:
        """Return where the sample begins: here, or on the next page if this one has no room.

        What lies within small pages lies within large ones too, as these begin where every second
        one of those does; so pages may grow while the file is written.
        """
        assert sample.size <= layout.LARGEST_PAGE, "larger than any image that can be decoded"
        while sample.size > self.page_size:
            self.page_size *= 2
        left = layout.up_to(self._at, self.page_size) - self._at
        # A boundary itself is the beginning of a page that is empty.
        return self._at if sample.size <= left or not left else self._at + left

    def complete(self) -> None:
        """Write what comes before and behind the samples, once all are there.

        Raises:
            DiskError: The disk is full.
        """
        assert self._rows == len(self._metadata), "fewer samples than announced"
        header = np.zeros(1, layout.HEADER)
        header[0] = (layout.VERSION, len(FIELDS), self.page_size, self._rows, self._at)
        head = header.tobytes() + _descriptors().tobytes() + self._metadata.tobytes()
        with storing(self.path):
            self._file.seek(self._at)
            self._file.write(self._allocations.tobytes())
            self._file.seek(0)
            self._file.write(head)
            self._file.flush()
            os.fsync(self._file.fileno())
        self._whole = True


@contextmanager
def storing(path: Path) -> Iterator[None]:
    """Turn what goes wrong while a file is written into a DiskError that names it."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        reason = "the disk is full" if full else error.strerror or str(error)
        raise DiskError(
            f"{str(path)!r} cannot be written: {reason}.",
            hint="Make room, or choose another disk with -o, and repeat the command.",
        ) from error


def _descriptors() -> npt.NDArray[np.void]:
    descriptors = np.zeros(len(FIELDS), layout.DESCRIPTOR)
    for place, (kind, name) in enumerate(FIELDS):
        descriptors[place] = (kind, name.encode(), b"")
    return descriptors
