"""Room on the disk: asked for before the first row, not found missing hours later."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from layerscope.errors import DiskError
from layerscope.extraction.job import ExtractJob


def require_room(jobs: Sequence[ExtractJob], unplanned: int = 0) -> None:
    """Refuse extractions whose results the disks cannot hold together.

    Args:
        jobs: Of all that is to be extracted; what is there already counts for nothing.
        unplanned: How many more there are, each taken to need what one of these does on average.

    Raises:
        DiskError: A disk has too little room.
    """
    needed: dict[Path, int] = {}
    for job in jobs:
        home = existing_parent(job.path)
        needed[home] = needed.get(home, 0) + job.bytes_left
    for home, planned in needed.items():
        count = planned + planned * unplanned // len(jobs)
        free = shutil.disk_usage(home).free
        if free < count:
            raise DiskError(
                f"The features need {count:,} bytes and {str(home)!r} has {free:,} free.",
                hint="Free some space, choose another disk with -o, or fewer layers with --cuts.",
            )


def existing_parent(path: Path) -> Path:
    """Return the nearest folder above a path that is there: its disk is the path's."""
    return next(folder for folder in path.absolute().parents if folder.is_dir())
