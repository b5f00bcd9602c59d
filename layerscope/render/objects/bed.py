"""A bed: frame, mattress, headboard, pillows and a folded-back blanket."""

from __future__ import annotations

import numpy as np

from layerscope.render.mesh import Mesh, join
from layerscope.render.objects import categories
from layerscope.render.parts import ball, box


@categories.register("bed")
def bed(draw: np.random.Generator) -> Mesh:
    """Return a bed whose foot points towards +y."""
    width, long = draw.uniform(1.0, 1.6), draw.uniform(1.8, 2.1)
    board, foot = draw.uniform(0.7, 1.0), draw.uniform(0.0, 0.5)
    level = draw.uniform(0.25, 0.4)
    parts = [
        box((width, long, 0.14), (0, 0, level)),
        box((width * 0.95, long * 0.97, 0.2), (0, 0, level + 0.15)),
        box((width * 0.99, long * 0.6, 0.08), (0, long * 0.19, level + 0.25)),
        box((width * 1.05, 0.1, board), (0, -long / 2, board / 2)),
    ]
    if foot > 0.2:
        parts.append(box((width * 1.05, 0.08, foot + 0.2), (0, long / 2, foot / 2 + 0.1)))
    return join(*parts, *_pillows(width, long, level), *_legs(width, long, level))


def _pillows(width: float, long: float, level: float) -> list[Mesh]:
    spots = (0.0,) if width < 1.25 else (-0.24 * width, 0.24 * width)
    half = 0.33 * width if len(spots) == 1 else 0.2 * width
    return [ball((half, 0.2, 0.1), (x, -long / 2 + 0.3, level + 0.29), sides=12) for x in spots]


def _legs(width: float, long: float, level: float) -> list[Mesh]:
    x, y = width / 2 - 0.06, long / 2 - 0.06
    return [box((0.1, 0.1, level), (i * x, j * y, level / 2)) for i in (-1, 1) for j in (-1, 1)]
