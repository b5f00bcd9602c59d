"""Augmented views as a source of their own: each image several times, each time otherwise.

The views of an image are consecutive rows, with its split, its group and its targets, so row ``r``
of a source with N views is view ``r mod N`` of image ``r div N``. Images are augmented where they
are read: loaders, shards and resumed runs see nothing but other pixels.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from layerscope.data.augmentation import Augmentation, augmentations, draw_view, generator
from layerscope.data.decoding import Decoder
from layerscope.data.images import images_of
from layerscope.data.resampling import KINDS, Pixels
from layerscope.errors import SettingsError
from layerscope.types import Images, Preprocessing, Source

_DECODER = Decoder()
"""One for all: it has a buffer for each thread, and nothing of it would cross to a process."""


@dataclass(frozen=True, slots=True)
class ViewSettings:
    """Which augmented views of each image are wanted."""

    count: int
    augmentation: str = "simclr"
    """A registered name."""
    seed: int = 0

    def as_record(self) -> dict[str, Any]:
        """Return what determines the views' pixels beside the images, for the fingerprint.

        Raises:
            UnknownNameError: No augmentation has this name.
        """
        kind = augmentations[self.augmentation]
        return {"count": self.count, "augmentation": asdict(kind), "seed": self.seed}


@dataclass(frozen=True, slots=True)
class ViewedImages:
    """Reads augmented views of other images, as pixels.

    Args:
        images: The images that are augmented.
        ids: (m,) their names, by which what is drawn is seeded.
        rows: (n,) image times ``views`` plus number of the view, of each row.
        views: The number of views of each image.
        augmentation: The ranges that views are drawn from.
        seed: The seed of all views.
        size: (height, width) of a view.
        kind: ``BILINEAR`` or ``BICUBIC``.
    """

    images: Images
    ids: tuple[str, ...]
    rows: npt.NDArray[np.int64]
    views: int
    augmentation: Augmentation
    seed: int
    size: tuple[int, int]
    kind: int

    def read(self, row: int) -> Pixels:
        image, view = divmod(int(self.rows[row]), self.views)
        pixels = _DECODER.decode(self.images.read(image), self.images.place(image)).pixels
        draws = generator(self.seed, self.ids[image], view)
        return draw_view(pixels, self.augmentation, self.size, self.kind, draws)

    def place(self, row: int) -> str:
        return self.images.place(int(self.rows[row]) // self.views)

    def select(self, rows: npt.NDArray[np.int64]) -> ViewedImages:
        return replace(self, rows=self.rows[rows])


def with_views(
    source: Source, preprocessing: Preprocessing, views: ViewSettings
) -> tuple[Source, Preprocessing]:
    """Return the views of a source's images as a source, and what is left to be done to them.

    A view is cropped to the network's input size itself, so of the preprocessing only the
    normalisation is left, and its filter, by which the crop is resized.

    Args:
        source: The images.
        preprocessing: The checkpoint's, as the source frames it.
        views: How many views to make, and of which kind.

    Raises:
        SettingsError: The preprocessing leaves images unequal.
        UnknownNameError: No augmentation has this name.
    """
    size = _size(preprocessing)
    count = views.count
    images = ViewedImages(
        images=images_of(source),
        ids=source.ids,
        rows=np.arange(count * len(source.ids)),
        views=count,
        augmentation=augmentations[views.augmentation],
        seed=views.seed,
        size=size,
        kind=KINDS[preprocessing.interpolation],
    )
    return (
        replace(
            source,
            # The same network on the same images: only so are its scores kept beside the others.
            name=f"{source.name}.views{count}",
            views_of=source.name,
            ids=tuple(f"{name}#{view}" for name in source.ids for view in range(count)),
            splits=np.repeat(source.splits, count),
            groups=np.repeat(source.groups, count),
            targets={name: np.repeat(it, count, axis=0) for name, it in source.targets.items()},
            task_splits={name: np.repeat(it, count) for name, it in source.task_splits.items()},
            images=images,
            missing={
                row * count + view: reason
                for row, reason in source.missing.items()
                for view in range(count)
            },
        ),
        replace(preprocessing, resize=size, crop=None),
    )


def _size(preprocessing: Preprocessing) -> tuple[int, int]:
    side = preprocessing.crop or preprocessing.resize
    if side is None:
        raise SettingsError(
            "Views are crops of the network's input size, and the checkpoint's preprocessing says "
            "none.",
            hint="Give its card a resize or a crop, or leave --views out.",
        )
    return (side, side) if isinstance(side, int) else side
