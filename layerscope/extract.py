"""The verb *extract*: one network over one image source, into a cache of pooled features."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from layerscope.cache import (
    CacheWriter,
    Header,
    Standing,
    cache_name,
    ingredients,
    standing,
)
from layerscope.calibration import calibrated, statistics
from layerscope.data import BadImage, Loader, Preparation, Reading, framed, loaders, thin
from layerscope.device import choose_device
from layerscope.errors import CheckpointError
from layerscope.models import open_taps
from layerscope.models.files.weights import sha256_of_tensors
from layerscope.models.taps import Taps, on_host
from layerscope.nouns import CutModel, CutPoint, Existing, Source
from layerscope.stopwatch import Stopwatch

Precision = Literal["float32", "bfloat16"]
Progress = Callable[..., None]
"""``progress(n, note="")``: so many rows were just stored, and what slows them down."""

Features = dict[str, npt.NDArray[np.float32]]

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


@dataclass(frozen=True, slots=True)
class ExtractReport:
    """What an extraction did."""

    path: Path
    status: Literal["written", "there"]
    """Whether rows were computed, or the same cache was complete before."""
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
        settings={"precision": precision, "loader": loader, "versions": versions()},
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
        return _report(planned, "there", Stopwatch(), None)
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
) -> _Network:
    """Fill the open cache and finish it."""
    cuts, loader = planned.header.cuts, planned.loader
    source = loader.reading.source
    with (
        _evaluating(model.module, device),
        calibrated(model, loader, device),
        open_taps(model, cuts) as taps,
        torch.inference_mode(),
    ):
        network = _Network(model, cuts, taps, device, precision, loader)
        with closing(iter(loader)) as batches:
            for rows, images in watch.waiting_for(batches):
                valid = ~np.isin(rows, [bad.row for bad in loader.bad])
                features = network.features(images, valid)
                _require_finite(features, valid, [source.ids[row] for row in rows])
                writer.write(features, valid)
                progress(len(rows), note=watch.note())
        if network.changed():
            writer.discard()
            raise _drift(model, "Its rows were thrown away")
    watch.stop()
    loading = {"batch_size": loader.reading.batch_size, "workers": loader.reading.crew}
    writer.finish({**planned.header.settings, **network.settings(), **loading})
    return network


class _Network:
    """The network as extraction uses it: batches in, arrays of pooled features out."""

    def __init__(
        self,
        model: CutModel,
        cuts: Sequence[CutPoint],
        taps: Taps,
        device: torch.device,
        precision: Precision,
        loader: Loader,
    ) -> None:
        self.difference: dict[str, float] | None = None
        self._preparation = Preparation(loader.reading.preprocessing)
        self._model = model
        self._cuts = cuts
        self._taps = taps
        self._device = device
        self._precision = precision
        self._state = state_hash(model.module)
        self._first = True

    def features(self, images: Tensor, valid: npt.NDArray[np.bool_]) -> Features:
        """Return (b, width) features by cut and pooling; rows of unreadable images are NaN."""
        if not valid.any():
            return {cut.key: _scattered(None, valid, cut) for cut in self._cuts}
        batch = self._placed(images if valid.all() else images[torch.from_numpy(valid)])
        pooled = self._forward(batch, self._precision)
        if self._first:
            self._inspect(batch, pooled)
        return {cut.key: _scattered(pooled[cut.key], valid, cut) for cut in self._cuts}

    def changed(self) -> bool:
        """Return whether a parameter or buffer differs from what it was at the start."""
        return state_hash(self._model.module) != self._state

    def settings(self) -> dict[str, Any]:
        """Return what belongs into the cache's record of how it was made."""
        return {
            "device": str(self._device),
            "state_sha256": self._state,
            "bfloat16_difference": self.difference,
        }

    def _placed(self, images: Tensor) -> Tensor:
        placed = self._preparation.placed(images, self._device)
        if self._device.type == "cpu":  # the layout in which convolutions on a CPU are fastest
            return placed.contiguous(memory_format=torch.channels_last)
        return placed

    def _forward(self, batch: Tensor, precision: Precision) -> dict[str, npt.NDArray[np.float32]]:
        half = precision == "bfloat16"
        with torch.autocast(self._device.type, torch.bfloat16, enabled=half):
            pooled = self._taps.run_poolings(batch)
        return on_host(pooled)

    def _inspect(self, batch: Tensor, pooled: Features) -> None:
        # After one batch rather than after an hour: most networks that drift do so at once.
        self._first = False
        if self.changed():
            raise _drift(self._model, "No row was written")
        if self._precision == "bfloat16":
            exact = self._forward(batch, "float32")
            self.difference = {
                name: relative_difference(pooled[name], exact[name]) for name in exact
            }


def _scattered(
    pooled: npt.NDArray[np.float32] | None, valid: npt.NDArray[np.bool_], cut: CutPoint
) -> npt.NDArray[np.float32]:
    if pooled is not None and pooled.shape != (valid.sum(), cut.width):
        raise CheckpointError(
            f"The cut {cut.name!r} gives features of shape {pooled.shape}, not "
            f"{(int(valid.sum()), cut.width)}.",
            hint="The cut point's width does not describe this network.",
        )
    if pooled is not None and valid.all():
        return pooled
    rows = np.full((len(valid), cut.width), np.nan, dtype=np.float32)
    if pooled is not None:
        rows[valid] = pooled
    return rows


def _require_finite(features: Features, valid: npt.NDArray[np.bool_], ids: Sequence[str]) -> None:
    for name, rows in features.items():
        wrong = np.flatnonzero(valid & ~np.isfinite(rows).all(axis=1))
        if wrong.size:
            raise CheckpointError(
                f"The cut {name.rpartition('@')[0]!r} gives features that are not finite for "
                f"{ids[wrong[0]]!r}.",
                hint="Look at the weights for NaN, or extract with --precision float32.",
            )


def _drift(model: CutModel, consequence: str) -> CheckpointError:
    return CheckpointError(
        f"The network {model.checkpoint.name!r} changed its own parameters or buffers while its "
        "features were read, so they cannot be trusted.",
        hint=f"{consequence}; find the layer that updates statistics in eval mode.",
    )


def state_hash(module: nn.Module) -> str:
    """Return the sha256 of all parameters and buffers, those outside the state dict too."""
    return sha256_of_tensors(dict(module.named_parameters()) | dict(module.named_buffers()))


def relative_difference(rows: npt.NDArray[np.float32], exact: npt.NDArray[np.float32]) -> float:
    """Return ``‖rows - exact‖ / ‖exact‖``, in float64; 0 when both are zero."""
    reference = np.asarray(exact, dtype=np.float64)
    norm = float(np.linalg.norm(reference))
    gap = float(np.linalg.norm(rows - reference))
    return gap / norm if norm else float(gap > 0)


@contextmanager
def _evaluating(module: nn.Module, device: torch.device) -> Iterator[None]:
    """Put the network on the device in eval mode and exact float32; give its modes back."""
    modes = [(part, part.training) for part in module.modules()]
    convolution, product = torch.backends.cudnn, torch.backends.cuda.matmul
    tf32 = convolution.allow_tf32, product.allow_tf32
    try:
        # TF32 keeps ten bits of the mantissa, and convolutions use it unless told otherwise.
        convolution.allow_tf32 = product.allow_tf32 = False
        module.eval().to(device)
        if device.type == "cpu":
            module.to(memory_format=torch.channels_last)
        yield
    finally:
        convolution.allow_tf32, product.allow_tf32 = tf32
        for part, training in modes:
            part.training = training


def versions() -> dict[str, str]:
    """Return the versions of what the features went through."""
    from layerscope import __version__

    names = ("torch", "torchvision", "pillow", "numpy", "h5py")
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
    status: Literal["written", "there"],
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
