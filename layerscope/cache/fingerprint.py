"""The fingerprint: equal exactly when the same features would come out."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from layerscope.cache.layout import SCHEMA
from layerscope.cache.records import plain, to_json
from layerscope.types import Checkpoint, CutPoint, Preprocessing, Source

CAPTURE = 1
"""Counts changes of this package after which the same image gives other features. Versions of torch
change the last bits alone: they are in the settings, and another may go on with a cache."""
ANNOTATIONS = "annotations"
"""The ingredient that features do not depend on: a cache can be given another."""
VIEWS = "views"
"""The ingredient of a cache of augmented views alone: how many there are of each image, and how
they are drawn."""
VIEWS_OF = "views_of"
"""The attribute of such a cache: the name of the source that the images are of."""


def ingredients(
    checkpoint: Checkpoint,
    cuts: Sequence[CutPoint],
    source: Source,
    preprocessing: Preprocessing,
    *,
    decoder: str,
    precision: str,
    storage: str = "float16",
    limit: int | None = None,
    views: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return everything that determines the features and what they are asked, in JSON's own types.

    Batch size, threads and device are left out: they change the last bits of a sum at most, and
    whoever moves to another machine wants to go on with what is there.

    Args:
        checkpoint: The network's card.
        cuts: The cut points that are captured.
        source: The images, all of them, and what is known about them.
        preprocessing: The checkpoint's, as the source frames it.
        decoder: What decodes and resamples the images.
        precision: In which the network computes.
        storage: The type in which features are stored where it loses nothing.
        limit: Images of a smoke run, or None for all.
        views: ``count`` of each image and what determines them; None for images as they are.
    """
    recorded: dict[str, Any] = plain(
        {
            "schema": SCHEMA,
            "weights": checkpoint.sha256,
            "family": checkpoint.family,
            "architecture": checkpoint.architecture,
            "declared": {k: v for k, v in checkpoint.declared.items() if k != "family"},
            "cuts": [
                [cut.name, cut.module, cut.pooling, cut.width, cut.layout, cut.prefix_tokens]
                for cut in cuts
            ],
            "preprocessing": plain(preprocessing) | {"antialias": True},
            "decoder": decoder,
            "images": source.manifest,
            ANNOTATIONS: source.annotations,
            "precision": precision,
            "storage": storage,
            "capture": CAPTURE,
            "limit": limit,
        }
    )
    return recorded if views is None else recorded | {VIEWS: plain(views)}


def fingerprint_of(recorded: Mapping[str, Any]) -> str:
    """Return the sha256 of the ingredients' canonical JSON."""
    return hashlib.sha256(to_json(recorded).encode()).hexdigest()


def differences(there: Mapping[str, Any], asked: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the ingredients in which two caches differ, sorted."""
    return tuple(
        sorted(key for key in {*there, *asked} if there.get(key, ...) != asked.get(key, ...))
    )
