"""The verb *time_batches*: a few batches of an extraction, timed and thrown away."""

from __future__ import annotations

import resource
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np
import torch

from layerscope.data import Loader
from layerscope.extraction.capture import capturing
from layerscope.runtime.device import choose_device
from layerscope.runtime.timers import StageTimer
from layerscope.types import CutModel, CutPoint, Precision

BATCHES = 4
"""Timed; one more goes before them, in which memory is claimed and code is compiled."""


AHEAD = 3
"""Batches that a loader prepares beforehand. As many stay unused at the end, or the time of those
that were ready at the beginning would count for nothing."""


@dataclass(frozen=True, slots=True)
class BatchTiming:
    """What a few batches tell about a whole extraction."""

    images: int
    """Timed ones."""
    images_per_second: float
    waiting: float
    """Share of the time in which the network waited for images."""
    memory: int
    """Peak bytes of this process."""
    device_memory: int | None
    """Peak bytes on the device, where it has memory of its own."""


def time_batches(
    model: CutModel,
    loader: Loader,
    cuts: Sequence[CutPoint],
    *,
    device: str = "auto",
    precision: Precision = "float32",
    batches: int = BATCHES,
) -> BatchTiming | None:
    """Run some batches through the network as extraction does, and keep nothing.

    Args:
        model: The network.
        loader: Of the rows that are to be extracted; some of them are taken, evenly spaced.
        cuts: That are to be captured.
        device: Where the network computes.
        precision: In which it computes.
        batches: How many are timed.

    Returns:
        What was measured, or None where no row is left to extract.

    Raises:
        SourceError: An image cannot be read.
    """
    target, order = choose_device(device), loader.reading.order
    if not len(order):
        return None
    wanted = min((1 + batches + AHEAD) * loader.reading.batch_size, len(order))
    rows = order[np.arange(wanted) * len(order) // wanted]
    some = type(loader)(replace(loader.reading, rows=rows))
    if target.type == "cuda":
        torch.cuda.reset_peak_memory_stats(target)
    watch, images = StageTimer(), 0
    with (
        capturing(model, cuts, some, target, precision, calibrate=False) as capture,
        closing(iter(some)) as source,
    ):
        for number, (given, batch) in enumerate(watch.waiting_for(source)):
            valid = ~np.isin(given, [bad.row for bad in some.bad])
            capture.features(batch, valid)
            images += len(given)
            if number == 0 and len(some.reading) > 1:
                watch.restart()
                images = 0
            if number == batches:
                break
    watch.stop()
    return BatchTiming(
        images=images,
        images_per_second=images / watch.seconds,
        waiting=watch.share,
        memory=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        device_memory=torch.cuda.max_memory_allocated(target) if target.type == "cuda" else None,
    )
