"""A key: a ring-shaped bow, a shaft and a bit with teeth on one side."""

from __future__ import annotations

import numpy as np

from layerscope.render.mesh import Mesh, join
from layerscope.render.objects import categories
from layerscope.render.parts import box, rod, torus


@categories.register("key")
def key(draw: np.random.Generator) -> Mesh:
    """Return an upright key, bow on top, whose bit points to +x."""
    bow, thick = draw.uniform(0.28, 0.4), draw.uniform(0.07, 0.1)
    long = draw.uniform(1.2, 1.5)
    ring = torus(bow, thick, (0, 0, long + bow), axis="y").moved(z=-thick / 2)
    if draw.random() < 0.5:
        ring = ring.scaled(x=draw.uniform(1.15, 1.4))
    return join(
        ring,
        rod((0, 0, 0), (0, 0, long), thick),
        rod((0, 0, long - 0.12), (0, 0, long - 0.02), thick * 1.6),
        *_bit(draw),
    )


def _bit(draw: np.random.Generator) -> list[Mesh]:
    deep, count = draw.uniform(0.1, 0.14), int(draw.integers(2, 5))
    tall = draw.uniform(0.35, 0.55)
    step = tall / count
    web = box((0.3, deep, tall), (0.15, 0, 0.08 + tall / 2))
    teeth = [
        box((reach, deep, step * 0.6), (0.28 + reach / 2, 0, 0.08 + (i + 0.5) * step))
        for i, reach in enumerate(draw.uniform(0.12, 0.35, count).tolist())
    ]
    return [web, *teeth]
