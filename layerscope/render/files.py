"""Writing files so that they are either whole or not there."""

from __future__ import annotations

import errno
import io
from pathlib import Path

from PIL import Image as Pillow

from layerscope.errors import DiskError
from layerscope.render.renderer import Image

QUALITY = 92


def write_whole(file: Path, content: bytes) -> None:
    """Write a file under a temporary name and rename it.

    Raises:
        DiskError: The disk is full.
    """
    part = file.with_name(file.name + ".part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(content)
        part.replace(file)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        part.unlink(missing_ok=True)
        raise DiskError(
            f"The disk is full: {str(file)!r} could not be written.",
            hint="Make room and repeat the command; finished images are kept.",
        ) from error


def jpeg(image: Image) -> bytes:
    """Return the image as JPEG without chroma subsampling: two of the latents are hues."""
    memory = io.BytesIO()
    Pillow.fromarray(image).save(memory, format="JPEG", quality=QUALITY, subsampling=0)
    return memory.getvalue()


def png(image: Pillow.Image) -> bytes:
    """Return the image as PNG."""
    memory = io.BytesIO()
    image.save(memory, format="PNG")
    return memory.getvalue()
