"""A cut's rows and targets as a data set of torch, for training on cached features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from layerscope.types import Split

if TYPE_CHECKING:
    from layerscope.cache.reader import View

Item = Tensor | tuple[Tensor, Tensor]


class FeatureDataset(Dataset[Item]):
    """Rows of one cut and split, read when they are asked for; a batch is one reading.

    Args:
        view: The cut, with the splits of the task.
        task: Whose targets come along; None for features alone.
        split: Which rows.

    Examples:
        ``DataLoader(cache.dataset("layer4.1", "in1k"), batch_size=4096, shuffle=True)``
    """

    def __init__(self, view: View, task: str | None, split: Split) -> None:
        self._view, self._task, self._split = view, task, split
        self._features = view.cache.features_of(view.cut)
        self._rows = view.cache.rows_of(split, view.task)
        self._targets = None if task is None else torch.from_numpy(view.target(task, split))

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

    def __getstate__(self) -> dict[str, Any]:
        """A worker that is not forked opens the file for itself."""
        cache = self._view.cache
        return {
            "path": cache.path,
            "verify": cache.verify,
            "cut": (self._view.cut.name, self._view.cut.pooling, self._view.task),
            "task": self._task,
            "split": self._split,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        from layerscope.cache.reader import open_cache

        view = open_cache(state["path"], verify=state["verify"]).view(*state["cut"])
        self.__init__(view, state["task"], state["split"])  # type: ignore[misc]
