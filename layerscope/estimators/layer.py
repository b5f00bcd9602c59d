"""One layer as tensors: features and test groups, checked before anything is computed on them."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from layerscope.errors import EstimatorError
from layerscope.stats.moments import BLOCK
from layerscope.stats.spectrum import standardiser_of
from layerscope.types import SPLITS, LayerView, Split

Features = Mapping[Split, Tensor]
"""(n, width) by split."""

ENOUGH_ROWS = 10
"""Effective rows behind a feature's variance below which it is taken for constant."""
SMALL_SHARE = 20
"""With few training rows: one in so many is enough."""


@dataclass(frozen=True)
class LayerRows(ABC):
    """The rows of one cut, ready for computation, a few thousand at a time."""

    groups: Tensor
    """(n_test,) int64, the group of each test row."""
    rarely: Tensor
    """(width,) bool, features that are zero here, because next to no training row varies them."""

    @property
    def rare(self) -> int:
        """How many features are zero for that reason."""
        return int(self.rarely.sum())

    @property
    def n_groups(self) -> int:
        """The number of independent groups among the test rows."""
        return len(torch.unique(self.groups))

    @abstractmethod
    def count(self, split: Split) -> int:
        """Return the number of rows of a split."""

    def blocks(self, split: Split) -> Iterator[Tensor]:
        """Yield (m, width) float32 rows of a split, finite, in order."""
        yield from map(self.without_rare, self.stored_blocks(split))

    @abstractmethod
    def stored_blocks(self, split: Split) -> Iterable[Tensor]:
        """Return the same blocks as the cache has them."""

    def without_rare(self, rows: Tensor) -> Tensor:
        """Return stored rows with zeros in the features that rarely vary."""
        return rows.masked_fill(self.rarely, 0) if self.rare else rows


@dataclass(frozen=True)
class LoadedLayer(LayerRows):
    """The rows of one cut in memory."""

    stored: Features
    """(n, width) float32 by split, finite. Other estimators read the same memory."""

    @property
    def features(self) -> Features:
        """(n, width) float32 by split: a copy where a feature is zero that is not zero stored."""
        return {split: self.rows(split) for split in self.stored}

    def rows(self, split: Split) -> Tensor:
        """Return the (n, width) float32 rows of one split."""
        return self.without_rare(self.stored[split])

    def count(self, split: Split) -> int:
        return len(self.stored[split])

    def stored_blocks(self, split: Split) -> Iterable[Tensor]:
        return torch.split(self.stored[split], BLOCK)


def read_layer(view: LayerView) -> LoadedLayer:
    """Read a cut's features and test groups.

    Raises:
        EstimatorError: A split is empty, a feature is not finite, or no feature varies.
    """
    stored = {split: read_features(view, split) for split in SPLITS}
    blocks = torch.split(stored["train"], BLOCK)
    return LoadedLayer(group_numbers(view), find_rare(lambda: blocks, view), stored)


def group_numbers(view: LayerView) -> Tensor:
    """Return (n_test,) int64 numbers of the test rows' groups."""
    _, groups = np.unique(view.groups("test"), return_inverse=True)
    return torch.tensor(groups.ravel(), dtype=torch.int64)


def find_rare(read: Callable[[], Iterable[Tensor]], view: LayerView) -> Tensor:
    """Return (width,) bool, as :func:`rarely_vary` does.

    Args:
        read: Returns blocks of the layer's training rows, which are (m, width), anew each time.
        view: The layer.

    Raises:
        EstimatorError: No feature varies otherwise.
    """
    varies, rarely, count = _variation(read)
    if not bool((varies & ~rarely).any()):
        raise EstimatorError(
            f"Every feature of {view.cut.name!r} is constant over {count} training rows.",
            hint="The layer is dead, or the images are all alike; leave the cut out.",
        )
    return rarely


def standardised(layer: LoadedLayer) -> Features:
    """Return (n, width) float32 features by split, of mean 0 and variance 1 over training rows."""
    rule = standardiser_of(layer.rows("train"))
    return {split: rule(layer.rows(split)).float() for split in SPLITS}


def rarely_vary(rows: Tensor) -> Tensor:
    """Return which features owe their variance to a handful of training rows.

    A ReLU that fired for one training image has, once standardised, a value of √n there; an image
    that fires it harder lies hundreds of deviations out and alone decides the test error. Such a
    feature is as good as constant. The measure is the effective number of rows behind a variance,
    (Σ x²)² / Σ x⁴ of the centred feature: n/3 for a normal one, about k for one that is active in k
    rows. Scale and offset of a feature do not matter.

    Args:
        rows: (n, d) training features.

    Returns:
        (d,) bool; never true of a constant feature, which is no concern here.
    """
    return _variation(lambda: torch.split(rows, BLOCK))[1]


def _variation(read: Callable[[], Iterable[Tensor]]) -> tuple[Tensor, Tensor, int]:
    """Return (d,) bool whether features vary and whether rarely, and the number of rows."""
    # In blocks, because all rows in float64 would be the largest thing in memory.
    first, count, varies, total = None, 0, torch.tensor(False), torch.zeros((), dtype=torch.float64)
    for block in read():
        first = block[0].clone() if first is None else first
        varies = varies | (block != first).any(0)
        total = total + block.sum(0, dtype=torch.float64)
        count += len(block)
    mean = total / count
    second, fourth = torch.zeros_like(mean), torch.zeros_like(mean)
    for block in read():
        squares = (block.double() - mean).square()
        second += squares.sum(0)
        fourth += squares.square().sum(0)
    effective = second.square() / fourth.clamp(min=torch.finfo().tiny)
    return varies, varies & (effective < min(ENOUGH_ROWS, count / SMALL_SHARE)), count


def read_target(view: LayerView, task: str, split: Split) -> npt.NDArray[Any]:
    """Read the targets of one split, one row for each row of features.

    Raises:
        EstimatorError: Their number differs from the number of rows.
    """
    target = np.asarray(view.target(task, split))
    rows = len(view.groups(split))
    if target.ndim == 0 or len(target) != rows:
        raise EstimatorError(
            f"The targets of {task!r} have shape {target.shape} for {rows} {split} rows.",
            hint="Give one target for each image.",
        )
    return target


def require_rows(shape: tuple[int, ...], view: LayerView, split: Split) -> None:
    """Refuse a split that is no rows of features.

    Raises:
        EstimatorError: There are none, or they are not rows.
    """
    if len(shape) != 2 or not shape[0]:
        raise EstimatorError(
            f"The {split} split of {view.cut.name!r} holds features of shape {shape}.",
            hint="A probe needs rows in train, val and test; check the splits of the source.",
        )


def require_finite(rows: Tensor, view: LayerView, split: Split) -> None:
    """Refuse features that are no numbers.

    Raises:
        EstimatorError: Some are infinite or nan.
    """
    # In blocks, because a mask of all would be a quarter of the features.
    broken = sum(int((~block.isfinite()).sum()) for block in torch.split(rows, BLOCK))
    if broken:
        raise EstimatorError(
            f"{broken} features of {view.cut.name!r} are not finite in {split}.",
            hint="They may overflow half precision; extract the cut again in float32.",
        )


def read_features(view: LayerView, split: Split) -> Tensor:
    """Read (n, width) float32 features of one split.

    Raises:
        EstimatorError: There are none, or one is not finite.
    """
    read = np.asarray(view.features(split), dtype=np.float32)
    require_rows(read.shape, view, split)
    rows = shared_tensor(read)
    require_finite(rows, view, split)
    return rows


def shared_tensor(rows: npt.NDArray[np.float32]) -> Tensor:
    """Return rows as a tensor in the same memory, which nobody may write into."""
    with warnings.catch_warnings():
        # A copy of what is held for all estimators would double the layer.
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(rows)
