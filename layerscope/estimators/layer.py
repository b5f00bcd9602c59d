"""One layer as tensors: features and test groups, checked before anything is computed on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from layerscope.errors import EstimatorError
from layerscope.nouns import SPLITS, LayerView, Split


@dataclass(frozen=True, slots=True)
class Layer:
    """The rows of one cut, ready for computation."""

    features: Mapping[Split, Tensor]
    """(n, width) float32 by split, finite."""
    groups: Tensor
    """(n_test,) int64, the group of each test row."""

    def count(self, split: Split) -> int:
        """Return the number of rows of a split."""
        return len(self.features[split])

    @property
    def n_groups(self) -> int:
        """The number of independent groups among the test rows."""
        return len(torch.unique(self.groups))


def read_layer(view: LayerView) -> Layer:
    """Read a cut's features and test groups.

    Raises:
        EstimatorError: A split is empty, a feature is not finite, or no feature varies.
    """
    features = {split: _features(view, split) for split in SPLITS}
    train = features["train"]
    if not bool((train != train[0]).any()):
        raise EstimatorError(
            f"Every feature of {view.cut.name!r} is constant over {len(train)} training rows.",
            hint="The layer is dead, or the images are all alike; leave the cut out.",
        )
    _, groups = np.unique(view.groups("test"), return_inverse=True)
    return Layer(features, torch.tensor(groups.ravel(), dtype=torch.int64))


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


def _features(view: LayerView, split: Split) -> Tensor:
    rows = torch.tensor(np.asarray(view.features(split), dtype=np.float32))
    if rows.ndim != 2 or not len(rows):
        raise EstimatorError(
            f"The {split} split of {view.cut.name!r} holds features of shape {tuple(rows.shape)}.",
            hint="A probe needs rows in train, val and test; check the splits of the source.",
        )
    broken = ~rows.isfinite()
    if bool(broken.any()):
        raise EstimatorError(
            f"{int(broken.sum())} features of {view.cut.name!r} are not finite in {split}.",
            hint="They may overflow half precision; extract the cut again in float32.",
        )
    return rows
