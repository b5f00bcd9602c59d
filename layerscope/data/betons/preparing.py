"""From the bytes of a ``.beton`` file to prepared images, compiled, on all workers at once.

JPEG is decoded by FFCV's ``imdecode``, which is libjpeg-turbo with its fast inverse transform;
everything behind it is what the default loader does. FFCV compiles the functions of a pipeline for
every loader anew, with liberties in floating point. These are compiled once and kept on the disk,
and without them.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba.core import imputils
from numba.extending import intrinsic

from layerscope.data import decoding, resampling
from layerscope.data.betons import layout
from layerscope.data.betons.layout import JPEG
from layerscope.data.decoding import MOST_PIXELS
from layerscope.data.resampling import PADDING, Bytes, Floats, resample

Samples = npt.NDArray[np.int64]
Addresses = npt.NDArray[np.uint64]

Resize = tuple[int, int, int]
"""(shorter side, 0, 0), (0, height, width), or zeros alone to leave an image as it is."""

DONE, REFUSED = 0, 1

_settings: Any = numba.config
MOST_THREADS: int = _settings.NUMBA_NUM_THREADS
"""numba starts no more than that, and refuses to be asked for more."""

_compiled = numba.njit(nogil=True, cache=True, error_model="numpy")
_written_out = numba.njit(nogil=True, error_model="numpy", inline="always")
"""For what has one caller: compiled with it, and not once more for itself."""
_in_parallel = numba.njit(nogil=True, cache=True, error_model="numpy", parallel=True)


@_compiled
def _resized(height: int, width: int, resize: Resize) -> tuple[int, int]:
    """Return the size of the whole resized image, as ``Preparation`` has it."""
    shorter, rows, columns = resize
    if shorter and width <= height:
        return shorter * height // width, shorter
    if shorter:
        return shorter, shorter * width // height
    return (rows, columns) if rows else (height, width)


@_compiled
def _middle(whole: int, part: int) -> int:
    """Return half the difference, rounded to the even neighbour as Python rounds."""
    half = (whole - part) // 2
    return half + ((whole - part) & half & 1)


@_compiled
def _two_bytes(data: Bytes, place: int) -> int:
    return int(data[place]) * 256 + int(data[place + 1])


@_compiled
def _jpeg_size(data: Bytes) -> tuple[int, int]:
    """Return (height, width) by the frame header of a JPEG file, zeros where there is none."""
    place = 2
    while place + 8 < len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker == 0xFF:
            place += 1
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return _two_bytes(data, place + 5), _two_bytes(data, place + 7)
        else:
            place += 2 + _two_bytes(data, place + 2)
    return 0, 0


def _decode_caller(
    _: Any, address: Any, source: Any, size: Any, height: Any, width: Any, to: Any
) -> Any:
    """Call the C function ``imdecode`` of FFCV by its address, for a whole image."""
    word, byte, half = ir.IntType(64), ir.IntType(8), ir.IntType(32)
    arguments = [byte.as_pointer(), word, half, half, byte.as_pointer(), *[half] * 6, byte, byte]
    kind = ir.FunctionType(half, arguments)

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        where, data, length, high, wide, buffer = values
        begin, out = (
            context.make_array(of)(context, builder, array).data
            for of, array in ((signature.args[1], data), (signature.args[5], buffer))
        )
        rows, columns = builder.trunc(high, half), builder.trunc(wide, half)
        no_crop_and_full_scale = [half(0), half(0), half(1), half(1), byte(0), byte(0)]
        return builder.call(
            builder.inttoptr(where, kind.as_pointer()),
            [begin, length, rows, columns, out, rows, columns, *no_crop_and_full_scale],
        )

    whole = numba.types.int64
    return numba.types.int32(whole, source, whole, whole, whole, to), generate


_decode: Any = intrinsic(_decode_caller)
"""``_decode(address, source, size, height, width, to)``, for compiled code alone: 0 if all went
well. Unlike a function of ``ctypes`` it lets the compiled code be kept on the disk."""


def _buffer_caster(_: Any, array: Any) -> Any:
    """Return the same array, as one that may be written to."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        kept: Any = imputils.impl_ret_borrowed
        return kept(context, builder, signature.return_type, values[0])

    return array.copy(readonly=False)(array), generate


_as_buffer: Any = intrinsic(_buffer_caster)
"""``_as_buffer(array)``, for compiled code alone: what only reads a buffer need not be compiled a
second time for a file."""


@_written_out
def _prepare_one(
    file: Bytes,
    begin: int,
    size: int,
    mode: int,
    height: int,
    width: int,
    decode: int,
    resize: Resize,
    kind: int,
    out: Bytes,
) -> int:
    rows, columns, _ = out.shape
    pixels = 3 * height * width
    if not 0 < pixels <= 3 * MOST_PIXELS:
        return REFUSED
    to = _resized(height, width, resize)
    if to[0] < rows or to[1] < columns:
        return REFUSED
    if mode == JPEG:
        data = file[begin : begin + size]
        # It would decode into another size, and leave the rest of the buffer as it was.
        if _jpeg_size(data) != (height, width):
            return REFUSED
        flat = np.empty(pixels + PADDING, np.uint8)
        if _decode(decode, data, len(data), height, width, flat) != 0:
            return REFUSED
    elif size != pixels or begin + pixels + PADDING > len(file):
        return REFUSED
    else:
        flat = _as_buffer(file)[begin : begin + pixels + PADDING]
    part = (_middle(to[0], rows), _middle(to[1], columns), rows, columns)
    resample(flat, height, width, to, part, kind, out.reshape(rows, 3 * columns))
    return DONE


def _stamp() -> str:
    """Return the sha256 of the files whose functions and numbers end up in the compiled code.

    numba keeps compiled code until the file changes that its function is in, whatever else that
    function calls.
    """
    files = [Path(str(module.__file__)) for module in (layout, decoding, resampling)]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def _stamped(stamp: str) -> Any:
    @_in_parallel
    def prepare(
        samples: Samples,
        metadata: npt.NDArray[Any],
        file: Bytes,
        places: Addresses,
        sizes: Addresses,
        decode: int,
        resize: Resize,
        kind: int,
        images: Bytes,
        refused: Bytes,
    ) -> None:
        _ = stamp  # what a function closes over is part of what its compiled code is kept under
        for i in numba.prange(len(samples)):
            entry = metadata[samples[i]]
            place = np.searchsorted(places, entry["data_ptr"])
            refused[i, 0] = _prepare_one(
                file,
                int(entry["data_ptr"]),
                int(sizes[place]),
                int(entry["mode"]),
                int(entry["height"]),
                int(entry["width"]),
                decode,
                resize,
                kind,
                images[i],
            )

    return prepare


prepare: Any = _stamped(_stamp())
"""``prepare(samples, metadata, file, places, sizes, decode, resize, kind, images, refused)``
decodes, resizes and crops ``samples``, (n,) int64, into ``images``, (n, h, w, 3) uint8. In
``refused``, (n, 1) uint8, it writes ``REFUSED`` where the default loader has to look, because
libjpeg-turbo complains or the image is smaller than the crop, and ``DONE`` elsewhere.

``metadata`` is that of the images; ``file`` all of its bytes; ``places`` and ``sizes`` are the
allocation table, sorted; ``decode`` is the address of FFCV's ``imdecode``; ``resize`` and ``kind``
say what happens to the whole image."""


@_in_parallel
def normalise(images: Bytes, means: Floats, stds: Floats, out: Floats) -> None:
    """Write ``(byte / 255 - mean) / std``, to the bits of the default loader.

    Args:
        images: (n, h, w, 3) uint8, contiguous.
        means: (w × 3,) float32, those of the channels again and again.
        stds: (w × 3,) float32.
        out: (n, h, w, 3) float32, contiguous.
    """
    # One loop in parallel and nothing else: numba would split up every operation on arrays.
    count, rows, columns, _ = images.shape
    size = 3 * columns
    lines, to = images.reshape(count, rows, size), out.reshape(count, rows, size)
    for i in numba.prange(count):
        for y in range(rows):
            for x in range(size):
                to[i, y, x] = (np.float32(lines[i, y, x]) / np.float32(255) - means[x]) / stds[x]
