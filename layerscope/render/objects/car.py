"""A car: saloon, van or pick-up, by its side outline."""

from __future__ import annotations

import numpy as np

from layerscope.render.mesh import Mesh, join
from layerscope.render.objects import categories
from layerscope.render.parts import Outline, box, plate, rod

SILL = ((-1, 0.2), (1, 0.2))
SHAPES: tuple[Outline, ...] = (
    (*SILL, (1, 0.48), (0.5, 0.58), (0.2, 0.95), (-0.5, 0.95), (-0.8, 0.6), (-1, 0.58)),
    (*SILL, (1, 0.55), (0.75, 0.62), (0.5, 1.1), (-0.97, 1.12)),
    (*SILL, (1, 0.6), (0.55, 0.65), (0.35, 1.05), (-0.2, 1.05), (-0.25, 0.55), (-1, 0.55)),
)
"""Length and height of the body: saloon, van, pick-up."""


@categories.register("car")
def car(draw: np.random.Generator) -> Mesh:
    """Return a car that drives towards +y."""
    outline = SHAPES[int(draw.integers(len(SHAPES)))]
    tall, width = draw.uniform(0.85, 1.15), draw.uniform(0.8, 0.95)
    body = plate([(x, z * tall) for x, z in outline], width).turned("z", 90)
    bumper = box((width * 1.04, 0.12, 0.12), (0, 1.0, 0.28))
    return join(body, bumper, *_wheels(width, draw), *_lamps(width))


def _wheels(width: float, draw: np.random.Generator) -> list[Mesh]:
    radius, base = draw.uniform(0.19, 0.25), draw.uniform(0.56, 0.66)
    inner, outer = width / 2 - 0.12, width / 2 + 0.06
    return [
        rod((i * inner, y, radius), (i * outer, y, radius), radius, sides=18)
        for i in (-1, 1)
        for y in (-base, base)
    ]


def _lamps(width: float) -> list[Mesh]:
    return [box((0.16, 0.06, 0.1), (i * width * 0.35, 1.0, 0.42)) for i in (-1, 1)]
