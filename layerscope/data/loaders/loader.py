"""What every loader is given and gives back."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor

from layerscope.errors import SourceError
from layerscope.registry import Registry
from layerscope.runtime.cpus import processors
from layerscope.types import Preprocessing, Source

Rows = npt.NDArray[np.int64]

MOST_WORKERS = 16
"""The default's limit: few networks need more workers than that, and cores are shared."""


class BadImage(NamedTuple):
    """An image that could not be read and was skipped."""

    row: int
    """Its row in the source."""
    id: str
    reason: str


@dataclass(frozen=True, slots=True)
class ReadRequest:
    """Which images to read, and how."""

    source: Source
    preprocessing: Preprocessing
    """The checkpoint's, as the source frames it."""
    batch_size: int
    """Images per batch; the last one may be smaller."""
    rows: range | Sequence[int] | Rows | None = None
    """Which rows of the source and in which order; all of them by default."""
    workers: int | None = None
    """Threads or processes; one for each processor that this process may use, by default."""
    skip_bad: bool = False
    """Whether an unreadable image is reported rather than raised."""
    normalised: bool = True
    """float32, ready for a network; False for bytes, which a device normalises itself."""

    @property
    def order(self) -> Rows:
        """The rows to read, in their order."""
        return np.asarray(
            range(len(self.source.ids)) if self.rows is None else self.rows, dtype=np.int64
        )

    @property
    def worker_count(self) -> int:
        """How many workers there are."""
        return self.workers or min(MOST_WORKERS, len(processors()))

    def __len__(self) -> int:
        """Return the number of batches."""
        return math.ceil(len(self.order) / self.batch_size)

    def blocks(self) -> Iterator[Rows]:
        """Yield the rows of each batch."""
        order = self.order
        for start in range(0, len(order), self.batch_size):
            yield order[start : start + self.batch_size]


class Loader(Protocol):
    """Iterates over ``(rows, images)`` in the order of the request, whatever its workers do.

    ``images`` is (b, 3, height, width), in memory with the channels last: float32, or uint8 where
    the request is not ``normalised``. Batches belong to the caller; none is overwritten while
    somebody holds it. An unreadable image raises SourceError, or, with ``skip_bad``, keeps its
    place in the batch, filled with zeros, and is listed in ``bad`` before the batch is handed out:
    no row ever moves. Leaving the iteration early, by an exception or Ctrl-C too, ends the workers.
    """

    request: ReadRequest
    bad: list[BadImage]

    def __init__(self, request: ReadRequest) -> None: ...

    @property
    def decoder(self) -> str:
        """What decodes and resamples; caches name it, because decoders differ by grey levels."""
        ...

    def __iter__(self) -> Generator[tuple[Rows, Tensor], None, None]: ...


loaders: Registry[Callable[[ReadRequest], Loader]] = Registry(
    "loader", package="layerscope.data.loaders", group="layerscope.loaders"
)
"""By name: makes the loader of a request."""


def other_size(name: str, shape: Sequence[int], expected: Sequence[int]) -> SourceError:
    """Return the error for an image whose (height, width, …) is not that of its batch."""
    return SourceError(
        f"The image {name!r} is {shape[1]}×{shape[0]} after preprocessing "
        f"and its neighbours are {expected[1]}×{expected[0]}.",
        hint="Give the checkpoint a preprocessing that resizes or crops to one size.",
    )
