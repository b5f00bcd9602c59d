"""A sofa: seat cushions, a back, arms, and a foot rest at one end of some."""

from __future__ import annotations

import numpy as np

from layerscope.render.mesh import Mesh, join
from layerscope.render.objects import categories
from layerscope.render.parts import box, rod


@categories.register("sofa")
def sofa(draw: np.random.Generator) -> Mesh:
    """Return a sofa that faces +y."""
    width, depth = draw.uniform(1.6, 2.3), draw.uniform(0.8, 1.0)
    level, back = draw.uniform(0.32, 0.42), draw.uniform(0.45, 0.65)
    parts = [
        box((width, depth, level - 0.1), (0, 0, level / 2)),
        box((width, 0.22, level + back), (0, -depth / 2, (level + back) / 2 + 0.08)),
        *_cushions(width, depth, level, draw),
        *_arms(width, depth, level, draw),
    ]
    if draw.random() < 0.5:
        parts.append(box((width * 0.36, 0.7, level), (width * 0.32, depth / 2 + 0.3, level / 2)))
    return join(*parts)


def _cushions(width: float, depth: float, level: float, draw: np.random.Generator) -> list[Mesh]:
    count = int(draw.integers(2, 4))
    wide = (width - 0.1) / count
    spots = (np.arange(count) - (count - 1) / 2) * wide
    seats = [box((wide - 0.05, depth - 0.1, 0.16), (x, 0.08, level + 0.04)) for x in spots]
    return seats + [
        box((wide - 0.07, 0.15, 0.36), (x, -depth / 2 + 0.17, level + 0.28)) for x in spots
    ]


def _arms(width: float, depth: float, level: float, draw: np.random.Generator) -> list[Mesh]:
    rise, thick = draw.uniform(0.18, 0.3), draw.uniform(0.1, 0.13)
    arms = []
    for x in (-width / 2, width / 2):
        arms.append(box((2 * thick, depth, level + rise), (x, 0, (level + rise) / 2 + 0.05)))
        if rise > 0.22:
            top = level + rise + 0.05
            arms.append(rod((x, -depth / 2, top), (x, depth / 2, top), thick * 1.15))
    return arms
