"""A layer that memory does not hold: its rows are read from the cache whenever they are wanted."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from layerscope.estimators.layer import (
    LayerRows,
    held_out_groups,
    prepare_layer,
    read_layer,
    require_finite,
    require_rows,
    shared_tensor,
)
from layerscope.runtime.memory import memory
from layerscope.stats.moments import BLOCK
from layerscope.types import SPLITS, LayerView, Split

SHARE = 0.5
"""Of the memory that a layer's features may take."""
COPIED = 1 << 26
"""Numbers up to which rows of a layer in memory are copied; of more there is no second copy."""


@runtime_checkable
class BlockView(LayerView, Protocol):
    """A view that reads some rows at a time."""

    def blocks(self, split: Split, size: int) -> Iterator[npt.NDArray[np.float32]]:
        """Yield (m, width) features of one split, at most ``size`` rows at a time, in order."""
        ...


class IndexedView(ABC):
    """A view of rows that memory holds already, so that all of a split at once are a copy."""

    @abstractmethod
    def blocks(self, split: Split, size: int) -> Iterator[npt.NDArray[np.float32]]:
        """Yield (m, width) features of one split, at most ``size`` rows at a time, in order."""


@dataclass(frozen=True)
class StreamedLayer(LayerRows):
    """The rows of one cut, which are read and checked anew by everyone who wants them."""

    view: BlockView
    counts: dict[Split, int]

    def count(self, split: Split) -> int:
        return self.counts[split]

    def stored_blocks(self, split: Split) -> Iterable[Tensor]:
        return _read(self.view, split)


def open_layer(view: LayerView) -> LayerRows:
    """Return a cut's rows: in memory where half of it is enough for all, and else streamed.

    Large ones that index a layer in memory are streamed from there; views that read everything at
    once are always read whole.

    Raises:
        EstimatorError: As :func:`layerscope.estimators.layer.read_layer`.
    """
    fits = _size(view) <= COPIED if isinstance(view, IndexedView) else fits_memory(view)
    if fits or not isinstance(view, BlockView):
        return read_layer(view)
    counts = {split: len(view.groups(split)) for split in SPLITS}
    for split in SPLITS:
        require_rows((counts[split], view.cut.width), view, split)
    preparation = prepare_layer(lambda: _read(view, "train"), view)
    return StreamedLayer(*held_out_groups(view), preparation, view, counts)


def fits_memory(view: LayerView) -> bool:
    """Return whether half of the memory is enough for all rows of a cut."""
    return _size(view) * torch.float32.itemsize <= SHARE * memory()


def _size(view: LayerView) -> int:
    """Return the numbers of all rows together."""
    return view.cut.width * sum(len(view.instances(split)) for split in SPLITS)


def _read(view: BlockView, split: Split) -> Iterator[Tensor]:
    for read in view.blocks(split, BLOCK):
        rows = shared_tensor(read)
        require_finite(rows, view, split)
        yield rows
