"""The verb *time_batches*: a few batches of an extraction, timed and thrown away."""

from __future__ import annotations

import resource
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np
import torch

from layerscope.extraction.capture import capturing
from layerscope.extraction.job import ExtractJob
from layerscope.runtime.timers import StageTimer

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


def time_batches(job: ExtractJob, batches: int = BATCHES) -> BatchTiming | None:
    """Run some batches through the network as extraction does, and keep nothing.

    Args:
        job: The extraction; batches of its rows are taken, evenly spaced.
        batches: How many are timed.

    Returns:
        What was measured, or None where no row is left to extract.

    Raises:
        SourceError: An image cannot be read.
    """
    reading, order = job.loader.request, job.loader.request.order
    if not len(order):
        return None
    wanted = min((1 + batches + AHEAD) * reading.batch_size, len(order))
    rows = order[np.arange(wanted) * len(order) // wanted]
    some = type(job.loader)(replace(reading, rows=rows))
    device, precision = job.device, job.settings.precision
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    watch, images = StageTimer(), 0
    with (
        capturing(job.model, job.header.cuts, some, device, precision, calibrate=False) as capture,
        closing(iter(some)) as source,
    ):
        for number, (given, batch) in enumerate(watch.waiting_for(source)):
            valid = ~np.isin(given, [bad.row for bad in some.bad])
            capture.features(batch, valid)
            images += len(given)
            if number == 0 and len(some.request) > 1:
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
        device_memory=torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None,
    )
