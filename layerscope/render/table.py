"""The table ``latents.csv``: one row for each image, in the order of objects and views."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from layerscope.render.catalogue import ObjectInstance
from layerscope.render.latents import Latents, draw_latents
from layerscope.render.settings import RenderSettings
from layerscope.render.splits import split_objects
from layerscope.rendered_set import HEADER
from layerscope.types import Split


@dataclass(frozen=True, slots=True)
class ImageRow:
    """One image of the data set."""

    instance: ObjectInstance
    view: int
    latents: Latents
    split: Split

    @property
    def image(self) -> str:
        """Path of the image relative to the data set's folder, with forward slashes."""
        return f"images/{self.instance.name}/{self.view:03d}.jpg"

    def cells(self) -> tuple[str, ...]:
        """Return the row as text; floats keep all their digits."""
        values = tuple(repr(value) for value in self.latents.values())
        return (self.image, self.instance.name, self.instance.category, *values, self.split)


def table(instances: Sequence[ObjectInstance], settings: RenderSettings) -> list[ImageRow]:
    """Return the rows of every view of every instance."""
    splits = split_objects(instances, settings.seed)
    return [
        ImageRow(
            instance, view, draw_latents(settings.seed, instance.index, view), splits[instance.name]
        )
        for instance in instances
        for view in range(settings.views)
    ]


def as_csv(rows: Iterable[ImageRow]) -> bytes:
    """Return the table with its header as CSV with Unix line ends."""
    memory = io.StringIO()
    writer = csv.writer(memory, lineterminator="\n")
    writer.writerow(HEADER)
    writer.writerows(row.cells() for row in rows)
    return memory.getvalue().encode()
