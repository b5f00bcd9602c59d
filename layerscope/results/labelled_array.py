"""The table of scores as an array with named axes, for whoever works on in Python."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from layerscope.errors import LayerScopeError
from layerscope.types import Score

if TYPE_CHECKING:
    import xarray

AXES = ("checkpoint", "source", "cut", "pooling", "task", "estimator", "metric")
VALUES = ("val", "test", "stderr", "n_train", "n_val", "n_test", "n_groups")
OF_A_CUT = ("depth", "part", "index")


def labelled(scores: Sequence[Score]) -> xarray.Dataset:
    """Return scores as a dataset with one axis for each part of a cell's name.

    Args:
        scores: Rows of the long table, one to a cell and metric.

    Returns:
        Float64 variables, NaN where there is no such cell or it failed. Cuts are in the order of
        their depth, of which the mean counts where networks differ; the other axes are in the order
        of the table. ``depth``, ``part`` and ``index`` lie along the cuts, if every network that
        has a cut has it at the same place.

    Raises:
        LayerScopeError: xarray is not installed.
    """
    try:
        import xarray
    except ModuleNotFoundError as error:
        raise LayerScopeError(
            f"A labelled array needs the Python package {error.name}, which is not installed.",
            hint='Install it with: pip install "layerscope[xarray]"',
        ) from error
    names = {axis: list(dict.fromkeys(getattr(it, axis) for it in scores)) for axis in AXES}
    names["cut"] = _by_depth(scores)
    values = _values(scores, names)
    return xarray.Dataset(
        {name: (AXES, values[..., i]) for i, name in enumerate(VALUES)},
        coords=names | {name: ("cut", found) for name, found in _of_cuts(scores, names["cut"])},
    )


def _by_depth(scores: Sequence[Score]) -> list[str]:
    depths: dict[str, dict[tuple[str, str], float]] = defaultdict(dict)
    for score in scores:
        depths[score.cut][score.checkpoint, score.source] = score.depth
    return sorted(depths, key=lambda cut: fmean(depths[cut].values()))


def _values(scores: Sequence[Score], names: dict[str, list[str]]) -> npt.NDArray[np.float64]:
    place = {axis: {name: i for i, name in enumerate(known)} for axis, known in names.items()}
    shape = (*(len(names[axis]) for axis in AXES), len(VALUES))
    values = np.full(shape, math.nan)
    for score in scores:
        cell = tuple(place[axis][getattr(score, axis)] for axis in AXES)
        values[cell] = [getattr(score, name) for name in VALUES]
    return values


def _of_cuts(scores: Sequence[Score], cuts: Sequence[str]) -> list[tuple[str, list[Any]]]:
    """Return what is known of every cut and the same in all networks, in the order of the cuts."""
    found = []
    for name in OF_A_CUT:
        known = {(score.cut, getattr(score, name)) for score in scores}
        if len(known) == len(cuts):
            of_cut = dict(known)
            found.append((name, [of_cut[cut] for cut in cuts]))
    return found
