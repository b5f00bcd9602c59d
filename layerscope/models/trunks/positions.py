"""Position embeddings of transformers: fixed tables, and each family's way to another grid."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from layerscope.models.trunks.trunk import Resample

_TEMPERATURE = 10000.0
_TOLERANCE = 1e-3
"""Wide enough for files in half precision; another table differs by about 1."""


def bicubic(*, offset: float = 0.0, antialias: bool = False) -> Resample:
    """Return the bicubic interpolation of a grid of position embeddings.

    DINO and its heirs ask for a grid that is a tenth of a patch too large, so that rounding cannot
    lose a patch; torch then samples at that scale, and the values differ from those of a plain
    resize.

    Args:
        offset: Added to the new side before the scale is formed; 0 states the size instead.
        antialias: Whether to filter where the grid shrinks.
    """

    def resample(positions: Tensor, side: int) -> Tensor:
        old = positions.shape[1]
        wanted: dict[str, Any] = {"size": (side, side)}
        if offset:
            wanted = {"scale_factor": ((side + offset) / old, (side + offset) / old)}
        moved = functional.interpolate(
            positions.permute(0, 3, 1, 2), mode="bicubic", antialias=antialias, **wanted
        )
        return moved.permute(0, 2, 3, 1)

    return resample


def sine_cosine(side: int, width: int, *, rows_first: bool) -> Tensor:
    """Return the fixed table (1 + side², width) of sines and cosines, zero for the class token.

    Vaswani et al. 2017, section 3.5, over the two coordinates of a patch: half of the features are
    the sines and cosines of the one, half those of the other.

    Args:
        side: Patches in a row.
        width: Features, a multiple of 4.
        rows_first: Whether the first half tells the row, as in MoCo v3, or the column, as in MAE.
    """
    frequencies = _TEMPERATURE ** (-torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    angles = torch.arange(side, dtype=torch.float64)[:, None] * frequencies
    along = torch.cat([angles.sin(), angles.cos()], dim=1)
    rows = along[:, None].expand(side, side, -1)
    columns = along[None].expand(side, side, -1)
    halves = [rows, columns] if rows_first else [columns, rows]
    table = torch.cat(halves, dim=2).reshape(side * side, -1)
    return functional.pad(table, (0, 0, 1, 0)).float()


def is_sine_cosine(positions: Tensor | None, *, rows_first: bool) -> bool:
    """Return whether position embeddings (1, 1 + side², width) are the fixed table."""
    if positions is None or positions.dim() != 3 or positions.shape[0] != 1:
        return False
    _, length, width = positions.shape
    side = math.isqrt(max(length - 1, 0))
    if side < 2 or side**2 != length - 1 or width % 4:
        return False
    table = sine_cosine(side, width, rows_first=rows_first)
    return torch.allclose(positions[0].float(), table, rtol=0, atol=_TOLERANCE)
