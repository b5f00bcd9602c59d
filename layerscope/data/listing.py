"""What lies in a folder: classes, image files and their sizes, in a fixed order."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from layerscope.errors import SourceError

SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp", ".gif")
"""Endings of image files, in lower case: torchvision's, and GIF."""

MISSING = -1
"""Size of a file that is not there."""

_THREADS = 8
"""On a network file system a look at a file is a wait; eight go on at once."""
_CHUNK = 4096

_Identity = tuple[int, int]


class ImageFile(NamedTuple):
    """An image file."""

    path: str
    """Relative to the folder that was listed, with forward slashes."""
    size: int
    """In bytes; ``MISSING`` for a link to nothing."""


def require_folder(root: Path, *parts: str, hint: str) -> None:
    """Refuse a folder that is not there, or that lacks one of its parts: files or folders in it.

    Raises:
        SourceError: Something is missing.
    """
    if not root.is_dir():
        what = "is a file, not a folder" if root.exists() else "is not there"
        raise SourceError(f"The folder {str(root)!r} {what}.", hint=hint)
    for part in parts:
        if not (root / part).exists():
            raise SourceError(f"The folder {str(root)!r} has no {part}.", hint=hint)


def subfolders(folder: Path) -> tuple[str, ...]:
    """Return the names of the folders in a folder, sorted, without hidden ones.

    Raises:
        SourceError: A name is not UTF-8.
    """
    return tuple(sorted(entry.name for entry in _entries(folder) if _is_folder(entry)))


def image_files(folder: Path) -> list[ImageFile]:
    """Return the image files in a folder and all folders below, in torchvision's order.

    Links are followed; hidden files are no part of a data set.

    Raises:
        SourceError: A link leads back to a folder that it lies in, or a name is not UTF-8.
    """
    here, folders = list_folder(folder)
    above = (_identity(folder),)
    with ThreadPoolExecutor(_THREADS) as pool:
        below = pool.map(lambda name: list(_walk(folder / name, f"{name}/", above)), folders)
        found = [*here, *(it for part in below for it in part)]
    return sorted(found, key=lambda it: it.path.rpartition("/")[::2])


def file_sizes(root: Path, ids: Sequence[str]) -> npt.NDArray[np.int64]:
    """Return the (n,) sizes in bytes of files below a folder, ``MISSING`` for those not there."""
    base = os.fspath(root)
    chunks = [ids[start : start + _CHUNK] for start in range(0, len(ids), _CHUNK)]
    with ThreadPoolExecutor(_THREADS) as pool:
        sizes = pool.map(lambda chunk: [_size(f"{base}/{name}") for name in chunk], chunks)
        return np.fromiter((size for part in sizes for size in part), np.int64, len(ids))


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size  # noqa: PTH116  a million of them: a Path each is half the time
    except (FileNotFoundError, NotADirectoryError):
        return MISSING
    except OSError as error:
        raise _stat_error(path, error) from error


def _stat_error(path: str, error: OSError) -> SourceError:
    return SourceError(
        f"The file {path!r} cannot be looked at: {error.strerror}.",
        hint="Check its permissions, and whether it is a link that leads to itself.",
    )


def _walk(folder: Path, prefix: str, above: tuple[_Identity, ...]) -> Iterator[ImageFile]:
    here = _identity(folder)
    if here in above:
        raise SourceError(
            f"The folder {str(folder)!r} is a link that leads back to a folder that it lies in.",
            hint="Remove the link; its images would never end.",
        )
    files, folders = list_folder(folder, prefix)
    yield from files
    for name in folders:
        yield from _walk(folder / name, f"{prefix}{name}/", (*above, here))


def list_folder(folder: Path, prefix: str = "") -> tuple[list[ImageFile], list[str]]:
    """Return the image files and the folders in a folder itself, both sorted by name.

    The files' paths begin with the prefix, such as ``train/``.

    Raises:
        SourceError: A file cannot be looked at, or a name is not UTF-8.
    """
    files, folders = [], []
    for entry in _entries(folder):
        if _is_folder(entry):
            folders.append(entry.name)
        elif entry.name.lower().endswith(SUFFIXES):
            files.append(ImageFile(prefix + entry.name, _size(entry.path)))
    return files, folders


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError as error:
        raise _stat_error(entry.path, error) from error


def _identity(folder: Path) -> _Identity:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        visible = [entry for entry in entries if not entry.name.startswith(".")]
    for entry in visible:
        require_text(entry.name, folder)
    return sorted(visible, key=lambda entry: entry.name)


def require_text(name: str, folder: Path) -> None:
    """Refuse a file name that is no UTF-8 text: it could not be stored beside its features.

    Raises:
        SourceError: It is not.
    """
    try:
        name.encode()
    except UnicodeEncodeError:
        raise SourceError(
            f"The name {os.fsencode(name)!r} in {str(folder)!r} is not UTF-8.",
            hint="Rename the file, or the folder; convmv does it for many.",
        ) from None
