"""From a layer's output to one vector per image, in memory of its own."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from layerscope.errors import CheckpointError
from layerscope.types import Layout, Pooling

_FLAT_WIDTH = 9216

_POOLINGS: dict[Layout, tuple[Pooling, ...]] = {
    "vector": ("none",),
    "map": ("mean", "max", "flat:9k", "none"),
    "map-last": ("mean", "max", "flat:9k", "none"),
    "tokens": ("mean", "cls", "cls+mean", "max", "flat:9k", "none"),
}


def poolings_of(
    layout: Layout, prefix_tokens: int = 0, class_token: bool = True
) -> tuple[Pooling, ...]:
    """Return the poolings that an output of this layout can have, the usual one first.

    Args:
        layout: What the axes of the output are.
        prefix_tokens: How many leading tokens are no patches; without any there is no class
            token to take.
        class_token: Whether the first leading token is one; registers alone are none.
    """
    known = _POOLINGS[layout]
    if layout == "tokens" and not (prefix_tokens and class_token):
        return tuple(pooling for pooling in known if "cls" not in pooling)
    return known


def pooled_width(
    shape: tuple[int, ...], layout: Layout, pooling: Pooling, prefix_tokens: int = 0
) -> int:
    """Return the number of pooled features of an output of this shape.

    Args:
        shape: Shape of the output, the batch first.
        layout: What its axes are.
        pooling: One of :func:`poolings_of`.
        prefix_tokens: How many leading tokens are no patches.
    """
    with torch.device("meta"):
        return pool(torch.empty(shape), layout, pooling, prefix_tokens).shape[1]


def pool(output: Tensor, layout: Layout, pooling: Pooling, prefix_tokens: int = 0) -> Tensor:
    """Return (b, width) float32 features that no later operation can change.

    A captured tensor is not ours: an in-place ReLU behind the tapped layer overwrites it. A mean
    or a maximum makes new memory by itself; what is only taken or flattened is copied.

    Args:
        output: (b, c), (b, c, h, w), (b, h, w, c) or (b, n, d), as the layout says.
        layout: What its axes are.
        pooling: ``mean`` and ``max`` over positions (tokens: over patches), ``cls``, ``cls+mean``,
            ``flat:9k`` (a grid of means of about 9,000 numbers, the fixed size at which VISSL
            compares layers, Goyal et al. 2019, appendix; no finer than the map), or ``none``:
            everything, flattened.
        prefix_tokens: How many leading tokens are no patches.

    Raises:
        CheckpointError: ``flat:9k`` of patches that form no square.
    """
    values = output.detach()
    if pooling == "none":
        return values.flatten(1).float().clone()
    if layout == "tokens" and pooling == "cls":
        return values[:, 0].float().clone()
    if pooling == "flat:9k":
        return _fixed_size(_as_map(values.float(), layout, prefix_tokens))
    patches = values[:, prefix_tokens:] if layout == "tokens" else values
    if pooling == "max":
        return patches.amax(_AXES[layout]).float()
    # Summed in float32 without a float32 copy of the whole map.
    mean = patches.mean(_AXES[layout], dtype=torch.float32)
    return mean if pooling == "mean" else torch.cat([values[:, 0].float(), mean], dim=1)


_AXES: dict[Layout, tuple[int, ...]] = {"map": (2, 3), "map-last": (1, 2), "tokens": (1,)}


def _as_map(values: Tensor, layout: Layout, prefix_tokens: int) -> Tensor:
    if layout == "map":
        return values
    if layout == "map-last":
        return values.permute(0, 3, 1, 2)
    patches = values[:, prefix_tokens:]
    side = math.isqrt(patches.shape[1])
    if side**2 != patches.shape[1]:
        raise CheckpointError(
            f"{patches.shape[1]} patches form no square, so flat:9k cannot lay a grid over them.",
            hint="Choose the pooling mean or none.",
        )
    return patches.transpose(1, 2).reshape(len(patches), -1, side, side)


def _fixed_size(maps: Tensor) -> Tensor:
    side = max(math.isqrt(_FLAT_WIDTH // maps.shape[1]), 1)
    # A grid finer than the map would repeat its positions.
    grid = min(side, maps.shape[2]), min(side, maps.shape[3])
    return functional.adaptive_avg_pool2d(maps, grid).flatten(1).clone()
