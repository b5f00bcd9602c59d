"""The ``ffcv`` loader: ``.beton`` files, read and prepared by FFCV.

The rows, their order and the geometry are those of the default loader; so are the pixels of images
that are stored raw. Of JPEG they differ by a few grey levels, because FFCV decodes with
libjpeg-turbo's fast inverse transform.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from layerscope.data.augmented_views import ViewedImages
from layerscope.data.betons.beton import Beton
from layerscope.data.betons.ffcv_reader import FfcvReader, Finish, PreparedRows, PreparingThread
from layerscope.data.betons.images import BetonImages
from layerscope.data.betons.library import library
from layerscope.data.betons.preparing import MOST_THREADS, Resize, normalise
from layerscope.data.loaders.buffers import Buffers
from layerscope.data.loaders.loader import BadImage, ReadRequest, Rows, loaders
from layerscope.data.loaders.threads import ThreadLoader
from layerscope.data.resampling import KINDS
from layerscope.data.transforms import Preparation
from layerscope.errors import SettingsError, SourceError

_WITNESS = ("index", "label")
"""The fields that are best asked which row was read, before any other whole number."""


@loaders.register("ffcv")
class FfcvLoader:
    """FFCV's own loader, sequential, with the rows checked that it gives.

    Args:
        request: What to read; its source lies in ``.beton`` files.

    Raises:
        SettingsError: FFCV is not installed, augmented views are wanted, or the preprocessing
            leaves images unequal.
        SourceError: The source lies in other files.
    """

    def __init__(self, request: ReadRequest) -> None:
        library()
        self.request = request
        self.bad: list[BadImage] = []
        self._images = _require_betons(request)
        self._preparation = Preparation(request.preprocessing)
        self._size = _fixed_size(self._preparation)
        self._kind = np.float32 if request.normalised else np.uint8
        self._buffers = Buffers()
        self._readers: dict[int, FfcvReader] = {}
        self._witnesses = [_witness(beton) for beton in self._images.files]
        self._expected = [
            None if field is None else beton.integer(field)
            for beton, field in zip(self._images.files, self._witnesses, strict=True)
        ]

    @property
    def decoder(self) -> str:
        """FFCV and its fast inverse transform, which is not the default loader's."""
        return (
            f"FFCV {version('ffcv')}, libjpeg-turbo's fast DCT, Pillow's resampling with rows first"
        )

    def __iter__(self) -> Generator[tuple[Rows, Tensor], None, None]:
        self.bad = []
        threads: dict[int, PreparingThread] = {}
        try:
            for file, parts in self._rows_by_file().items():
                threads[file] = self._reader(file).start(parts, self._copier())
            for rows in self.request.blocks():
                yield rows, self._batch(rows, threads)
        finally:
            for thread in threads.values():
                thread.leave()

    def _rows_by_file(self) -> Mapping[int, list[Rows]]:
        """Return, by file, the rows of it that each batch needs."""
        parts: dict[int, list[Rows]] = {}
        for rows in self.request.blocks():
            files = self._images.file[rows]
            for file in np.unique(files).tolist():
                parts.setdefault(file, []).append(self._images.row[rows[files == file]])
        return parts

    def _reader(self, file: int) -> FfcvReader:
        if file not in self._readers:
            preprocessing = self.request.preprocessing
            self._readers[file] = FfcvReader(
                self._images.files[file],
                self._witnesses[file],
                batch_size=self.request.batch_size,
                workers=min(self.request.worker_count, MOST_THREADS),
                size=self._size,
                resize=_resize(preprocessing.resize),
                kind=KINDS[preprocessing.interpolation],
            )
        return self._readers[file]

    def _copier(self) -> Finish:
        """Return what copies images out of FFCV's memory, and normalises them on the way."""
        means, stds = (
            np.tile(np.asarray(values, np.float32), self._size[1])
            for values in (self.request.preprocessing.mean, self.request.preprocessing.std)
        )

        def copy(images: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
            array: npt.NDArray[Any] = self._buffers.take(images.shape, self._kind)
            if self.request.normalised:
                normalise(images, means, stds, array)
            else:
                array[...] = images
            return array

        return copy

    def _batch(self, rows: Rows, threads: Mapping[int, PreparingThread]) -> Tensor:
        """Return the images of some rows, each where it belongs."""
        files = self._images.file[rows]
        numbers = np.unique(files).tolist()
        refused = np.zeros(len(rows), np.bool_)
        array = None if len(numbers) == 1 else np.empty((len(rows), *self._size, 3), self._kind)
        for file in numbers:
            places = np.flatnonzero(files == file)
            part = threads[file].take()
            self._require_same(file, rows[places], part)
            refused[places] = part.refused
            if array is None:
                array = part.images
            else:
                array[places] = part.images
        assert array is not None
        refused |= np.isin(rows, list(self._images.missing))
        images = torch.from_numpy(array).permute(0, 3, 1, 2)
        if refused.any():
            self._read_refused(rows, np.flatnonzero(refused), images)
        return images

    def _require_same(self, file: int, rows: Rows, part: PreparedRows) -> None:
        """Refuse images of other rows than those that were asked for."""
        known = self._expected[file]
        if known is None or part.witness is None:
            return
        expected = known[self._images.row[rows]]
        wrong = np.flatnonzero(part.witness != expected)
        if len(wrong):
            place = int(wrong[0])
            raise SourceError(
                f"FFCV gave another row than {self._images.row[rows[place]]} of "
                f"{str(self._images.files[file].path)!r}: its {self._witnesses[file]!r} is "
                f"{part.witness[place]}, not {expected[place]}.",
                hint="Read the file with --loader threads, and please report this.",
            )

    def _read_refused(self, rows: Rows, places: Rows, images: Tensor) -> None:
        """Let the default loader read what FFCV refused; it says what is wrong, if anything."""
        again = replace(self.request, rows=rows[places], batch_size=len(places))
        loader = ThreadLoader(again)
        for _, found in loader:
            images[torch.from_numpy(places)] = found
        self.bad += loader.bad


def _require_betons(request: ReadRequest) -> BetonImages:
    images = request.source.images
    if isinstance(images, ViewedImages):
        raise SettingsError(
            "The loader ffcv makes no augmented views.",
            hint="Leave --loader out: the default loader reads .beton files too.",
        )
    if not isinstance(images, BetonImages):
        raise SourceError(
            f"The loader ffcv reads .beton files, and {request.source.name} lies in "
            f"{str(request.source.root)!r}.",
            hint="Write one with layerscope pack, or leave --loader out.",
        )
    return images


def _fixed_size(preparation: Preparation) -> tuple[int, int]:
    if preparation.fixed_size is None:
        raise SettingsError(
            "The loader ffcv needs a preprocessing that makes all images of one size, and this one "
            f"resizes to {preparation.preprocessing.resize} and does not crop.",
            hint="Give the checkpoint a crop, or leave --loader out.",
        )
    return preparation.fixed_size


def _resize(resize: int | tuple[int, int] | None) -> Resize:
    if isinstance(resize, tuple):
        return 0, *resize
    return resize or 0, 0, 0


def _witness(beton: Beton) -> str | None:
    known = [name for name in _WITNESS if name in beton.integers]
    return next(iter([*known, *beton.integers]), None)
