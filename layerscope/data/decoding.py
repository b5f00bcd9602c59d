"""An image file's bytes as pixels: JPEG by libjpeg-turbo, everything else by Pillow.

simplejpeg decodes JPEG straight into a buffer that is used again and again, with the same library
and settings as Pillow, so the bytes are the same (a test compares them); where it is not installed
Pillow decodes JPEG as well. EXIF orientation is not applied: neither torchvision nor the code that
published networks were trained with does so.
"""

from __future__ import annotations

import io
import struct
import threading
from dataclasses import dataclass
from types import ModuleType

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from layerscope.data.resampling import PADDING, Pixels
from layerscope.errors import SourceError

try:
    import simplejpeg as _simplejpeg
except ImportError:  # optional where nothing can be installed: slower, and the same pixels
    _simplejpeg = None

MOST_PIXELS = 178_956_970
"""Larger images are refused, as Pillow takes them for decompression bombs (half a gigabyte)."""

_JPEG = b"\xff\xd8\xff"
_STILL = ("JPEG", "MPO")
"""Formats whose first picture is the image: what cameras append to it is a preview or a depth."""
_DEEP = ("I", "F")
"""First letters of Pillow's modes with more than 8 bits: their conversion to RGB clips."""
_UNREADABLE = (
    OSError,
    SyntaxError,  # Pillow's word for a broken PNG
    ValueError,
    EOFError,
    IndexError,
    struct.error,
    OverflowError,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)
_HINT = "Restore the file, or leave it out with --skip-bad-images."


@dataclass(frozen=True, slots=True)
class Raster:
    """A decoded image at the beginning of a buffer."""

    flat: npt.NDArray[np.uint8]
    """At least ``3 * height * width + PADDING`` bytes."""
    height: int
    width: int

    @property
    def pixels(self) -> Pixels:
        """(height, width, 3) red, green and blue: a view of the buffer."""
        size = 3 * self.height * self.width
        return self.flat[:size].reshape(self.height, self.width, 3)


class Decoder:
    """Decodes into a buffer of its own for each thread: a raster is good until the thread's next.

    Examples:
        >>> pixels = np.zeros((2, 3, 3), np.uint8)
        >>> Decoder().decode(pixels, "a picture").pixels.shape
        (2, 3, 3)
    """

    def __init__(self, jpeg: ModuleType | None = _simplejpeg) -> None:
        self._jpeg = jpeg
        self._local = threading.local()

    def decode(self, image: bytes | Pixels, place: str) -> Raster:
        """Return the pixels of an image.

        Args:
            image: A file's bytes, or (h, w, 3) pixels.
            place: What to call it in a message.

        Raises:
            SourceError: The bytes are no image, are truncated, or hold what 8 bits of red, green
                and blue cannot say.
        """
        if isinstance(image, np.ndarray):
            return self._copied(image, place)
        try:
            return self.ordinary_jpeg(image) or self._copied(_by_pillow(image), place)
        except _UNREADABLE as error:
            raise unreadable(place, _reason(error, image)) from error

    def ordinary_jpeg(self, data: bytes) -> Raster | None:
        """Return the pixels of a JPEG that decodes without a complaint; None for all others.

        Those are for Pillow to look at: other colour spaces, damage, bombs, and everything where
        simplejpeg is not installed.
        """
        if self._jpeg is None or not data.startswith(_JPEG):
            return None
        try:
            height, width, space, _ = self._jpeg.decode_jpeg_header(data)
            if space in ("CMYK", "YCCK") or height * width > MOST_PIXELS:
                return None
            flat = self._buffer(3 * height * width + PADDING)
            self._jpeg.decode_jpeg(data, buffer=flat)
        except ValueError:
            return None  # Pillow knows whether the damage matters, and says what it is
        return Raster(flat, height, width)

    def _copied(self, pixels: Pixels, place: str) -> Raster:
        if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
            raise unreadable(place, f"it is {pixels.dtype} of shape {pixels.shape}")
        height, width, _ = pixels.shape
        raster = Raster(self._buffer(pixels.size + PADDING), height, width)
        raster.pixels[:] = pixels
        return raster

    def _buffer(self, size: int) -> npt.NDArray[np.uint8]:
        held: npt.NDArray[np.uint8] | None = getattr(self._local, "buffer", None)
        if held is None or len(held) < size:
            held = self._local.buffer = np.empty(size, np.uint8)
        return held


def unreadable(place: str, reason: str) -> SourceError:
    """Return the error for an image that cannot be read."""
    return SourceError(f"The image {place!r} cannot be read: {reason}.", hint=_HINT)


def _by_pillow(data: bytes) -> Pixels:
    with Image.open(io.BytesIO(data)) as image:
        if getattr(image, "n_frames", 1) > 1 and image.format not in _STILL:
            raise ValueError(f"it is animated, with {getattr(image, 'n_frames', 0)} frames")
        if image.mode.startswith(_DEEP):
            raise ValueError(
                f"it has more than 8 bits a channel (mode {image.mode}), and nothing tells which "
                "of them to show"
            )
        # Transparency is dropped either way; left in, it only makes Pillow warn.
        image.info.pop("transparency", None)
        return np.asarray(image.convert("RGB"))


def _reason(error: Exception, data: bytes) -> str:
    if not data:
        return "the file is empty"
    if isinstance(error, UnidentifiedImageError):
        return "it is no image of a known format"
    return str(error).rstrip(".") or type(error).__name__
