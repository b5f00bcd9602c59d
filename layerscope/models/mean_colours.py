"""Mean colours of an image on a grid: what can be known of it without any network."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from layerscope.models.cuts import Stop

GRIDS = (4, 16)
"""Sides of the grids: 48 and 768 numbers an image."""


class MeanColours(nn.Module):
    """Means of the channels on a square grid.

    Args:
        grid: Fields to a side. Where they do not divide the image, neighbours share a pixel; where
            the image is smaller, they repeat its pixels.
    """

    def __init__(self, grid: int) -> None:
        super().__init__()
        self.grid = grid

    def forward(self, images: Tensor) -> Tensor:
        """Return (b, 3 · grid²) means of (b, 3, h, w) images, one channel after the other."""
        return functional.adaptive_avg_pool2d(images, self.grid).flatten(1)


class PixelNetwork(nn.Module):
    """Mean colours on every grid, each a layer of its own; there are no weights."""

    def __init__(self) -> None:
        super().__init__()
        for grid in GRIDS:
            self.add_module(_name(grid), MeanColours(grid))

    def forward(self, images: Tensor) -> Tensor:
        """Return the means on the finest grid."""
        colours = images
        for layer in self.children():
            colours = layer(images)
        return colours


def stops() -> tuple[Stop, ...]:
    """Return the cut points ``pixels.4x4`` and ``pixels.16x16``."""
    return tuple(Stop(f"pixels.{_name(grid)}", _name(grid), "trunk") for grid in GRIDS)


def _name(grid: int) -> str:
    return f"{grid}x{grid}"
