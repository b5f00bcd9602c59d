"""Fits without some of the training rows: what tells how much another training sample matters.

Whole groups of training rows are dealt into a few blocks, and a probe is fitted again without each
of them. The blocks depend on groups and classes alone, so that every layer lacks the same images.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from layerscope.estimators.layer import LayerRows
from layerscope.stats.moments import BLOCK
from layerscope.stats.ridge import RidgePath
from layerscope.stats.ridge_refits import without_rows
from layerscope.stats.training_noise import choices, jackknife
from layerscope.types import LayerView, Replicates, Task

BLOCKS = 8
"""Into which the groups are dealt: more cost more fits, and fewer say less about the spread."""
SAMPLES = 8
"""Of the validation rows, for what another one would choose."""
FEWEST = 2
HALF = 0.5
MANY = 4
"""Groups to a direction from which on half of a block is taken away, and not all."""

Blocks = npt.NDArray[np.int64]
"""(n_train,) the block of each training row, from 0."""


def training_blocks(view: LayerView, task: Task | None = None) -> Blocks | None:
    """Return the block of each training row, or None where all rows are one group.

    Args:
        view: The layer.
        task: Of classes: each block gets about the same share of every class.
    """
    labels = None
    if task is not None and task.kind == "classes":
        labels = np.asarray(view.target(task.name, "train"))
    return dealt(np.asarray(view.groups("train")), labels)


def dealt(groups: npt.NDArray[np.str_], labels: npt.NDArray[np.int64] | None) -> Blocks | None:
    """Deal groups into blocks, class by class and from large ones to small ones.

    Args:
        groups: (n,) group of each row.
        labels: (n,) its class, where there are classes; the first row's is the group's.
    """
    _, first, place, size = np.unique(
        groups, return_index=True, return_inverse=True, return_counts=True
    )
    if len(first) < FEWEST:
        return None
    by_chance = np.random.default_rng(0).permutation(len(first))
    classes = np.zeros(len(first), dtype=np.int64) if labels is None else labels[first]
    order = np.lexsort((by_chance, -size, classes))
    blocks = np.empty(len(first), dtype=np.int64)
    blocks[order] = np.arange(len(first)) % min(BLOCKS, len(first))
    return np.asarray(blocks[place.ravel()])


def share_left_out(view: LayerView, path: RidgePath) -> float:
    """Return which share of a block's weight least squares is to lack.

    Half of it gives the better estimate of squared errors where rows are many for the directions
    they vary in. Where they are few a fit may pass through them whatever they weigh, and says
    nothing of what would be there without them.
    """
    return HALF if len(np.unique(view.groups("train"))) >= MANY * path.spectrum.rank else 1.0


def ridge_refits(
    layer: LayerRows,
    blocks: Blocks,
    path: RidgePath,
    targets: Tensor,
    penalties: Tensor,
    share: float = 1.0,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield (d, c) weights and (c,) intercepts of ridge without each block.

    Args:
        layer: The layer.
        blocks: Of its training rows.
        path: Ridge on all of them.
        targets: (n, c) of the training rows.
        penalties: (c,) λ of each.
        share: Of a block's weight that is taken away.
    """
    for number in range(int(blocks.max()) + 1):
        which = torch.from_numpy(blocks == number)
        rows = [
            block[part]
            for block, part in zip(layer.blocks("train"), torch.split(which, BLOCK), strict=True)
        ]
        yield without_rows(path, torch.cat(rows), targets[which], penalties, share)


def validation_weights(view: LayerView) -> Tensor:
    """Return (m, n_val) weights of the validation rows in m samples of their groups, sum 1."""
    _, place = np.unique(np.asarray(view.groups("val")), return_inverse=True)
    place, rng = place.ravel(), np.random.default_rng(0)
    count = int(place.max()) + 1
    drawn = rng.multinomial(count, np.full(count, 1 / count), SAMPLES)
    weights = torch.from_numpy(drawn[:, place]).double()
    return weights / weights.sum(1, keepdim=True)


@dataclass(frozen=True)
class Refits:
    """The (n_test,) losses of other fits of the same layer."""

    without: Sequence[Tensor]
    """Of fits without a share of each block of training rows."""
    chosen: Sequence[Tensor]
    """Of the fits that samples of the validation rows choose."""
    share: float = 1.0

    def replicates(self) -> tuple[Replicates, ...]:
        """Return them as the table keeps them."""
        if not self.without:
            return ()
        return jackknife(_rows(self.without), share=self.share), choices(_rows(self.chosen))


def _rows(losses: Sequence[Tensor]) -> npt.NDArray[np.float32]:
    return torch.stack(list(losses)).to(torch.float32).numpy()
