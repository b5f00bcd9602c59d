"""What the system says about the disk, as an error that names the cache."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from layerscope.cache.layout import part_of
from layerscope.errors import DiskError


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn what the system says about the disk into an error that names the cache."""
    try:
        yield
    except OSError as error:
        raise DiskError(
            f"{str(part_of(path))!r} cannot be written: {_reason(error)}.",
            hint="The rows that were written are safe; make room or mend the folder, and repeat "
            "the command.",
        ) from error


def _reason(error: OSError) -> str:
    # HDF5's own text runs over several lines, with the time and the file's name once more.
    return os.strerror(error.errno) if error.errno else str(error)
