"""When two networks compute the same: equal module trees, or equal features of the same weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from layerscope.models.cuts import Stop, cut_points, trace
from layerscope.models.taps import Taps

TOLERANCE = 1e-5
"""Largest difference between features, relative to their largest value."""
_IMAGES = 2

_IRRELEVANT = frozenset(
    {
        "training",
        "pretrained_cfg",
        "default_cfg",
        "feature_info",
        "grad_checkpointing",
        "num_classes",
        "momentum",
        "drop_rate",
        "img_size",
        "image_size",
        "num_patches",
        "grid_size",
        "input_resolution",
        "init_values",
        "weight_init",
    }
)
"""Attributes that change nothing in evaluation, or that the size of the images implies."""


def signature(network: nn.Module) -> tuple[Any, ...]:
    """Return the module tree with every attribute that may matter, as something to compare."""
    return tuple((name, *_description(module)) for name, module in network.named_modules())


def _description(module: nn.Module) -> tuple[Any, ...]:
    if _does_nothing(module):
        return ("nothing",)
    attributes = tuple(
        (name, _plain(value))
        for name, value in sorted(vars(module).items())
        if not name.startswith("_") and name not in _IRRELEVANT
    )
    return f"{type(module).__module__}.{type(module).__qualname__}", attributes


def _does_nothing(module: nn.Module) -> bool:
    """Return whether a module returns its input in evaluation."""
    return isinstance(module, nn.Identity | nn.Dropout | nn.Dropout2d | nn.Dropout3d) or type(
        module
    ).__name__ in ("DropPath", "StochasticDepth", "PatchDropout", "PatchDropoutWithIndices")


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return tuple((str(key), _plain(item)) for key, item in sorted(value.items(), key=str))
    if isinstance(value, list | tuple):
        return tuple(_plain(item) for item in value)
    if isinstance(value, Tensor):
        return tuple(value.shape)
    if isinstance(value, partial):
        return _plain(value.func), _plain(value.args), _plain(value.keywords)
    return getattr(value, "__qualname__", type(value).__qualname__)


def same_features(networks: Sequence[tuple[nn.Module, Sequence[Stop]]], side: int) -> bool:
    """Return whether networks with the same weights have the same features at the same cuts.

    Then it does not matter which of them the weights are from: every number is the same.

    Args:
        networks: Filled, each with its stops.
        side: Side of the images, in pixels.
    """
    images = torch.randn(
        _IMAGES, 3, side, side, generator=torch.Generator().manual_seed(0), device="cpu"
    )
    first, *others = (_features(network, stops, images) for network, stops in networks)
    return all(_same(first, other) for other in others)


@torch.no_grad()
def _features(network: nn.Module, stops: Sequence[Stop], images: Tensor) -> dict[str, Tensor]:
    cuts = cut_points(trace(network, images.shape[-1]), [s for s in stops if s.module])
    taps = Taps(network, cuts)
    try:
        features = taps.run(images)
    finally:
        taps.close()
    return features | {"": network(images)}


def _same(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(
        first[name].shape == second[name].shape
        and float((first[name] - second[name]).abs().max())
        <= TOLERANCE * float(first[name].abs().max())
        for name in first
    )
