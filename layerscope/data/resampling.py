"""Resizing that gives Pillow's own bytes, for the crop alone and without Pillow's detours.

A network looks at the crop, so only the crop is computed, and its values go straight from the
decoder's buffer into the batch. The arithmetic is that of Pillow's resampling of 8-bit images:
weights of a separable, antialiased filter in fixed point with 22 fractional bits, first along rows
and then along columns, rounded to 8 bits in between. Pillow 13 takes columns first where an image
loses more than twice as many rows as columns, which changes some values by one; published numbers
were made with rows first, so that is what is done here, whatever Pillow is installed.
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba.extending import intrinsic

Pixels = npt.NDArray[np.uint8]
"""(h, w, 3) red, green and blue."""

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Counts = npt.NDArray[np.int32]
Weights = npt.NDArray[np.int32]
Places = npt.NDArray[np.int64]
Part = tuple[int, int, int, int]
"""(top, left, rows, columns) within a resized image."""

BILINEAR, BICUBIC = 0, 1
KINDS = {"bilinear": BILINEAR, "bicubic": BICUBIC}

_AT_ONCE = 3
"""Taps that are summed in one go: an image that shrinks less than twofold has just three."""

PADDING = 3 * (_AT_ONCE - 1) + 1
"""Bytes that must lie behind an image in its buffer: taps that fill up a go are read, weighted by
zero, and pixels are moved as words of four bytes."""

_BITS = 22
"""Fractional bits of a weight: 8 bits of a pixel and 2 of headroom leave so many of 32."""
_HALF = 1 << (_BITS - 1)

_compiled = numba.njit(nogil=True, cache=True, error_model="numpy")


def _word_mover(_: Any, to: Any, to_byte: Any, source: Any, byte: Any) -> Any:
    """Copy four bytes between arrays of bytes, at any address: one pixel, and a byte too many."""

    def place_of(context: Any, builder: Any, kind: Any, array: Any, offset: Any) -> Any:
        data = context.make_array(kind)(context, builder, array).data
        return builder.bitcast(builder.gep(data, [offset]), ir.IntType(32).as_pointer())

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array, offset, origin, at = arguments
        word = builder.load(place_of(context, builder, signature.args[2], origin, at))
        word.align = 1
        builder.store(word, place_of(context, builder, signature.args[0], array, offset), align=1)
        return context.get_dummy_value()

    return numba.void(to, numba.uintp, source, numba.uintp), generate


_move_word: Any = intrinsic(_word_mover)
"""``_move_word(to, to_byte, source, byte)``, for compiled code alone."""


@_compiled
def _weight(kind: int, distance: float) -> float:
    x = abs(distance)
    if kind == BILINEAR:
        return 1.0 - x if x < 1.0 else 0.0
    # Keys (1981), "Cubic convolution interpolation", with a = -0.5.
    if x < 1.0:
        return ((-0.5 + 2.0) * x - (-0.5 + 3.0)) * x * x + 1.0
    if x < 2.0:
        return (((x - 5.0) * x + 8.0) * x - 4.0) * -0.5
    return 0.0


@_compiled
def _kernel(
    size: int, target: int, first: int, count: int, kind: int
) -> tuple[Places, Places, Weights]:
    """Return where the windows of ``count`` outputs begin, their lengths, and their weights.

    Weights are (taps, count), with a multiple of ``_AT_ONCE`` taps: those behind a window are zero.
    """
    scale = size / target
    stretch = max(scale, 1.0)
    support = (1.0 if kind == BILINEAR else 2.0) * stretch
    exact = np.zeros((math.ceil(support) * 2 + 1, count), np.float64)
    begins, lengths = np.empty(count, np.int64), np.empty(count, np.int64)
    for i in range(count):
        centre = (first + i + 0.5) * scale
        low = max(int(centre - support + 0.5), 0)
        high = min(int(centre + support + 0.5), size)
        total = 0.0
        for k in range(high - low):
            exact[k, i] = _weight(kind, (k + low - centre + 0.5) * (1.0 / stretch))
            total += exact[k, i]
        for k in range(high - low):
            exact[k, i] /= total
        begins[i], lengths[i] = low, high - low
    taps = (lengths.max() + _AT_ONCE - 1) // _AT_ONCE * _AT_ONCE
    weights = np.zeros((taps, count), np.int32)
    for k in range(lengths.max()):
        for i in range(count):
            value = exact[k, i] * (1 << _BITS)
            weights[k, i] = int(value - 0.5) if value < 0 else int(value + 0.5)
    return begins, lengths, weights


@_compiled
def _byte(total: int) -> np.uint8:
    return np.uint8(min(max(total >> _BITS, 0), 255))


@_compiled
def _along_rows(
    flat: Bytes, width: int, top: int, begins: Places, weights: Weights, narrow: Bytes
) -> None:
    """Resample ``len(narrow)`` rows of an image of ``width`` from ``top`` on.

    The pixels that an output needs lie in no vector register together. So for each tap they are
    first moved to where their outputs are, and then every product is one of neighbours.
    """
    taps, count = weights.shape
    size, pixel = 3 * count, np.uintp(3)
    thrice = np.empty((taps, size), np.int32)
    for k in range(taps):
        for x in range(count):
            thrice[k, 3 * x : 3 * x + 3] = weights[k, x]
    starts = np.empty(count, np.uintp)
    for x in range(count):
        starts[x] = 3 * begins[x]
    first, second, third = (
        np.empty(size + 1, np.uint8),
        np.empty(size + 1, np.uint8),
        np.empty(size + 1, np.uint8),
    )
    total = np.empty(size, np.int32)
    for y in range(narrow.shape[0]):
        total[:] = _HALF
        for k in range(0, taps, _AT_ONCE):
            base = np.uintp(3 * ((top + y) * width + k))
            for x in range(np.uintp(count)):
                at, to = base + starts[x], pixel * x
                _move_word(first, to, flat, at)
                _move_word(second, to, flat, at + pixel)
                _move_word(third, to, flat, at + pixel + pixel)
            a, b, c = thrice[k], thrice[k + 1], thrice[k + 2]
            for i in range(size):
                total[i] += (
                    a[i] * np.int32(first[i])
                    + b[i] * np.int32(second[i])
                    + c[i] * np.int32(third[i])
                )
        out = narrow[y]
        for i in range(size):
            out[i] = _byte(total[i])


@_compiled
def _column_totals(narrow: Bytes, begin: int, length: int, weights: Weights, total: Counts) -> None:
    total[:] = _HALF
    for k in range(length):
        weight, row = weights[k], narrow[begin + k]
        for i in range(len(total)):
            total[i] += weight * np.int32(row[i])


@_compiled
def _narrowed(
    flat: Bytes, height: int, width: int, to: tuple[int, int], part: Part, kind: int
) -> tuple[Bytes, Places, Places, Weights]:
    """Return the rows that the part needs, resampled to its columns, and its column kernel."""
    top, left, rows, columns = part
    from_x, _, weights_x = _kernel(width, to[1], left, columns, kind)
    from_y, lengths, weights_y = _kernel(height, to[0], top, rows, kind)
    first = from_y.min()
    narrow = np.empty(((from_y + lengths).max() - first, 3 * columns), np.uint8)
    _along_rows(flat, width, first, from_x, weights_x, narrow)
    from_y -= first
    return narrow, from_y, lengths, weights_y


@_compiled
def resample(
    flat: Bytes, height: int, width: int, to: tuple[int, int], part: Part, kind: int, out: Bytes
) -> None:
    """Resize an image to ``to`` and write the part of it that begins at (top, left).

    Args:
        flat: At least ``3 * height * width + PADDING`` uint8, the image first.
        height: The image's height in pixels.
        width: The image's width in pixels.
        to: (height, width) of the whole resized image.
        part: (top, left, rows, columns) within it.
        kind: ``BILINEAR`` or ``BICUBIC``, antialiased.
        out: (rows, 3 × columns) uint8, contiguous.
    """
    top, left, rows, columns = part
    if height == to[0] and width == to[1]:
        for y in range(rows):
            start = 3 * ((top + y) * width + left)
            out[y] = flat[start : start + 3 * columns]
        return
    narrow, begins, lengths, weights = _narrowed(flat, height, width, to, part, kind)
    total = np.empty(3 * columns, np.int32)
    for y in range(rows):
        _column_totals(narrow, begins[y], lengths[y], weights[:, y], total)
        row = out[y]
        for i in range(len(total)):
            row[i] = _byte(total[i])


@_compiled
def resample_normalised(
    flat: Bytes,
    height: int,
    width: int,
    to: tuple[int, int],
    part: Part,
    kind: int,
    mean: Floats,
    std: Floats,
    out: Floats,
) -> None:
    """Do as :func:`resample` does and write ``(byte / 255 - mean) / std``.

    ``mean`` and ``std`` are (3,) float32, by channel; ``out`` is (rows, 3 × columns) float32.
    """
    top, left, rows, columns = part
    size = 3 * columns
    means, stds = np.empty(size, np.float32), np.empty(size, np.float32)
    for x in range(columns):
        means[3 * x : 3 * x + 3] = mean
        stds[3 * x : 3 * x + 3] = std
    if height == to[0] and width == to[1]:
        for y in range(rows):
            start = 3 * ((top + y) * width + left)
            _normalise(flat[start : start + size], means, stds, out[y])
        return
    narrow, begins, lengths, weights = _narrowed(flat, height, width, to, part, kind)
    total, row = np.empty(size, np.int32), np.empty(size, np.uint8)
    for y in range(rows):
        _column_totals(narrow, begins[y], lengths[y], weights[:, y], total)
        for i in range(size):
            row[i] = _byte(total[i])
        _normalise(row, means, stds, out[y])


@_compiled
def _normalise(row: Bytes, means: Floats, stds: Floats, out: Floats) -> None:
    for i in range(len(row)):
        out[i] = (np.float32(row[i]) / np.float32(255) - means[i]) / stds[i]
