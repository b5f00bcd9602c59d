"""A cut's rows and targets as a data set of torch, for training on cached features."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from layerscope.cache.features import Features
from layerscope.cache.hdf5_offsets import Rows

Item = Tensor | tuple[Tensor, Tensor]


class FeatureDataset(Dataset[Item]):
    """Rows of one cut and split, read when they are asked for; a batch is one reading.

    Args:
        features: Of the cut.
        rows: (n,) which of them.
        targets: (n,) or (n, k) of a task; None for features alone.
        reopen: Returns the same for a process that has not opened the file.

    Examples:
        ``DataLoader(cache.dataset("layer4.1", "in1k"), batch_size=4096, shuffle=True)``
    """

    def __init__(
        self,
        features: Features,
        rows: Rows,
        targets: npt.NDArray[Any] | None,
        reopen: Callable[[], FeatureDataset],
    ) -> None:
        self._features, self._rows, self._reopen = features, rows, reopen
        self._targets = None if targets is None else torch.from_numpy(targets)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, place: int) -> Item:
        """Return (width,) features, and their target where there is a task."""
        return self.__getitems__([place])[0]

    def __getitems__(self, places: Sequence[int]) -> list[Item]:
        """Return several rows, read together; what a ``DataLoader`` calls for a batch."""
        rows = torch.from_numpy(self._features.take(self._rows[list(places)]))
        if self._targets is None:
            return list(rows)
        return list(zip(rows, self._targets[list(places)], strict=True))

    def __reduce__(self) -> tuple[Callable[[], FeatureDataset], tuple[()]]:
        """A worker that is not forked opens the file for itself."""
        return self._reopen, ()
