"""How a ``.beton`` file is laid out, version 2: what FFCV's own writer and reader agree on.

Everything is little-endian, in this order:

1. a header of 24 bytes (:data:`HEADER`);
2. for each field a descriptor of 1,041 bytes (:data:`DESCRIPTOR`): the number of its type, its
   name in ASCII, filled up with zeros, and 1,024 bytes of arguments, which are zero for images and
   numbers;
3. the metadata table: one entry for each sample, with one part for each field in their order,
   aligned as a C compiler would align it. A whole number or a real one lies there itself; of an
   image there are how it is stored, its width and height, and where its bytes begin in the file,
   13 bytes without gaps;
4. from a multiple of the page size on, the samples' bytes: no sample crosses a multiple of the page
   size, which is a power of two of at least 2 MiB;
5. the allocation table (:data:`ALLOCATION`), to the end of the file: for each piece of data whose
   it is, where it begins, and how long it is. The header says where the table begins.

An image is stored as the bytes of a JPEG file (mode 0), or as rows of red, green and blue (mode 1).
A field whose class is not one of FFCV's own has the type 255, and the file does not say how its
part of the metadata looks.

Source: ``types.py``, ``writer.py``, ``memory_allocator.py`` and ``fields/`` of ffcv 1.0.2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

VERSION = 2

JPEG, RAW = 0, 1
"""Modes of an image."""

FLOAT, INTEGER, IMAGE, BYTES, ARRAY, JSON, TENSOR, CUSTOM = 0, 1, 2, 3, 4, 5, 6, 255
"""Types of fields."""

PAGE = 1 << 23
"""What a page measures where no sample is larger: 8 MiB, as FFCV's writer has it."""

LARGEST_PAGE = 1 << 31
"""The largest power of two that the header can name."""

LONGEST_SIDE = (1 << 16) - 1
"""The longest side of an image in pixels: the metadata has two bytes for it."""

HEADER = np.dtype(
    [
        ("version", "<u2"),
        ("fields", "<u2"),
        ("page_size", "<u4"),
        ("samples", "<u8"),
        ("allocations_at", "<u8"),
    ]
)
DESCRIPTOR = np.dtype([("type", "u1"), ("name", "S16"), ("arguments", "V1024")])
ALLOCATION = np.dtype([("sample", "<u8"), ("at", "<u8"), ("size", "<u8")])

IMAGE_PART = np.dtype([("mode", "u1"), ("width", "<u2"), ("height", "<u2"), ("data_ptr", "<u8")])
"""By FFCV's own names."""
_SPAN = np.dtype([("at", "<u8"), ("size", "<u8")])

PARTS: dict[int, np.dtype[Any]] = {
    FLOAT: np.dtype("<f8"),
    INTEGER: np.dtype("<i8"),
    IMAGE: IMAGE_PART,
    BYTES: _SPAN,
    ARRAY: np.dtype("<u8"),
    JSON: _SPAN,
    TENSOR: np.dtype("<u8"),
}
"""By type of a field: its part of the metadata."""


def metadata_type(parts: Sequence[np.dtype[Any]]) -> np.dtype[Any]:
    """Return the type of one entry of the metadata; its parts are called ``f0``, ``f1`` and so on.

    Examples:
        >>> metadata_type([IMAGE_PART, PARTS[INTEGER]]).itemsize
        24
    """
    return np.dtype([("", part) for part in parts], align=True)


def up_to(position: int, page: int) -> int:
    """Return the first multiple of the page size that is not before a position.

    Examples:
        >>> up_to(1, 8), up_to(8, 8)
        (8, 8)
    """
    return math.ceil(position / page) * page
