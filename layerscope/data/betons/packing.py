"""Packs a source into one ``.beton`` file, in row order, so that reading it is one long read."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter, deque
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from PIL import Image

from layerscope.data.betons import layout
from layerscope.data.betons.beton import Beton
from layerscope.data.betons.sidecar import Sidecar, sidecar_of, write_sidecar
from layerscope.data.betons.writer import BetonWriter, EncodedImage, storing
from layerscope.data.decoding import Decoder, Raster, unreadable
from layerscope.data.images import images_of
from layerscope.data.loaders.loader import BadImage, ReadRequest
from layerscope.data.resampling import Pixels
from layerscope.data.transforms import Preparation
from layerscope.errors import SettingsError, SourceError
from layerscope.types import Framing, Preprocessing, Source

try:
    import simplejpeg as _simplejpeg
except ImportError:  # optional where nothing can be installed; nothing is packed there
    _simplejpeg = None

Mode = Literal["jpeg", "raw"]
Interpolation = Literal["bilinear", "bicubic"]

_AHEAD = 4
"""Images in flight for each worker: one large image holds up nobody but the writer."""


@dataclass(frozen=True, slots=True)
class PackReport:
    """What became of the images of a source."""

    path: Path
    rows: int
    passed: int
    """JPEG files that were stored byte for byte."""
    encoded: int
    """Images that were made smaller and encoded anew."""
    raw: int
    """Images that were stored as pixels."""
    small: int
    """Images that are smaller than the side asked for, and were not enlarged."""
    bad: tuple[BadImage, ...]
    """Images that could not be read; a black pixel holds their place."""
    size: int
    """The size of the file in bytes."""


class _PackedImage(NamedTuple):
    """An image on its way into the file."""

    sample: EncodedImage
    fate: str
    """The field of the report that counts it."""
    small: bool = False
    reason: str = ""
    """Why it could not be read."""


class _Settings(NamedTuple):
    """How images are stored."""

    mode: Mode
    side: int | None
    quality: int
    interpolation: Interpolation

    def record(self) -> Mapping[str, Any]:
        """Return what the pixels depend on."""
        if self.side is None:
            return {"mode": self.mode}
        resized = {"mode": self.mode, "side": self.side, "interpolation": self.interpolation}
        if self.mode == "raw":
            return resized
        encoder = f"Pillow {version('pillow')}"
        return {**resized, "quality": self.quality, "encoder": encoder}


def pack(
    source: Source,
    path: Path,
    *,
    mode: Mode = "jpeg",
    side: int | None = None,
    quality: int = 95,
    interpolation: Interpolation = "bilinear",
    workers: int | None = None,
    skip_bad: bool = False,
    progress: Callable[[int], None] | None = None,
) -> PackReport:
    """Write the images of a source into a ``.beton`` file, and the rest of it into its sidecar.

    Without a side, ordinary JPEG files are stored byte for byte and all other images as pixels, so
    that a loader sees what it would have seen in the folder. With one, images whose shorter side is
    longer are made smaller (to a square, where the source wants whole images) and encoded anew.

    Args:
        source: What to pack.
        path: The file to write; its name ends in ``.beton``. The sidecar lies beside it.
        mode: ``jpeg``; or ``raw`` for pixels, several times the bytes and no decoding.
        side: Length of the shorter side in pixels; None to leave every image as it is.
        quality: Of JPEG that is encoded anew, 1 to 100; colours keep their full resolution.
        interpolation: The filter that makes images smaller.
        workers: Threads; the file does not depend on it.
        skip_bad: Whether an unreadable image is stored as a black pixel and recorded as missing,
            so that no row moves.
        progress: Called with 1 after every image.

    Returns:
        What became of the images.

    Raises:
        SettingsError: A setting makes no sense, or the file is there already.
        SourceError: An image is unreadable.
        DiskError: The disk is full; nothing is left behind.
    """
    settings = _Settings(mode, side, quality, interpolation)
    _require_sense(settings, source, path)
    if workers is not None and workers < 1:
        raise SettingsError(f"The number of workers is {workers}.", hint="It must be at least 1.")
    packer = _Packer(source, settings, skip_bad)
    worker_count = ReadRequest(source, packer.preprocessing, 1, workers=workers).worker_count
    counts: Counter[str] = Counter()
    bad: list[BadImage] = []
    with storing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with (
        BetonWriter(path, len(source.ids)) as writer,
        closing(_in_order(packer.pack, len(source.ids), worker_count)) as images,
    ):
        for row, it in enumerate(images):
            writer.add(it.sample)
            counts.update({it.fate: 1, "small": it.small})
            if it.reason:
                bad.append(BadImage(row, source.ids[row], it.reason))
            if progress is not None:
                progress(1)
        writer.complete()
        identity = Beton(writer.part).identity
        packed = _packed_source(source, settings, bad, counts["small"])
        _write_beside(path, Sidecar(packed, identity, settings.record()))
    return PackReport(
        path=path,
        rows=len(source.ids),
        passed=counts["passed"],
        encoded=counts["encoded"],
        raw=counts["raw"],
        small=counts["small"],
        bad=tuple(bad),
        size=path.stat().st_size,
    )


def _require_sense(settings: _Settings, source: Source, path: Path) -> None:
    if path.suffix != ".beton":
        raise SettingsError(
            f"The name {str(path)!r} does not end in .beton.", hint=f"Write {path.name}.beton."
        )
    if path.exists():
        raise SettingsError(
            f"{str(path)!r} is there already.", hint="Remove it, or give another name with -o."
        )
    if settings.mode not in ("jpeg", "raw"):
        raise SettingsError(f"The mode is {settings.mode!r}.", hint="Choose jpeg or raw.")
    if settings.side is not None and not 1 <= settings.side <= layout.LONGEST_SIDE:
        raise SettingsError(
            f"The side is {settings.side} pixels.", hint=f"Choose 1 to {layout.LONGEST_SIDE}."
        )
    if not 1 <= settings.quality <= 100:
        raise SettingsError(f"The quality is {settings.quality}.", hint="Choose 1 to 100.")
    if settings.side is not None and source.framing == "crop":
        raise SettingsError(
            f"{source.name} is read without resampling, and --side {settings.side} resamples.",
            hint="Leave --side out; every image is stored as it is.",
        )
    if _simplejpeg is None:
        raise SettingsError(
            "Packing needs the Python package simplejpeg, which is not installed.",
            hint="Install it with: pip install simplejpeg",
        )


def _in_order(
    job: Callable[[int], _PackedImage], count: int, workers: int
) -> Generator[_PackedImage, None, None]:
    """Yield the results for 0, 1, 2…, a few of which are computed at a time."""
    pool = ThreadPoolExecutor(workers, thread_name_prefix="pack")
    waiting: deque[Future[_PackedImage]] = deque()
    try:
        for row in range(count):
            waiting.append(pool.submit(job, row))
            if len(waiting) >= _AHEAD * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


class _Packer:
    """Makes samples of images, in any thread.

    Args:
        source: Where the images come from.
        settings: How they are stored.
        skip_bad: Whether an unreadable one is replaced.
    """

    def __init__(self, source: Source, settings: _Settings, skip_bad: bool) -> None:
        self._images = images_of(source)
        self._settings = settings
        self._framing: Framing = source.framing
        self._skip_bad = skip_bad
        self._decoder = Decoder()
        side, whole = settings.side, source.framing == "whole"
        self.preprocessing = Preprocessing(
            resize=(side, side) if whole and side is not None else side,
            crop=None,
            mean=(0.0,) * 3,
            std=(1.0,) * 3,
            interpolation=settings.interpolation,
        )
        self._preparation = Preparation(self.preprocessing)

    def pack(self, row: int) -> _PackedImage:
        """Return an image as it will be stored.

        Raises:
            SourceError: It is unreadable, and that is not to be skipped.
        """
        try:
            return self._pack_readable(row)
        except SourceError as error:
            if not self._skip_bad:
                raise
            black = np.zeros((1, 1, 3), np.uint8)
            return _PackedImage(_raw_image(black), "bad", reason=_reason(error))

    def _pack_readable(self, row: int) -> _PackedImage:
        place = self._images.place(row)
        data = self._images.read(row)
        ordinary = self._decoder.ordinary_jpeg(data) if isinstance(data, bytes) else None
        raster = self._decoder.decode(data, place) if ordinary is None else ordinary
        small = self._settings.side is not None and (
            min(raster.height, raster.width) < self._settings.side
        )
        resized = None if small else self._resize(raster)
        if resized is not None and self._settings.mode == "jpeg":
            return _PackedImage(self._encode(resized), "encoded")
        if resized is None and ordinary is not None and self._settings.mode == "jpeg":
            assert isinstance(data, bytes)
            sample = EncodedImage(layout.JPEG, raster.width, raster.height, data)
            return _PackedImage(sample, "passed", small)
        sample = _raw_image(raster.pixels.copy() if resized is None else resized)
        if max(sample.width, sample.height) > layout.LONGEST_SIDE:
            size = f"{sample.width}×{sample.height}"
            raise unreadable(place, f"its {size} pixels are too many for a .beton file")
        return _PackedImage(sample, "raw", small)

    def _resize(self, raster: Raster) -> Pixels | None:
        """Return a smaller image; None where it has the size that is wanted."""
        if self._settings.side is None:
            return None
        size = self._preparation.size(raster.height, raster.width)
        if size == (raster.height, raster.width):
            return None
        pixels = np.empty((*size, 3), np.uint8)
        self._preparation.write(raster, pixels)
        return pixels

    def _encode(self, pixels: Pixels) -> EncodedImage:
        height, width, _ = pixels.shape
        # Into a file, though of memory: for a file Pillow lets the other threads encode meanwhile.
        with os.fdopen(os.memfd_create("jpeg"), "w+b") as file:
            Image.fromarray(pixels).save(
                file, "JPEG", quality=self._settings.quality, subsampling="4:4:4"
            )
            file.seek(0)
            data = file.read()
        return EncodedImage(layout.JPEG, width, height, data)


def _raw_image(pixels: Pixels) -> EncodedImage:
    return EncodedImage(layout.RAW, pixels.shape[1], pixels.shape[0], pixels)


def _reason(error: SourceError) -> str:
    """Return why an image is unreadable, without the folder that it was in."""
    return (error.message.partition(" cannot be read: ")[2] or error.message).rstrip(".")


def _packed_source(source: Source, settings: _Settings, bad: list[BadImage], small: int) -> Source:
    """Return the record of the packed source."""
    notes = list(source.notes)
    if settings.side is not None:
        notes.append(f"packed at {settings.side} px, {settings.interpolation}, {settings.mode}")
    if small:
        notes.append(f"{small:,} images are smaller than {settings.side} px; none was enlarged")
    if bad:
        notes.append(f"{len(bad):,} images could not be read when they were packed")
    return replace(
        source,
        manifest=_manifest(source, settings),
        missing={it.row: it.reason for it in bad},
        notes=tuple(notes),
        images=None,
    )


def _manifest(source: Source, settings: _Settings) -> str:
    """Return the sha256 that stands for the pixels; the source's own where they are the same."""
    if settings.side is None:
        return source.manifest
    how = json.dumps(settings.record(), sort_keys=True)
    return hashlib.sha256(f"{source.manifest}\n{how}\n".encode()).hexdigest()


def _write_beside(path: Path, sidecar: Sidecar) -> None:
    beside = sidecar_of(path)
    part = beside.with_name(beside.name + ".part")
    try:
        with storing(path):
            with part.open("wb") as file:
                write_sidecar(file, sidecar)
            part.replace(beside)
    finally:
        part.unlink(missing_ok=True)
