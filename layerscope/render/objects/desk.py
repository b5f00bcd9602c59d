"""A writing desk: a top, two legs on one side and drawers on the other."""

from __future__ import annotations

import numpy as np

from layerscope.render.mesh import Mesh, join
from layerscope.render.objects import categories
from layerscope.render.parts import ball, box, rod


@categories.register("desk")
def desk(draw: np.random.Generator) -> Mesh:
    """Return a desk with its drawers at +x, opening towards +y."""
    width, depth, height = draw.uniform(1.8, 2.4), draw.uniform(0.9, 1.2), draw.uniform(0.9, 1.2)
    top = box((width, depth, draw.uniform(0.07, 0.13)), (0, 0, height))
    return join(top, *_legs(width, depth, height, draw), *_drawers(width, depth, height, draw))


def _legs(width: float, depth: float, height: float, draw: np.random.Generator) -> list[Mesh]:
    thick = draw.uniform(0.04, 0.08)
    x, y = -width / 2 + thick * 1.5, depth / 2 - thick * 1.5
    if draw.random() < 0.5:
        return [box((2 * thick, 2 * thick, height), (x, i * y, height / 2)) for i in (-1, 1)]
    return [rod((x, i * y, 0), (x, i * y, height), thick * 0.7, thick) for i in (-1, 1)]


def _drawers(width: float, depth: float, height: float, draw: np.random.Generator) -> list[Mesh]:
    count, wide = int(draw.integers(2, 5)), draw.uniform(0.55, 0.75)
    x, deep = width / 2 - wide / 2 - 0.04, depth - 0.1
    parts = [box((wide, deep, height), (x, 0, height / 2))]
    for level in (np.arange(count) + 0.5) * (height / count):
        parts.append(box((wide - 0.1, 0.1, height / count - 0.07), (x, deep / 2, level)))
        parts.append(ball((0.06, 0.06, 0.06), (x, deep / 2 + 0.09, level), sides=8))
    return parts
