"""Confound controls: what a score would be if layers differed in nothing but the suspected cause.

``width=N`` and ``pca=N`` give every layer N features, by a random projection with one seed or by
the leading principal components, of features that are standardised by the rows that train the
probe: a wide layer may win a linear probe by its width alone. ``shuffled`` gives every row the
target of another: what a probe scores then, it owes to its own capacity and to the shares of the
classes (Hewitt and Liang 2019, "Designing and interpreting probes with control tasks"; the
difference is their selectivity). It cannot see rows that are in two splits, since targets change
places within each split: :mod:`layerscope.probing.duplicates` does.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from layerscope.errors import SettingsError
from layerscope.estimators.layer import shared_tensor
from layerscope.estimators.shared import once_a_view
from layerscope.probing.arranged_view import (
    NarrowedView,
    Rows,
    SameView,
    ShuffledView,
    gathered,
)
from layerscope.stats.moments import BLOCK, RunningMoments
from layerscope.stats.spectrum import spectrum, standardiser
from layerscope.types import Control, LayerView


def controlled(
    view: LayerView, control: Control, seed: int, train: Rows | None = None
) -> LayerView:
    """Return a layer under a control.

    Args:
        view: The layer.
        control: Which control.
        seed: Of the projection or the permutation, the same for every layer.
        train: (n,) the rows that will train, by their places in the training rows followed by the
            validation rows; None for all training rows. No other row decides how features are seen.

    Raises:
        SettingsError: The layer has fewer features than the control would give it.
    """
    if not control.equal_width:
        return relabelled(view, control, seed)
    if view.cut.width < control.width:
        raise SettingsError(
            f"{view.cut.name!r} has {view.cut.width} features, fewer than {str(control)!r} asks.",
            hint="Give at most the width of the narrowest cut, or leave that cut out.",
        )
    if view.cut.width == control.width and control.kind == "width":
        return SameView(view)
    rows = b"" if train is None else train.tobytes()
    return NarrowedView(view, _map(view, control, 0 if control.kind == "pca" else seed, rows))


def relabelled(view: LayerView, control: Control, seed: int) -> LayerView:
    """Return a layer with the targets that it has under a control, and its own features."""
    return ShuffledView(view, seed) if control.kind == "shuffled" else view


@once_a_view
def _map(view: LayerView, control: Control, seed: int, rows: bytes) -> npt.NDArray[np.float32]:
    """Return the (width, narrower) map, of features in units of their own deviation.

    Without that the features of the largest scale would be all that a projection keeps.

    Args:
        view: The layer.
        control: How many features, and which.
        seed: Of a projection.
        rows: The bytes of the places of the rows that train, which unlike an array can be a key;
            none for all training rows.
    """
    running = RunningMoments(view.cut.width)
    for block in _blocks(view, np.frombuffer(rows, np.int64)):
        running.update(shared_tensor(block))
    moments = running.compute()
    scale = standardiser(moments).scale
    if control.kind == "pca":
        found = spectrum(moments, whole=True)
        turned = _leading(found.values, found.vectors, control.width)
    else:
        draw = torch.Generator().manual_seed(seed)
        size = view.cut.width, control.width
        turned = torch.randn(size, generator=draw, dtype=torch.float64) / control.width**0.5
    scaled: npt.NDArray[np.float32] = (scale[:, None] * turned).float().numpy()
    return scaled


def _leading(values: Tensor, vectors: Tensor, count: int) -> Tensor:
    """Return (d, count) principal components, zeros for those in which training rows do not vary.

    Few rows have few directions. Whatever rounding makes of the others would be as good a feature
    as any to a probe that standardises, and shows what only rows have that do not train.
    """
    rounding = len(values) ** 0.5 * torch.finfo(torch.float32).eps
    varies = values[:count] > rounding * values[0]
    return torch.where(varies, vectors[:, :count], 0.0)


def _blocks(view: LayerView, rows: Rows) -> Iterator[npt.NDArray[np.float32]]:
    train = np.asarray(view.features("train"), dtype=np.float32)
    if not len(rows):
        yield from (train[start : start + BLOCK] for start in range(0, len(train), BLOCK))
        return
    within = rows.max() < len(train)
    val = train[:0] if within else np.asarray(view.features("val"), dtype=np.float32)
    for start in range(0, len(rows), BLOCK):
        yield gathered(train, val, rows[start : start + BLOCK])
