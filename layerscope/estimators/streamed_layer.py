"""A layer that memory does not hold: its rows are read from the cache whenever they are wanted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from layerscope.estimators.layer import (
    LayerRows,
    few_rows_behind,
    group_numbers,
    read_layer,
    require_finite,
    require_rows,
    require_variation,
)
from layerscope.runtime.memory import memory
from layerscope.stats.moments import BLOCK
from layerscope.types import SPLITS, LayerView, Split

SHARE = 0.5
"""Of the memory that a layer's features may take."""


@runtime_checkable
class BlockView(LayerView, Protocol):
    """A view that reads some rows at a time."""

    def blocks(self, split: Split, size: int) -> Iterator[npt.NDArray[np.float32]]:
        """Yield (m, width) features of one split, at most ``size`` rows at a time, in order."""
        ...


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
    """Return a cut's rows: held where half of the memory is enough for all, and else streamed.

    Views that read everything at once, as those of the protocols do, are always held.

    Raises:
        EstimatorError: As :func:`layerscope.estimators.layer.read_layer`.
    """
    if isinstance(view, BlockView) and not fits_memory(view):
        return _streamed(view)
    return read_layer(view)


def fits_memory(view: LayerView) -> bool:
    """Return whether half of the memory is enough for all rows of a cut."""
    rows = sum(len(view.instances(split)) for split in SPLITS)
    return rows * view.cut.width * torch.float32.itemsize <= SHARE * memory()


def _streamed(view: BlockView) -> StreamedLayer:
    counts = {split: len(view.groups(split)) for split in SPLITS}
    for split in SPLITS:
        require_rows((counts[split], view.cut.width), view, split)
    first, total = None, torch.zeros(view.cut.width, dtype=torch.float64)
    varies = torch.zeros(view.cut.width, dtype=torch.bool)
    for block in _read(view, "train"):
        first = block[0].clone() if first is None else first
        varies |= (block != first).any(0)
        total += block.sum(0, dtype=torch.float64)
    mean = total / counts["train"]
    rarely = few_rows_behind(_read(view, "train"), mean, counts["train"]) & varies
    require_variation(varies & ~rarely, view, counts["train"])
    return StreamedLayer(group_numbers(view), rarely, view, counts)


def _read(view: BlockView, split: Split) -> Iterator[Tensor]:
    for read in view.blocks(split, BLOCK):
        rows = torch.from_numpy(read)
        require_finite(rows, view, split)
        yield rows
