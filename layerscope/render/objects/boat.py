"""A boat: a pointed hull with a cabin or with mast and sails."""

from __future__ import annotations

import numpy as np

from layerscope.render.mesh import Mesh, join
from layerscope.render.objects import categories
from layerscope.render.parts import box, plate, rod


@categories.register("boat")
def boat(draw: np.random.Generator) -> Mesh:
    """Return a boat that sails towards +y."""
    width, height = draw.uniform(0.6, 0.8), draw.uniform(0.3, 0.42)
    hull = _hull(width, height)
    if draw.random() < 0.5:
        return join(hull, *_cabin(width, height, draw))
    return join(hull, *_sails(height, draw))


def _hull(width: float, height: float) -> Mesh:
    side = [(0.0, 1.1), (0.55, 0.6), (0.95, 0.1), (1.0, -0.4), (0.85, -0.95)]
    outline = [(x * width / 2, y) for x, y in side] + [(-x * width / 2, y) for x, y in side[:0:-1]]
    deck = plate(outline, height).turned("x", -90)
    vertices = deck.vertices.copy()
    keel = vertices[:, 2] < 0
    vertices[keel] *= np.array([0.45, 0.8, 1.0], dtype=np.float32)
    return Mesh(vertices, deck.faces).moved(z=height / 2)


def _cabin(width: float, height: float, draw: np.random.Generator) -> list[Mesh]:
    tall, long = draw.uniform(0.28, 0.4), draw.uniform(0.5, 0.75)
    y = draw.uniform(-0.4, -0.15)
    roof = box((width * 0.72, long * 1.1, 0.06), (0, y, height + tall))
    funnel = rod((0, y - 0.1, height + tall), (0, y - 0.16, height + tall + 0.35), 0.1, 0.11)
    mast = rod((0, 0.65, height), (0, 0.65, height + draw.uniform(0.3, 0.6)), 0.03)
    return [box((width * 0.62, long, tall), (0, y, height + tall / 2)), roof, funnel, mast]


def _sails(height: float, draw: np.random.Generator) -> list[Mesh]:
    tall, y = draw.uniform(1.3, 1.8), draw.uniform(0.1, 0.3)
    main = plate([(y - 0.06, 0.15), (-0.85, 0.2), (y - 0.06, tall)], 0.04)
    fore = plate([(y + 0.06, 0.2), (1.0, 0.1), (y + 0.06, tall * 0.85)], 0.04)
    boom = rod((0, y, height + 0.14), (0, -0.9, height + 0.18), 0.03)
    swing = draw.uniform(5, 20)
    sails = [part.turned("z", 90).moved(z=height) for part in (main, fore)]
    return [rod((0, y, 0), (0, y, height + tall), 0.04), join(*sails, boom).turned("z", swing)]
