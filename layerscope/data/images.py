"""One image file, as RGB."""

from __future__ import annotations

import struct
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from layerscope.errors import SourceError

_UNREADABLE = (
    OSError,
    SyntaxError,  # Pillow's word for a broken PNG
    ValueError,
    EOFError,
    struct.error,
    Image.DecompressionBombError,
)


def read_image(path: Path) -> Image.Image:
    """Return the decoded image in RGB.

    Raises:
        SourceError: The file is missing, truncated or no image; the message names it.
    """
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except _UNREADABLE as error:
        raise SourceError(
            f"The image {str(path)!r} cannot be read: {_reason(error)}.",
            hint="Restore the file, or leave it out with --skip-bad-images.",
        ) from error


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "the file is not there"
    if isinstance(error, UnidentifiedImageError):
        return "it is no image of a known format"
    return str(error).rstrip(".")
