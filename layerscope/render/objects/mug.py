"""A mug: a hollow cup with one handle."""

from __future__ import annotations

import numpy as np

from layerscope.render.mesh import Mesh, join
from layerscope.render.objects import categories
from layerscope.render.parts import lathe, tube


@categories.register("mug")
def mug(draw: np.random.Generator) -> Mesh:
    """Return a mug whose handle points to +x."""
    height, foot, lip = draw.uniform(0.9, 1.5), draw.uniform(0.35, 0.5), draw.uniform(0.42, 0.55)
    belly, wall = max(foot, lip) * draw.uniform(0.98, 1.12), 0.06
    outside = [(foot, 0.0), (belly, height * 0.35), (belly, height * 0.6), (lip, height)]
    inside = [(r - wall, max(z, 0.1)) for r, z in reversed(outside)]
    return join(lathe(outside + inside, sides=22), _handle(height, belly, draw))


def _handle(height: float, belly: float, draw: np.random.Generator) -> Mesh:
    reach, thick = draw.uniform(0.36, 0.52), draw.uniform(0.06, 0.09)
    low, high = height * draw.uniform(0.12, 0.25), height * draw.uniform(0.75, 0.88)
    angle = np.linspace(-np.pi / 2, np.pi / 2, 9)
    square = draw.uniform(0.5, 1.0)
    x = belly - 0.08 + reach * np.cos(angle) ** square
    z = (low + high) / 2 + (high - low) / 2 * np.sin(angle)
    return tube([(float(a), 0.0, float(b)) for a, b in zip(x, z, strict=True)], thick, sides=10)
