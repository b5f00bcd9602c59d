"""Where a source's images are read from: files in a folder, or arrays in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from layerscope.data.decoding import Decoder, unreadable
from layerscope.data.resampling import Pixels
from layerscope.types import Images, Source


@dataclass(frozen=True, slots=True)
class FileImages:
    """Image files: (n,) paths relative to a folder."""

    root: Path
    ids: Sequence[str]

    def read(self, row: int) -> bytes:
        path = self.root / self.ids[row]
        try:
            return path.read_bytes()
        except FileNotFoundError:
            raise unreadable(str(path), "the file is not there") from None
        except OSError as error:
            raise unreadable(str(path), error.strerror or str(error)) from error

    def place(self, row: int) -> str:
        return str(self.root / self.ids[row])

    def select(self, rows: npt.NDArray[np.int64]) -> FileImages:
        return FileImages(self.root, [self.ids[row] for row in rows])


@dataclass(frozen=True, slots=True)
class ArrayImages:
    """Images that lie in memory, decoded.

    Args:
        pixels: (n, h, w, 3) uint8.
        title: The name of the whole set, for messages.
    """

    pixels: npt.NDArray[np.uint8]
    title: str

    def read(self, row: int) -> Pixels:
        pixels: Pixels = self.pixels[row]
        return pixels

    def place(self, row: int) -> str:
        return f"{self.title}, image {row}"

    def select(self, rows: npt.NDArray[np.int64]) -> ArrayImages:
        return ArrayImages(self.pixels[rows], self.title)


def images_of(source: Source) -> Images:
    """Return what reads the images of a source."""
    return FileImages(source.root, source.ids) if source.images is None else source.images


def select_missing(missing: Mapping[int, str], rows: npt.NDArray[np.int64]) -> dict[int, str]:
    """Return what is wrong with images that cannot be read, by their places among some rows.

    Examples:
        >>> select_missing({7: "the file is empty"}, np.array([3, 7]))
        {1: 'the file is empty'}
    """
    return {place: missing[row] for place, row in enumerate(rows.tolist()) if row in missing}


def read_image(path: Path) -> Pixels:
    """Return the (h, w, 3) pixels of one image file.

    Raises:
        SourceError: The file is missing, truncated or no image; the message names it.
    """
    images = FileImages(path.parent, [path.name])
    return Decoder().decode(images.read(0), str(path)).pixels.copy()
