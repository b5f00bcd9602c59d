"""Confound controls: what a score would be if layers differed in nothing but the suspected cause.

``width=N`` and ``pca=N`` give every layer N features, by a random projection with one seed or by
the leading principal components of its standardised training rows: a wide layer may win a linear
probe by its width alone. ``shuffled`` gives every row the target of another: what is still scored
above chance then is an artefact (Hewitt and Liang 2019, "Designing and interpreting probes with
control tasks"; the difference is their selectivity).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from layerscope.errors import SettingsError
from layerscope.probing.arranged_view import NarrowedView, SameView, ShuffledView
from layerscope.stats.moments import RunningMoments
from layerscope.stats.spectrum import spectrum
from layerscope.types import LayerView

_NARROWED = re.compile(r"(width|pca)=(\d+)")


@dataclass(frozen=True, slots=True)
class Control:
    """One control; that of no name changes nothing."""

    name: str
    kind: Literal["none", "width", "pca", "shuffled"] = "none"
    width: int = 0


def parse_control(name: str) -> Control:
    """Return the control that a user named: ``width=64``, ``pca=64`` or ``shuffled``.

    Raises:
        SettingsError: It is none of these.
    """
    if not name:
        return Control("")
    if name == "shuffled":
        return Control(name, "shuffled")
    found = _NARROWED.fullmatch(name)
    if found and int(found[2]):
        return Control(name, "pca" if found[1] == "pca" else "width", int(found[2]))
    raise SettingsError(
        f"There is no control {name!r}.",
        hint="Give width=64, pca=64 (or another number of features), or shuffled.",
    )


def controlled(view: LayerView, control: Control, seed: int) -> LayerView:
    """Return a layer under a control.

    Args:
        view: The layer.
        control: Which control.
        seed: Of the projection or the permutation, the same for every layer.

    Raises:
        SettingsError: The layer has fewer features than the control would give it.
    """
    if control.kind == "none":
        return view
    if control.kind == "shuffled":
        return ShuffledView(view, seed)
    if view.cut.width < control.width:
        raise SettingsError(
            f"{view.cut.name!r} has {view.cut.width} features, fewer than {control.name!r} asks.",
            hint="Give at most the width of the narrowest cut, or leave that cut out.",
        )
    if view.cut.width == control.width and control.kind == "width":
        return SameView(view)
    return NarrowedView(view, _map(view, control, seed))


def _map(view: LayerView, control: Control, seed: int) -> npt.NDArray[np.float32]:
    """Return the (width, narrower) map, of features in units of their own deviation.

    Without that the features of the largest scale would be all that a projection keeps.
    """
    rows = torch.tensor(np.asarray(view.features("train"), dtype=np.float32))
    running = RunningMoments(rows.shape[1])
    running.update(rows)
    basis = spectrum(running.compute(), whole=True)
    if control.kind == "pca":
        turned = basis.vectors[:, : control.width]
    else:
        draw = torch.Generator().manual_seed(seed)
        size = rows.shape[1], control.width
        turned = torch.randn(size, generator=draw, dtype=torch.float64) / control.width**0.5
    scaled: npt.NDArray[np.float32] = (basis.standardiser.scale[:, None] * turned).float().numpy()
    return scaled
