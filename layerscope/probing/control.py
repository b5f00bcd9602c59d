"""Confound controls: what a score would be if layers differed in nothing but the suspected cause.

``width=N`` and ``pca=N`` give every layer N features, by a random projection with one seed or by
the leading principal components of its standardised training rows: a wide layer may win a linear
probe by its width alone. ``shuffled`` gives every row the target of another: what is still scored
above chance then is an artefact (Hewitt and Liang 2019, "Designing and interpreting probes with
control tasks"; the difference is their selectivity).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from layerscope.errors import SettingsError
from layerscope.estimators.layer import shared_tensor
from layerscope.estimators.shared import once_a_view
from layerscope.probing.arranged_view import NarrowedView, SameView, ShuffledView
from layerscope.stats.moments import RunningMoments
from layerscope.stats.spectrum import Spectrum, spectrum
from layerscope.types import Control, LayerView


def controlled(view: LayerView, control: Control, seed: int) -> LayerView:
    """Return a layer under a control.

    Args:
        view: The layer.
        control: Which control.
        seed: Of the projection or the permutation, the same for every layer.

    Raises:
        SettingsError: The layer has fewer features than the control would give it.
    """
    if not control:
        return view
    if control.kind == "shuffled":
        return ShuffledView(view, seed)
    if view.cut.width < control.width:
        raise SettingsError(
            f"{view.cut.name!r} has {view.cut.width} features, fewer than {str(control)!r} asks.",
            hint="Give at most the width of the narrowest cut, or leave that cut out.",
        )
    if view.cut.width == control.width and control.kind == "width":
        return SameView(view)
    return NarrowedView(view, _map(view, control, seed))


@once_a_view
def _basis(view: LayerView) -> Spectrum:
    rows = shared_tensor(np.asarray(view.features("train"), dtype=np.float32))
    running = RunningMoments(rows.shape[1])
    running.update(rows)
    return spectrum(running.compute(), whole=True)


def _map(view: LayerView, control: Control, seed: int) -> npt.NDArray[np.float32]:
    """Return the (width, narrower) map, of features in units of their own deviation.

    Without that the features of the largest scale would be all that a projection keeps.
    """
    basis = _basis(view)
    if control.kind == "pca":
        turned = basis.vectors[:, : control.width]
    else:
        draw = torch.Generator().manual_seed(seed)
        size = view.cut.width, control.width
        turned = torch.randn(size, generator=draw, dtype=torch.float64) / control.width**0.5
    scaled: npt.NDArray[np.float32] = (basis.standardiser.scale[:, None] * turned).float().numpy()
    return scaled
