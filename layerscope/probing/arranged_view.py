"""A layer seen otherwise: what every protocol changes about a cut, and all that it leaves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from layerscope.probing.row_groups import RowGroups
from layerscope.stats.moments import BLOCK
from layerscope.types import CutPoint, LayerView, Split

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class SameView:
    """Another view as it is; protocols override what they change."""

    view: LayerView

    @property
    def checkpoint(self) -> str:
        return self.view.checkpoint

    @property
    def source(self) -> str:
        return self.view.source

    @property
    def cut(self) -> CutPoint:
        return self.view.cut

    @property
    def fingerprint(self) -> str:
        return self.view.fingerprint

    def features(self, split: Split) -> npt.NDArray[np.float32]:
        return self.view.features(split)

    def target(self, task: str, split: Split) -> npt.NDArray[Any]:
        return self.view.target(task, split)

    def groups(self, split: Split) -> npt.NDArray[np.str_]:
        return self.view.groups(split)

    def views(self, split: Split) -> npt.NDArray[np.int64]:
        return self.view.views(split)

    def instances(self, split: Split) -> npt.NDArray[np.int64]:
        return self.view.instances(split)


@dataclass(frozen=True)
class DividedView(SameView):
    """Other training and validation rows, taken from those that there are; the same test rows."""

    train: Rows
    """Places in the training rows followed by the validation rows."""
    val: Rows
    """The same."""

    def features(self, split: Split) -> npt.NDArray[np.float32]:
        return self._select(split, self.view.features)

    def target(self, task: str, split: Split) -> npt.NDArray[Any]:
        return self._select(split, partial(self.view.target, task))

    def groups(self, split: Split) -> npt.NDArray[np.str_]:
        return self._select(split, self.view.groups)

    def views(self, split: Split) -> npt.NDArray[np.int64]:
        return self._select(split, self.view.views)

    def instances(self, split: Split) -> npt.NDArray[np.int64]:
        return self._select(split, self.view.instances)

    def _select(self, split: Split, read: Callable[[Split], npt.NDArray[Any]]) -> npt.NDArray[Any]:
        if split == "test":
            return read(split)
        rows = self.train if split == "train" else self.val
        train = np.asarray(read("train"))
        if not len(rows) or rows.max() < len(train):
            return train[rows]
        val = np.asarray(read("val"))
        if np.array_equal(rows, len(train) + np.arange(len(val))):
            return val
        return gathered(train, val, rows)


@dataclass(frozen=True)
class NarrowedView(SameView):
    """Features under a linear map, the same for every split."""

    map: npt.NDArray[np.float32]
    """(width, narrower)"""

    @property
    def cut(self) -> CutPoint:
        return replace(self.view.cut, width=self.map.shape[1])

    def features(self, split: Split) -> npt.NDArray[np.float32]:
        rows: npt.NDArray[np.float32] = np.asarray(self.view.features(split)) @ self.map
        return rows


@dataclass(frozen=True)
class ShuffledView(SameView):
    """Targets that belong to other rows of the same split: nothing is left to be learnt.

    Where the rows of every group have one target, groups change theirs and not rows: otherwise a
    control on 50 images of each object would vary as if there were 50 times as many objects.
    """

    seed: int

    def target(self, task: str, split: Split) -> npt.NDArray[Any]:
        target = np.asarray(self.view.target(task, split))
        groups, draw = RowGroups.of(self.view.groups(split)), np.random.default_rng(self.seed)
        if groups.share(target):
            return target[groups.first[draw.permutation(len(groups))]][groups.of_row]
        return target[draw.permutation(len(target))]


def gathered(train: npt.NDArray[Any], val: npt.NDArray[Any], rows: Rows) -> npt.NDArray[Any]:
    """Return rows of two splits, without a copy of both together."""
    gathered = np.empty((len(rows), *train.shape[1:]), np.result_type(train, val))
    for start in range(0, len(rows), BLOCK):
        places, block = rows[start : start + BLOCK], gathered[start : start + BLOCK]
        of_train = places < len(train)
        block[of_train] = train[places[of_train]]
        block[~of_train] = val[places[~of_train] - len(train)]
    return gathered
