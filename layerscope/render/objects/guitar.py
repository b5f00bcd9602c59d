"""A guitar: a waisted body with a sound hole, a neck and a head with pegs."""

from __future__ import annotations

import numpy as np

from layerscope.render.mesh import Mesh, join
from layerscope.render.objects import categories
from layerscope.render.parts import box, plate, rod, torus


@categories.register("guitar")
def guitar(draw: np.random.Generator) -> Mesh:
    """Return a guitar that stands upright with its strings towards +y."""
    deep, long = draw.uniform(0.18, 0.28), draw.uniform(0.95, 1.25)
    front, hole = deep / 2, draw.uniform(0.11, 0.15)
    neck = box((0.15, 0.09, long), (0, front, 0.55 + long / 2))
    strings = [
        rod((x, front + 0.06, -0.3), (x, front + 0.06, 0.6 + long), 0.012, sides=5)
        for x in (-0.045, 0.0, 0.045)
    ]
    return join(
        plate(_outline(draw), deep),
        torus(hole, 0.03, (0, front, 0.2), axis="y"),
        box((0.36, 0.08, 0.07), (0, front + 0.03, -0.3)),
        neck,
        *strings,
        *_head(front, 0.55 + long, draw),
    )


def _outline(draw: np.random.Generator) -> list[tuple[float, float]]:
    angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    lower, waist = draw.uniform(0.46, 0.56), draw.uniform(0.1, 0.18)
    height = -np.cos(angle) * 0.62
    width = lower * np.abs(np.sin(angle)) ** 0.6 * (1 - 0.2 * (height + 0.62) / 1.24)
    width -= waist * np.exp(-(((height - 0.12) / 0.17) ** 2))
    side = np.sign(np.sin(angle))
    return list(zip((side * np.maximum(width, 0.0)).tolist(), height.tolist(), strict=True))


def _head(front: float, level: float, draw: np.random.Generator) -> list[Mesh]:
    tall = draw.uniform(0.28, 0.38)
    board = plate([(-0.08, 0), (0.08, 0), (0.14, tall), (-0.14, tall)], 0.07)
    pegs = [
        rod((0, 0, z), (i * 0.22, 0, z), 0.025, 0.045, sides=8)
        for i in (-1, 1)
        for z in np.linspace(0.08, tall - 0.06, 3)
    ]
    return [join(board, *pegs).turned("x", 12).moved(y=front, z=level)]
