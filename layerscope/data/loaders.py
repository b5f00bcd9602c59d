"""The loader: images decoded by a pool of threads, batches in source order."""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from layerscope.data.images import read_image
from layerscope.data.transforms import Transform
from layerscope.errors import SourceError
from layerscope.nouns import Source

DECODER = "pillow"
"""What decodes and resamples; caches name it, because decoders differ by a grey level."""

_AHEAD = 3
"""Batches in flight: enough that the network never waits for one slow image."""

Rows = npt.NDArray[np.int64]
_Block = tuple[Rows, list[Future[Tensor]]]


class BadImage(NamedTuple):
    """An image that could not be read and was skipped."""

    row: int
    """Its row in the source."""
    id: str
    reason: str


class Loader:
    """Iterates over ``(rows, images)`` in the order of ``rows``, whatever the threads do.

    ``images`` is (b, 3, height, width) float32. An unreadable image raises SourceError, or, with
    ``skip_bad``, keeps its place in the batch, filled with zeros, and is listed in ``bad`` before
    the batch is handed out: no row ever moves. Leaving the iteration early, by an exception or
    Ctrl-C too, stops the threads.

    Args:
        source: Ids are paths relative to its root.
        transform: From :func:`image_transform`.
        batch_size: Images per batch; the last one may be smaller.
        rows: Which rows of the source and in which order; all of them by default.
        workers: Decoding threads; one for each processor by default, at most 8.
        skip_bad: Whether an unreadable image is reported rather than raised.
    """

    def __init__(
        self,
        source: Source,
        transform: Transform,
        batch_size: int,
        rows: range | Sequence[int] | Rows | None = None,
        workers: int | None = None,
        *,
        skip_bad: bool = False,
    ) -> None:
        chosen = range(len(source.ids)) if rows is None else rows
        self.source = source
        self.transform = transform
        self.batch_size = batch_size
        self.rows: Rows = np.asarray(chosen, dtype=np.int64)
        self.workers = workers or min(8, os.cpu_count() or 1)
        self.skip_bad = skip_bad
        self.bad: list[BadImage] = []

    def __len__(self) -> int:
        """Return the number of batches."""
        return math.ceil(len(self.rows) / self.batch_size)

    def __iter__(self) -> Generator[tuple[Rows, Tensor], None, None]:
        self.bad = []
        pool = ThreadPoolExecutor(self.workers, thread_name_prefix="decode")
        waiting: deque[_Block] = deque()
        try:
            for rows in self._blocks():
                waiting.append((rows, [pool.submit(self._decode, int(row)) for row in rows]))
                if len(waiting) >= _AHEAD:
                    yield self._collect(*waiting.popleft())
            while waiting:
                yield self._collect(*waiting.popleft())
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _blocks(self) -> Iterator[Rows]:
        for start in range(0, len(self.rows), self.batch_size):
            yield self.rows[start : start + self.batch_size]

    def _decode(self, row: int) -> Tensor:
        path = self.source.root / self.source.ids[row]
        image = read_image(path)
        try:
            return self.transform(image)
        except ValueError as error:
            raise SourceError(
                f"The image {str(path)!r} cannot be prepared: {error}.",
                hint="Replace the image, or leave it out with --skip-bad-images.",
            ) from error

    def _collect(self, rows: Rows, futures: list[Future[Tensor]]) -> tuple[Rows, Tensor]:
        images = [self._result(int(row), future) for row, future in zip(rows, futures, strict=True)]
        return rows, self._stack(rows, images)

    def _result(self, row: int, future: Future[Tensor]) -> Tensor | None:
        try:
            return future.result()
        except SourceError as error:
            if not self.skip_bad:
                raise
            self.bad.append(BadImage(row, self.source.ids[row], error.message))
            return None

    def _stack(self, rows: Rows, images: list[Tensor | None]) -> Tensor:
        shape = next((image.shape for image in images if image is not None), torch.Size((3, 0, 0)))
        batch = torch.zeros((len(images), *shape))
        for place, image in enumerate(images):
            if image is not None and image.shape != shape:
                raise self._other_size(int(rows[place]), image.shape, shape)
            if image is not None:
                batch[place] = image
        return batch

    def _other_size(self, row: int, shape: torch.Size, expected: torch.Size) -> SourceError:
        return SourceError(
            f"The image {self.source.ids[row]!r} is {shape[2]}×{shape[1]} after preprocessing "
            f"and its neighbours are {expected[2]}×{expected[1]}.",
            hint="Give the checkpoint a preprocessing that resizes or crops to one size.",
        )
