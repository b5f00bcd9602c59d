"""A skateboard: a deck with one kicked-up tail, trucks and four wheels."""

from __future__ import annotations

import numpy as np

from layerscope.render.mesh import Mesh, join
from layerscope.render.objects import categories
from layerscope.render.parts import arc, box, plate, rod


@categories.register("skateboard")
def skateboard(draw: np.random.Generator) -> Mesh:
    """Return a skateboard that rolls towards +y."""
    width, half = draw.uniform(0.5, 0.68), draw.uniform(0.95, 1.1)
    kick = draw.uniform(20, 38)
    return join(*_deck(width, half, kick), *_truck(width, 0.55 * half), *_truck(width, -0.6 * half))


def _deck(width: float, half: float, kick: float) -> list[Mesh]:
    x, tail = width / 2, -0.72 * half
    nose = [(a, half - x + b * 1.0) for a, b in arc((0, 0), x, 0, 180, 10)]
    flat = plate([*nose, (-x, tail), (x, tail)], 0.06).turned("x", -90)
    end = plate([*arc((0, -0.22), x, 180, 360, 10), (x, 0), (-x, 0)], 0.06).turned("x", -90)
    return [flat, end.turned("x", -kick).moved(y=tail)]


def _truck(width: float, y: float) -> list[Mesh]:
    reach, level, wheel = width / 2, -0.2, 0.13
    axle = rod((-reach, y, level), (reach, y, level), 0.04)
    block = box((0.2, 0.22, 0.2), (0, y, -0.1))
    wheels = [
        rod((i * (reach - 0.12), y, level), (i * (reach + 0.03), y, level), wheel, sides=14)
        for i in (-1, 1)
    ]
    return [axle, block, *wheels]
