"""Opens a packed source: its images from the ``.beton`` file, all else from what lies beside it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from layerscope.data.betons.beton import Beton
from layerscope.data.betons.images import BetonImages
from layerscope.data.betons.sidecar import read_sidecar, sidecar_of
from layerscope.data.betons.writer import FIELDS
from layerscope.errors import SourceError
from layerscope.types import Source


def open_beton(path: Path) -> Source:
    """Return the source that ``layerscope pack`` wrote into a file, as it was then.

    Raises:
        SourceError: One of the two files is missing or damaged, or they do not belong together.
    """
    beton = Beton(path)
    source, identity, _ = read_sidecar(path)
    if beton.identity != identity or beton.samples != len(source.ids):
        raise SourceError(
            f"{str(path)!r} and {sidecar_of(path).name!r} do not belong together.",
            hint="Copy both files from the same place, or pack the source again.",
        )
    index = FIELDS[1][1]
    if index not in beton.integers or (beton.integer(index) != np.arange(beton.samples)).any():
        raise SourceError(
            f"The rows of {str(path)!r} are not in the order of its source.",
            hint="Pack the source again.",
        )
    return replace(
        source, images=BetonImages.whole(beton, names=source.ids, missing=source.missing)
    )


def open_packed(name: str, path: Path, *, allow_missing: bool = False) -> Source:
    """Return a packed source by its name: what ``--data NAME=PATH.beton`` means.

    With ``allow_missing``, images that were unreadable when they were packed may be absent.

    Raises:
        SourceError: Another source was packed into the file, a file is missing or damaged, or an
            image is absent.
    """
    source = open_beton(path)
    if source.name != name:
        raise SourceError(
            f"{str(path)!r} was packed from {source.name!r}, not from {name!r}.",
            hint=f"Write --data {source.name}={path}.",
        )
    if source.missing and not allow_missing:
        row, reason = min(source.missing.items())
        others = f", and {len(source.missing) - 1:,} more" if len(source.missing) > 1 else ""
        raise SourceError(
            f"{source.ids[row]!r} could not be read when {str(path)!r} was packed: "
            f"{reason}{others}.",
            hint="Restore the images and pack again, or leave them out with --skip-bad-images.",
        )
    return source
