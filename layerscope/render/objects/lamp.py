"""A desk lamp: a foot, an angled arm of two rods and a shade that points forward."""

from __future__ import annotations

import numpy as np

from layerscope.render.mesh import Mesh, join
from layerscope.render.objects import categories
from layerscope.render.parts import ball, box, lathe, rod


@categories.register("lamp")
def lamp(draw: np.random.Generator) -> Mesh:
    """Return a desk lamp that shines towards +y."""
    lean, reach = draw.uniform(0.25, 0.5), draw.uniform(0.5, 0.8)
    elbow = (0.0, -lean, draw.uniform(0.75, 1.0))
    head = (0.0, -lean + reach, elbow[2] + draw.uniform(0.25, 0.5))
    thick = draw.uniform(0.04, 0.06)
    return join(
        _foot(draw),
        rod((0, 0, 0.05), elbow, thick),
        ball((0.09, 0.09, 0.09), elbow, sides=10),
        rod(elbow, head, thick),
        _shade(draw).turned("x", draw.uniform(35, 65)).moved(*head),
    )


def _foot(draw: np.random.Generator) -> Mesh:
    wide, thick = draw.uniform(0.35, 0.45), draw.uniform(0.08, 0.14)
    if draw.random() < 0.3:
        return box((2 * wide, 1.5 * wide, thick), (0, 0, thick / 2))
    return lathe([(wide, 0), (wide, thick * 0.6), (wide * 0.7, thick)], sides=20)


def _shade(draw: np.random.Generator) -> Mesh:
    wide, deep = draw.uniform(0.32, 0.42), draw.uniform(0.4, 0.6)
    neck = draw.uniform(0.09, 0.14)
    bulge = draw.uniform(0.5, 0.85) * wide
    inside = [(0.0, -0.1), (bulge - 0.05, -deep * 0.45), (wide - 0.05, -deep)]
    outside = [(wide, -deep), (bulge, -deep * 0.45), (neck, 0.12)]
    return lathe(inside + outside, sides=18)
