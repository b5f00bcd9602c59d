"""The verb *cka*: how alike the layers of one checkpoint, or of two, arrange the same images."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from torch import Tensor

from layerscope.cache import Cache
from layerscope.errors import EstimatorError, SettingsError
from layerscope.results.layer_cka import LayerCka
from layerscope.stats.cka import Read, cka
from layerscope.types import CutPoint, Definition, Split

IMAGES = 4096
"""Enough that the unbiased estimate varies by about 0.01; the cost grows with the square."""

DEFINITION = Definition(
    "cka",
    "maximise",
    "linear-unbiased-hsic1",
    frozenset({"rotation", "translation", "scale"}),
    "Kornblith et al. 2019 (1905.00414), eq. 4; Song et al. 2012, eq. 5",
)
"""Of the headline; the biased estimate is also unchanged by copies."""


def layer_cka(
    cache: Cache, other: Cache | None = None, *, split: Split = "test", images: int = IMAGES
) -> LayerCka:
    """Return linear CKA between every cut of a cache and every cut of it or of another.

    Features are read in blocks of rows, and of each cut no more than two are in memory.

    Args:
        cache: Whose cuts are the rows.
        other: Whose cuts are the columns; by default the same.
        split: Whose images.
        images: At most so many, evenly spaced among those of the split.

    Raises:
        SettingsError: The caches hold other images.
        EstimatorError: There are fewer than four images, or a feature is not finite.
    """
    rows = cache.rows_of(split)
    if other is not None:
        _require_same_images(cache, other, split)
    kept = np.unique(np.linspace(0, max(len(rows) - 1, 0), min(images, len(rows))).round())
    places = kept.astype(np.int64)
    caches = [cache] if other is None else [cache, other]
    readers = [_reader(one, cut, one.rows_of(split)[places]) for one in caches for cut in one.cuts]
    found = cka(readers, len(places))
    first = len(cache.cuts)
    columns = slice(0, first) if other is None else slice(first, None)
    return LayerCka(
        (cache.checkpoint, (other or cache).checkpoint),
        (cache.cuts, (other or cache).cuts),
        found.biased[:first, columns].numpy(),
        found.unbiased[:first, columns].numpy(),
        len(places),
        split,
        cache.source,
        DEFINITION.convention,
    )


def _require_same_images(cache: Cache, other: Cache, split: Split) -> None:
    own, others = (
        one.view(one.cuts[0].name, one.cuts[0].pooling).ids(split) for one in (cache, other)
    )
    if not np.array_equal(own, others):
        raise SettingsError(
            f"{str(cache.path)!r} and {str(other.path)!r} hold different {split} images.",
            hint="Extract both checkpoints from the same source; CKA compares images one by one.",
        )


def _reader(cache: Cache, cut: CutPoint, rows: npt.NDArray[np.int64]) -> Read:
    features = cache.features_of(cut)

    def read(start: int, stop: int) -> Tensor:
        block = features.tensor(rows[start:stop])
        if not bool(block.isfinite().all()):
            raise EstimatorError(
                f"Features of {cut.key!r} of {cache.checkpoint} are not finite.",
                hint="They may overflow half precision; extract the cut again in float32.",
            )
        return block

    return read
