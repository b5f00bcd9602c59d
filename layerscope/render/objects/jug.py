"""A jug: a bellied vessel with a spout in front and a handle behind."""

from __future__ import annotations

import numpy as np

from layerscope.render.mesh import Mesh, join
from layerscope.render.objects import categories
from layerscope.render.parts import lathe, rod, tube


@categories.register("jug")
def jug(draw: np.random.Generator) -> Mesh:
    """Return a jug that pours towards +y."""
    height, belly = draw.uniform(1.3, 1.8), draw.uniform(0.45, 0.62)
    neck, foot = belly * draw.uniform(0.35, 0.55), belly * draw.uniform(0.6, 0.8)
    low, high = height * draw.uniform(0.25, 0.4), height * draw.uniform(0.68, 0.78)
    outside = [(foot, 0.0), (belly * 0.95, low * 0.6), (belly, low), (belly * 0.85, low * 1.4)]
    outside += [(neck, high), (neck, height * 0.9), (neck * 1.25, height)]
    inside = [(neck * 1.1, height), (neck * 0.8, high), (0.0, high)]
    body = lathe(outside + inside, sides=20)
    return join(body, _spout(height, neck, draw), _handle(height, neck, belly, low))


def _spout(height: float, neck: float, draw: np.random.Generator) -> Mesh:
    reach = draw.uniform(0.2, 0.4)
    start, end = (0.0, neck * 0.9, height * 0.8), (0.0, neck + reach, height * 0.97)
    return rod(start, end, neck * 0.42, neck * 0.2, sides=12)


def _handle(height: float, neck: float, belly: float, low: float) -> Mesh:
    top, out = height * 0.9, belly + 0.28
    path = [(0, -neck * 0.8, top), (0, -neck - 0.25, top + 0.06), (0, -out, top - 0.22)]
    path += [(0, -out, low + 0.35), (0, -belly * 0.85, low + 0.08)]
    return tube(path, 0.075, sides=10)
