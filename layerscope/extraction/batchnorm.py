"""Statistics from training images for BatchNorms whose file holds none, as slimmable networks'."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from layerscope.data import Loader, Preparation
from layerscope.errors import CheckpointError
from layerscope.models.batchnorm import calibrate, forget, without_statistics
from layerscope.types import CutModel, Source

_IMAGES = 4096
"""At most; many times the thousand or so of which BatchNorm statistics are usually recomputed."""
_SEED = 0


def batch_norm_ingredients(model: CutModel, source: Source, batch_size: int) -> dict[str, Any]:
    """Return what determines the statistics of BatchNorms that have none; nothing if all have.

    Raises:
        CheckpointError: Nothing was declared, or what was declared cannot be done.
    """
    mode = model.checkpoint.declared.get("batch_norm")
    if not without_statistics(model.module):
        if mode is not None:
            raise CheckpointError(
                f"{model.checkpoint.name} holds its BatchNorms' statistics; nothing stands in.",
                hint="Declare no batch_norm.",
            )
        return {}
    if mode is None:
        raise CheckpointError(
            f"{model.checkpoint.name} holds no statistics for its BatchNorms.",
            hint="Choose --declare batch_norm=recalibrate (over training images) or batch.",
        )
    if mode == "batch" and len(source.ids) % batch_size == 1:
        raise CheckpointError(
            f"With batches of {batch_size} the last one holds a single image, which has no "
            "statistics.",
            hint="Choose another --batch-size.",
        )
    # Which images train decides the statistics, and with them the features.
    seen = {"images": source.annotations} if mode == "recalibrate" else {}
    return {"batch_norm": {"statistics": mode, "batch_size": batch_size, **seen}}


@contextmanager
def calibrated(model: CutModel, loader: Loader, device: torch.device) -> Iterator[None]:
    """Give BatchNorms without statistics those of training images, and take them away again."""
    names = without_statistics(model.module)
    if model.checkpoint.declared.get("batch_norm") != "recalibrate":
        yield
        return
    train = np.flatnonzero(loader.request.source.splits == "train")
    chosen = np.random.default_rng(_SEED).permutation(train)[:_IMAGES]
    images = type(loader)(replace(loader.request, rows=chosen))
    try:
        with closing(_readable_batches(images, device)) as batches:
            calibrate(model.module, names, batches)
        yield
    finally:
        forget(model.module, names)


def _readable_batches(images: Loader, device: torch.device) -> Generator[Tensor, None, None]:
    preparation = Preparation(images.request.preprocessing)
    for rows, batch in images:
        valid = torch.from_numpy(~np.isin(rows, [bad.row for bad in images.bad]))
        if int(valid.sum()) > 1:  # a single image has no variance
            yield preparation.placed(batch[valid], device)
