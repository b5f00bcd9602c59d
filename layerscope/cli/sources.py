"""``--data NAME=PATH``: which image source lies in which folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from layerscope.errors import SettingsError

if TYPE_CHECKING:
    from layerscope.nouns import Source


def open_pair(pair: str) -> Source:
    """Return the source that ``NAME=PATH`` names.

    Raises:
        SettingsError: A part of the pair is missing.
        UnknownNameError: No source has this name.
        SourceError: The folder is missing, empty or inconsistent.
    """
    from layerscope.data import open_source

    name, sign, path = pair.partition("=")
    if not (name and sign and path):
        raise SettingsError(
            f"--data {pair!r} does not say which source lies where.",
            hint="Write NAME=PATH, such as --data objects3d=data/objects3d.",
        )
    return open_source(name, Path(path))
