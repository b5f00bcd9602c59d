"""The verb *extract*: one network over one image source, into a cache of pooled features."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from layerscope.cache import (
    CacheWriter,
    Header,
    Standing,
    annotate,
    cache_name,
    ingredients,
    standing,
)
from layerscope.calibration import statistics
from layerscope.capture import Network, capturing, drift, require_finite
from layerscope.data import BadImage, Loader, Reading, framed, loaders, thin
from layerscope.device import choose_device
from layerscope.errors import DiskError
from layerscope.nouns import CutModel, CutPoint, Existing, Precision, Source
from layerscope.stopwatch import Stopwatch

Status = Literal["written", "there", "annotated"]
Progress = Callable[..., None]
"""``progress(n, note="")``: so many rows were just stored, and what slows them down."""

_EARLIER = "It could not be read when this cache was begun."


@dataclass(frozen=True, slots=True)
class Plan:
    """What an extraction would write, and how much of it is there."""

    path: Path
    header: Header
    standing: Standing
    loader: Loader
    """What reads the rows that are left."""

    @property
    def bytes(self) -> int:
        """Size of the features of all rows and cuts."""
        return self.header.rows * self.header.row_bytes

    @property
    def remaining(self) -> int:
        """Rows that are still to be computed."""
        return self.header.rows - self.standing.rows_done


def require_room(plans: Sequence[Plan]) -> None:
    """Refuse extractions whose results the disks cannot hold together.

    Args:
        plans: Of all that is to be extracted; what is there already counts for nothing.

    Raises:
        DiskError: A disk has too little room.
    """
    needed: dict[Path, int] = {}
    for planned in plans:
        home = existing_parent(planned.path)
        needed[home] = needed.get(home, 0) + planned.remaining * planned.header.row_bytes
    for home, count in needed.items():
        free = shutil.disk_usage(home).free
        if free < count:
            raise DiskError(
                f"The features need {count:,} bytes and {str(home)!r} has {free:,} free.",
                hint="Free some space, choose another disk with -o, or fewer layers with --cuts.",
            )


def existing_parent(path: Path) -> Path:
    """Return the nearest folder above a path that is there: its disk is the path's."""
    return next(folder for folder in path.absolute().parents if folder.is_dir())


@dataclass(frozen=True, slots=True)
class ExtractReport:
    """What an extraction did."""

    path: Path
    status: Status
    """Whether rows were computed, the same cache was complete before, or only its splits, groups
    and targets were written anew."""
    rows: int
    resumed_from: int
    """Rows that an earlier run had left; 0 when this run made them all."""
    seconds: float
    images_per_second: float
    """Of the rows that this run computed; 0 when there were none."""
    waiting: float
    """Share of the time in which the network waited for images."""
    bad: tuple[BadImage, ...]
    """Images that could not be read, by their row in the cache."""
    bfloat16_difference: Mapping[str, float] | None
    """By cut and pooling: norm of the difference to float32 over the norm, on the first batch."""
    fingerprint: str


def plan(
    model: CutModel,
    source: Source,
    out: Path,
    *,
    cuts: Sequence[CutPoint] | None = None,
    batch_size: int = 64,
    device: str = "auto",
    precision: Precision = "float32",
    existing: Existing = "missing",
    limit: int | None = None,
    loader: str = "threads",
    workers: int | None = None,
    skip_bad: bool = False,
) -> Plan:
    """Return what :func:`extract` would do, without touching the network or writing anything.

    Args:
        model: A network with its cut points.
        source: From :func:`layerscope.data.open_source`.
        out: The folder for the cache.
        cuts: Some of the network's cut points, a cut once for each of its poolings; all in their
            usual pooling by default.
        batch_size: Images per forward pass; it matters to a network without BatchNorm statistics.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        precision: In which the network computes; features are stored in float32 either way.
        existing: What to do with a cache that is there.
        limit: At most this many rows, an equal share of every split, for a smoke run.
        loader: The name of a registered loader.
        workers: Its threads or processes; one for each processor by default.
        skip_bad: Leave out images that cannot be read, instead of stopping at the first.

    Raises:
        CheckpointError: The network lacks BatchNorm statistics and nothing was declared about it.
        CacheError: A cache is in the way that may not be touched.
        UnknownNameError: No loader has this name.
        DeviceError: The device is not there.
    """
    chosen = tuple(model.cuts if cuts is None else cuts)
    thinned = source if limit is None else thin(source, limit)
    reading = Reading(
        source=thinned,
        preprocessing=framed(model.checkpoint.preprocessing, source.framing),
        batch_size=batch_size,
        workers=workers,
        skip_bad=skip_bad,
        # Bytes are a quarter of what would have to travel, and a GPU normalises for nothing.
        normalised=choose_device(device).type == "cpu",
    )
    images = loaders[loader](reading)
    header = Header(
        checkpoint=model.checkpoint,
        cuts=chosen,
        source=thinned,
        ingredients=ingredients(
            model.checkpoint,
            chosen,
            source,
            reading.preprocessing,
            decoder=images.decoder,
            precision=precision,
            limit=limit,
        )
        | statistics(model, thinned, batch_size),
        settings={
            "precision": precision,
            "loader": loader,
            "decoder": images.decoder,
            "preprocessing": {**asdict(reading.preprocessing), "antialias": True},
            "versions": versions(),
        },
    )
    path = out / cache_name(model.checkpoint.name, source.name, limit)
    found = standing(path, header, existing)
    rest = replace(reading, rows=range(found.rows_done, header.rows))
    return Plan(path, header, found, type(images)(rest))


def extract(
    model: CutModel,
    source: Source,
    out: Path,
    *,
    cuts: Sequence[CutPoint] | None = None,
    batch_size: int = 64,
    device: str = "auto",
    precision: Precision = "float32",
    existing: Existing = "missing",
    limit: int | None = None,
    loader: str = "threads",
    workers: int | None = None,
    skip_bad: bool = False,
    progress: Progress = lambda rows, note="": None,
) -> ExtractReport:
    """Write the pooled features of every cut over every image, going on where a run stopped.

    The network runs in eval mode without gradients. Its parameters and buffers are hashed before
    the first batch, after it, and at the end: features of a network that changes are thrown away.

    Args:
        model: A network with its cut points; it is moved to the device.
        source: From :func:`layerscope.data.open_source`.
        out: The folder for the cache.
        cuts: Some of the network's cut points, a cut once for each of its poolings; all in their
            usual pooling by default.
        batch_size: Images per forward pass.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        precision: ``bfloat16`` computes under autocast and measures what that changes.
        existing: What to do with a cache that is there: keep, missing (go on) or replace.
        limit: At most this many rows, an equal share of every split, for a smoke run.
        loader: The name of a registered loader.
        workers: Its threads or processes; one for each processor by default.
        skip_bad: Leave out images that cannot be read, instead of stopping at the first.
        progress: Called after every batch with its number of rows and what slows them down.

    Raises:
        SourceError: An image cannot be read.
        CheckpointError: The network changes while it is read, or its features are not finite.
        CacheError: A cache is in the way, or another process is writing it.
        DiskError: The disk is full; finished rows are kept.
        DeviceError: The device is not there.
        UnknownNameError: No loader has this name.
    """
    target = choose_device(device)
    planned = plan(
        model,
        source,
        out,
        cuts=cuts,
        batch_size=batch_size,
        device=device,
        precision=precision,
        existing=existing,
        limit=limit,
        loader=loader,
        workers=workers,
        skip_bad=skip_bad,
    )
    if planned.standing.status == "there":
        if planned.standing.outdated:
            annotate(planned.path, planned.header)
        status: Status = "annotated" if planned.standing.outdated else "there"
        return _report(planned, status, Stopwatch(), None)
    watch = Stopwatch()
    with CacheWriter(planned.path, planned.header, existing) as writer:
        run = _run(model, planned, writer, target, precision, watch, progress)
    return _report(planned, "written", watch, run.difference)


def _run(
    model: CutModel,
    planned: Plan,
    writer: CacheWriter,
    device: torch.device,
    precision: Precision,
    watch: Stopwatch,
    progress: Progress,
) -> Network:
    """Fill the open cache and finish it."""
    cuts, loader = planned.header.cuts, planned.loader
    source = loader.reading.source
    with capturing(model, cuts, loader, device, precision) as network:
        with closing(iter(loader)) as batches:
            for rows, images in watch.waiting_for(batches):
                valid = ~np.isin(rows, [bad.row for bad in loader.bad])
                features = network.features(images, valid)
                require_finite(features, valid, [source.ids[row] for row in rows])
                writer.write(features, valid)
                progress(len(rows), note=watch.note())
        if network.changed():
            writer.discard()
            raise drift(model, "Its rows were thrown away")
    watch.stop()
    loading = {"batch_size": loader.reading.batch_size, "workers": loader.reading.crew}
    writer.finish({**planned.header.settings, **network.settings(), **loading})
    return network


def versions() -> dict[str, str]:
    """Return the versions of what the features went through."""
    from layerscope import __version__

    names = ("torch", "torchvision", "pillow", "numba", "numpy", "h5py")
    return {
        "layerscope": __version__,
        "python": platform.python_version(),
        **{name: version(name) for name in names},
    }


def _earlier(planned: Plan) -> tuple[BadImage, ...]:
    ids = planned.header.source.ids
    return tuple(BadImage(row, ids[row], _EARLIER) for row in planned.standing.skipped)


def _report(
    planned: Plan,
    status: Status,
    watch: Stopwatch,
    difference: Mapping[str, float] | None,
) -> ExtractReport:
    computed = planned.remaining
    return ExtractReport(
        path=planned.path,
        status=status,
        rows=planned.header.rows,
        resumed_from=planned.standing.rows_done if status == "written" else 0,
        seconds=watch.seconds,
        images_per_second=computed / watch.seconds if watch.seconds else 0.0,
        waiting=watch.share,
        bad=(*_earlier(planned), *planned.loader.bad),
        bfloat16_difference=difference,
        fingerprint=planned.header.fingerprint,
    )
