"""The default loader: threads that decode straight into the batch, with nothing to install."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from layerscope.data.decoding import Decoder
from layerscope.data.images import images_of
from layerscope.data.loaders.buffers import Array, Buffers
from layerscope.data.loaders.loader import BadImage, ReadRequest, Rows, loaders, other_size
from layerscope.data.transforms import Preparation
from layerscope.errors import SourceError

_AHEAD = 3
"""Batches in flight: enough that the network never waits for one slow image."""


@dataclass(frozen=True, slots=True)
class _Batch:
    """Rows on their way."""

    rows: Rows
    array: Array | None
    """(b, h, w, 3) where the prepared size is known beforehand."""
    images: Sequence[Future[Array]]
    """For each row its (h, w, 3): a part of the array, or by itself."""


@loaders.register("threads")
class ThreadLoader:
    """Threads in this process; JPEG by libjpeg-turbo, the rest by Pillow, no copy in between."""

    decoder = "libjpeg-turbo, Pillow's resampling with rows first"
    """The bytes that Pillow gives, whoever decodes."""

    def __init__(self, request: ReadRequest) -> None:
        self.request = request
        self.bad: list[BadImage] = []
        self._images = images_of(request.source)
        self._preparation = Preparation(request.preprocessing)
        self._kind = np.float32 if request.normalised else np.uint8
        self._decoder = Decoder()
        self._buffers = Buffers()

    def __iter__(self) -> Generator[tuple[Rows, Tensor], None, None]:
        self.bad = []
        pool = ThreadPoolExecutor(self.request.worker_count, thread_name_prefix="decode")
        waiting: deque[_Batch] = deque()
        try:
            for rows in self.request.blocks():
                waiting.append(self._start(rows, pool))
                if len(waiting) >= _AHEAD:
                    yield self._collect(waiting.popleft())
            while waiting:
                yield self._collect(waiting.popleft())
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _start(self, rows: Rows, pool: ThreadPoolExecutor) -> _Batch:
        size = self._preparation.fixed_size
        array = None if size is None else self._buffers.take((len(rows), *size, 3), self._kind)
        places = [None] * len(rows) if array is None else array
        jobs = zip(rows.tolist(), places, strict=True)
        return _Batch(rows, array, [pool.submit(self._prepare, row, out) for row, out in jobs])

    def _prepare(self, row: int, out: Array | None) -> Array:
        place = self._images.place(row)
        raster = self._decoder.decode(self._images.read(row), place)
        try:
            size = self._preparation.size(raster.height, raster.width)
        except ValueError as error:
            raise SourceError(
                f"The image {place!r} cannot be prepared: {error}.",
                hint="Replace the image, or leave it out with --skip-bad-images.",
            ) from error
        to = np.empty((*size, 3), self._kind) if out is None else out
        self._preparation.write(raster, to)
        return to

    def _collect(self, batch: _Batch) -> tuple[Rows, Tensor]:
        images = [
            self._result(int(row), job) for row, job in zip(batch.rows, batch.images, strict=True)
        ]
        array = self._stacked(batch.rows, images) if batch.array is None else batch.array
        for place, image in enumerate(images):
            if image is None:
                array[place] = 0
        return batch.rows, torch.from_numpy(array).permute(0, 3, 1, 2)

    def _result(self, row: int, job: Future[Array]) -> Array | None:
        try:
            return job.result()
        except SourceError as error:
            if not self.request.skip_bad:
                raise
            self.bad.append(BadImage(row, self.request.source.ids[row], error.message))
            return None

    def _stacked(self, rows: Rows, images: list[Array | None]) -> Array:
        """Return (b, h, w, 3); without a single image h and w are 0."""
        shape = next((image.shape for image in images if image is not None), (0, 0, 3))
        array = np.empty((len(images), *shape), self._kind)
        for place, image in enumerate(images):
            if image is not None and image.shape != shape:
                raise other_size(self.request.source.ids[rows[place]], image.shape, shape)
            if image is not None:
                array[place] = image
        return array
