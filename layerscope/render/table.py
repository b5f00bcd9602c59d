"""The table ``latents.csv``: one row for each image, in the order of objects and views."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from layerscope.render.catalogue import Item
from layerscope.render.latents import LATENTS, Latents, draw_latents
from layerscope.render.settings import RenderSettings
from layerscope.render.splits import split_objects
from layerscope.types import Split

HEADER = ("image", "object", "category", *LATENTS, "split")


@dataclass(frozen=True, slots=True)
class Row:
    """One image of the data set."""

    item: Item
    view: int
    latents: Latents
    split: Split

    @property
    def image(self) -> str:
        """Path of the image relative to the data set's folder, with forward slashes."""
        return f"images/{self.item.name}/{self.view:03d}.jpg"

    def cells(self) -> tuple[str, ...]:
        """Return the row as text; floats keep all their digits."""
        values = tuple(repr(value) for value in self.latents.values())
        return (self.image, self.item.name, self.item.category, *values, self.split)


def table(items: Sequence[Item], settings: RenderSettings) -> list[Row]:
    """Return the rows of every view of every item."""
    splits = split_objects(items, settings.seed)
    return [
        Row(item, view, draw_latents(settings.seed, item.index, view), splits[item.name])
        for item in items
        for view in range(settings.views)
    ]


def as_csv(rows: Iterable[Row]) -> bytes:
    """Return the table with its header as CSV with Unix line ends."""
    memory = io.StringIO()
    writer = csv.writer(memory, lineterminator="\n")
    writer.writerow(HEADER)
    writer.writerows(row.cells() for row in rows)
    return memory.getvalue().encode()
