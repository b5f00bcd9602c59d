"""A claw hammer: a handle and a head with a face on one side and claws on the other."""

from __future__ import annotations

import numpy as np

from layerscope.render.mesh import Mesh, join
from layerscope.render.objects import categories
from layerscope.render.parts import box, plate, rod


@categories.register("hammer")
def hammer(draw: np.random.Generator) -> Mesh:
    """Return an upright hammer that strikes towards +y."""
    long, thick = draw.uniform(1.3, 1.7), draw.uniform(0.07, 0.1)
    face = draw.uniform(0.15, 0.21)
    grip = long * draw.uniform(0.35, 0.5)
    return join(
        rod((0, 0, 0), (0, 0, grip), thick * 1.5, thick * 1.3),
        rod((0, 0, grip - 0.05), (0, 0, long), thick, thick * 0.85),
        box((0.24, 0.34, 0.28), (0, 0, long)),
        rod((0, 0.1, long), (0, 0.38, long), 0.11),
        rod((0, 0.34, long), (0, 0.52, long), face, face * 0.95, sides=16),
        *_claws(long, draw),
    )


def _claws(long: float, draw: np.random.Generator) -> list[Mesh]:
    reach, drop = draw.uniform(0.5, 0.65), draw.uniform(0.15, 0.3)
    outline = [(0.1, 0.13), (-0.3, 0.1), (-reach, -drop), (-reach + 0.05, -drop - 0.03)]
    outline += [(-0.28, -0.05), (0.1, -0.13)]
    claw = plate(outline, 0.08).turned("z", 90)
    return [claw.turned("z", i * 8).moved(i * 0.07, 0, long) for i in (-1, 1)]
