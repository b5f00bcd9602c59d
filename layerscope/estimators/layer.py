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
from layerscope.estimators.preparation import Preparation, prepare
from layerscope.stats.moments import BLOCK
from layerscope.stats.spectrum import standardiser_of
from layerscope.types import SPLITS, LayerView, Split

Features = Mapping[Split, Tensor]
"""(n, width) by split."""


@dataclass(frozen=True)
class LayerRows(ABC):
    """The rows of one cut, ready for computation, a few thousand at a time."""

    groups: Tensor
    """(n_test,) int64, the group of each test row."""
    groups_of_val: Tensor
    """(n_val,) int64, the group of each validation row."""
    preparation: Preparation
    """Of stored rows, before anything is computed on them."""

    @property
    def width(self) -> int:
        """How many features there are."""
        return len(self.preparation.low)

    @property
    def rare(self) -> int:
        """How many features are held within their range, because few training rows vary them."""
        return int(self.preparation.rare.sum())

    @property
    def note(self) -> str:
        """What whoever reads a score should know of its features, or nothing."""
        if not self.rare:
            return ""
        return (
            f"{self.rare} of {self.width} features vary in few training rows; val and test are "
            "held within the range that they have there."
        )

    @property
    def n_groups(self) -> int:
        """The number of independent groups among the test rows."""
        return len(torch.unique(self.groups))

    @abstractmethod
    def count(self, split: Split) -> int:
        """Return the number of rows of a split."""

    def blocks(self, split: Split) -> Iterator[Tensor]:
        """Yield (m, width) float32 rows of a split, finite and prepared, in order."""
        yield from map(self.preparation, self.stored_blocks(split))

    @abstractmethod
    def stored_blocks(self, split: Split) -> Iterable[Tensor]:
        """Return the same blocks as the cache has them."""


@dataclass(frozen=True)
class LoadedLayer(LayerRows):
    """The rows of one cut in memory."""

    stored: Features
    """(n, width) float32 by split, finite. Other estimators read the same memory."""

    @property
    def features(self) -> Features:
        """(n, width) float32 by split: a copy where the layer has to be prepared."""
        return {split: self.rows(split) for split in self.stored}

    def rows(self, split: Split) -> Tensor:
        """Return the (n, width) float32 rows of one split, prepared."""
        return self.preparation(self.stored[split])

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
    preparation = prepare_layer(lambda: blocks, view)
    return LoadedLayer(*held_out_groups(view), preparation, stored)


def held_out_groups(view: LayerView) -> tuple[Tensor, Tensor]:
    """Return (n_test,) and (n_val,) int64 numbers of the rows' groups."""
    numbers = [np.unique(view.groups(it), return_inverse=True)[1] for it in ("test", "val")]
    test, val = (torch.tensor(it.ravel(), dtype=torch.int64) for it in numbers)
    return test, val


def prepare_layer(read: Callable[[], Iterable[Tensor]], view: LayerView) -> Preparation:
    """Return how a layer's rows are prepared.

    Args:
        read: Returns blocks of the layer's training rows, which are (m, width), anew each time.
        view: The layer.

    Raises:
        EstimatorError: No feature varies.
    """
    preparation, known = prepare(read)
    if not bool(known.varies.any()):
        raise EstimatorError(
            f"Every feature of {view.cut.name!r} is constant over {known.count} training rows.",
            hint="The layer is dead, or the images are all alike; leave the cut out.",
        )
    return preparation


def standardised(layer: LoadedLayer) -> Features:
    """Return (n, width) float32 features by split, of mean 0 and variance 1 over training rows."""
    rule = standardiser_of(layer.rows("train"))
    return {split: rule(layer.rows(split)).float() for split in SPLITS}


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
