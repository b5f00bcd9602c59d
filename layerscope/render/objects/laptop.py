"""A laptop, opened, with keys and a touch pad."""

from __future__ import annotations

import numpy as np

from layerscope.render.mesh import Mesh, join
from layerscope.render.objects import categories
from layerscope.render.parts import box, rod


@categories.register("laptop")
def laptop(draw: np.random.Generator) -> Mesh:
    """Return a laptop whose user sits at +y."""
    width, depth = draw.uniform(1.4, 1.7), draw.uniform(0.95, 1.15)
    thick, lean = draw.uniform(0.06, 0.11), draw.uniform(5, 35)
    base = box((width, depth, thick), (0, 0, 0))
    hinge = rod((-width * 0.4, -depth / 2, thick / 2), (width * 0.4, -depth / 2, thick / 2), 0.05)
    return join(base, hinge, *_keys(width, depth, thick, draw), _lid(width, depth, thick, lean))


def _keys(width: float, depth: float, thick: float, draw: np.random.Generator) -> list[Mesh]:
    rows, columns = int(draw.integers(3, 5)), int(draw.integers(7, 11))
    pitch, step = width * 0.86 / columns, depth * 0.5 / rows
    size = (pitch * 0.7, step * 0.65, 0.05)
    keys = [
        box(size, ((c - (columns - 1) / 2) * pitch, -depth * 0.38 + r * step, thick / 2 + 0.02))
        for r in range(rows)
        for c in range(columns)
    ]
    return [*keys, box((width * 0.32, depth * 0.22, 0.03), (0, depth * 0.32, thick / 2))]


def _lid(width: float, depth: float, thick: float, lean: float) -> Mesh:
    rim, half = 0.06, depth / 2
    parts = [box((width, 0.05, depth), (0, 0, half))]
    parts += [box((rim, 0.05, depth), (i * (width - rim) / 2, 0.04, half)) for i in (-1, 1)]
    parts += [box((width, 0.05, rim), (0, 0.04, z)) for z in (rim / 2, depth - rim / 2)]
    return join(*parts).turned("x", lean).moved(y=-depth / 2, z=thick / 2 + 0.03)
