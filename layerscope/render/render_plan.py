"""What a run would write, for those who want to know before."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from layerscope.render.catalogue import catalogue
from layerscope.render.settings import RenderSettings
from layerscope.render.table import as_csv, table
from layerscope.types import SPLITS

BYTES_PER_SIDE = 26.0
BYTES_PER_PIXEL = 0.02
"""A JPEG file's size, measured at 64, 128 and 256 pixels: without grain, outlines take most."""


@dataclass(frozen=True, slots=True)
class RenderPlan:
    """The size of a data set that is still to be rendered."""

    objects: int
    images: int
    """Rows of the table ``latents.csv``."""
    bytes: int
    """An estimate, exact for the table and rough for the images."""
    categories: dict[str, int]
    """Objects by category."""
    splits: dict[str, int]
    """Images by split."""


def plan(settings: RenderSettings) -> RenderPlan:
    """Return what ``render_dataset`` would write with these settings."""
    instances = catalogue(settings)
    rows = table(instances, settings)
    splits = Counter(row.split for row in rows)
    image = round(BYTES_PER_SIDE * settings.size + BYTES_PER_PIXEL * settings.size**2)
    return RenderPlan(
        objects=len(instances),
        images=len(rows),
        bytes=len(as_csv(rows)) + image * len(rows),
        categories=dict(sorted(Counter(instance.category for instance in instances).items())),
        splits={split: splits[split] for split in SPLITS},
    )
