"""CRC-32 of every row: what tells a damaged feature from a feature.

The polynomial, and so every value, is zlib's; anybody can check a row with ``zlib.crc32(row)``. The
table method is Sarwate's, eight bytes at a time (Kounavis and Berry 2005, "A systematic approach to
building high performance software-based CRC generators"); four rows are worked on side by side,
because each step of one row waits for the step before.
"""

from __future__ import annotations

import zlib
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

_START = np.uint32(0xFFFFFFFF)
_BYTE = np.uint32(255)

_compiled = numba.njit(nogil=True, cache=True, error_model="numpy")


def checksums(rows: npt.NDArray[Any]) -> npt.NDArray[np.uint32]:
    """Return the (n,) CRC-32 of the bytes of each of (n, …) rows.

    Examples:
        >>> import zlib
        >>> rows = np.arange(6, dtype=np.float16).reshape(2, 3)
        >>> [zlib.crc32(row) for row in rows] == checksums(rows).tolist()
        True
    """
    found = np.empty(len(rows), np.uint32)
    if rows.size:
        flat = np.ascontiguousarray(rows).reshape(len(rows), -1)
        _checksums(flat.view(np.uint8), _TABLES, found)
    return found


def _tables() -> npt.NDArray[np.uint32]:
    tables = np.zeros((8, 256), np.uint32)
    # What zlib does to a byte, without its inversion of the sum before and after.
    tables[0] = [zlib.crc32(bytes([255 - byte])) ^ 0xFF000000 for byte in range(256)]
    for depth in range(1, 8):
        before = tables[depth - 1]
        tables[depth] = (before >> np.uint32(8)) ^ tables[0, before & _BYTE]
    return tables


_TABLES = _tables()


@_compiled
def _eight(crc: Any, rows: Any, row: int, at: int, tables: Any) -> Any:
    word = (
        np.uint32(rows[row, at])
        | np.uint32(rows[row, at + 1]) << np.uint32(8)
        | np.uint32(rows[row, at + 2]) << np.uint32(16)
        | np.uint32(rows[row, at + 3]) << np.uint32(24)
    )
    mixed = crc ^ word
    return (
        tables[7, mixed & _BYTE]
        ^ tables[6, (mixed >> np.uint32(8)) & _BYTE]
        ^ tables[5, (mixed >> np.uint32(16)) & _BYTE]
        ^ tables[4, mixed >> np.uint32(24)]
        ^ tables[3, rows[row, at + 4]]
        ^ tables[2, rows[row, at + 5]]
        ^ tables[1, rows[row, at + 6]]
        ^ tables[0, rows[row, at + 7]]
    )


@_compiled
def _rest(crc: Any, rows: Any, row: int, at: int, tables: Any) -> Any:
    for place in range(at, rows.shape[1]):
        crc = (crc >> np.uint32(8)) ^ tables[0, (crc ^ rows[row, place]) & _BYTE]
    return ~crc


@_compiled
def _checksums(rows: Any, tables: Any, found: Any) -> None:
    count, whole = len(rows), rows.shape[1] // 8 * 8
    for row in range(0, count // 4 * 4, 4):
        a = b = c = d = _START
        for at in range(0, whole, 8):
            a = _eight(a, rows, row, at, tables)
            b = _eight(b, rows, row + 1, at, tables)
            c = _eight(c, rows, row + 2, at, tables)
            d = _eight(d, rows, row + 3, at, tables)
        found[row] = _rest(a, rows, row, whole, tables)
        found[row + 1] = _rest(b, rows, row + 1, whole, tables)
        found[row + 2] = _rest(c, rows, row + 2, whole, tables)
        found[row + 3] = _rest(d, rows, row + 3, whole, tables)
    for row in range(count // 4 * 4, count):
        crc = _START
        for at in range(0, whole, 8):
            crc = _eight(crc, rows, row, at, tables)
        found[row] = _rest(crc, rows, row, whole, tables)
