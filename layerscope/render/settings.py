"""What is to be rendered."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from layerscope.errors import SettingsError

SMALLEST = {"objects": 1, "views": 1, "size": 16, "seed": 0, "samples": 1}


@dataclass(frozen=True, slots=True)
class RenderSettings:
    """What is to be rendered; two runs with equal settings give equal data.

    Raises:
        SettingsError: A number is below the least that makes sense.
    """

    objects: int = 400
    """Number of objects; a folder of meshes gives at most as many as it holds."""
    views: int = 50
    """Images of each object."""
    size: int = 128
    """Side of the square images in pixels."""
    seed: int = 0
    renderer: str = "mitsuba"
    """Name in the registry ``renderers``."""
    samples: int = 9
    """Light paths for each pixel; Mitsuba rounds up to a square number."""
    meshes: Path | None = None
    """Folder of the user's own meshes, one subfolder for each category, or None."""

    def __post_init__(self) -> None:
        for name, least in SMALLEST.items():
            value = getattr(self, name)
            if value < least:
                raise SettingsError(
                    f"The setting {name} is {value}.", hint=f"It must be at least {least}."
                )
