"""A chair: seat, four legs, a back of slats, a panel or a hoop, sometimes arms."""

from __future__ import annotations

import numpy as np

from layerscope.render.mesh import Mesh, join
from layerscope.render.objects import categories
from layerscope.render.parts import box, rod, tube


@categories.register("chair")
def chair(draw: np.random.Generator) -> Mesh:
    """Return a chair whose sitter looks towards +y."""
    width, depth = draw.uniform(0.85, 1.15), draw.uniform(0.8, 1.1)
    height, back = draw.uniform(0.8, 1.1), draw.uniform(0.9, 1.4)
    seat = box((width, depth, draw.uniform(0.08, 0.16)), (0, 0, height))
    return join(
        seat,
        *_legs(width, depth, height, draw),
        *_back(width, depth, height, back, draw),
        *_arms(width, depth, height, draw),
    )


def _legs(width: float, depth: float, height: float, draw: np.random.Generator) -> list[Mesh]:
    thick, splay = draw.uniform(0.05, 0.08), draw.uniform(1.0, 1.2)
    x, y = width / 2 - thick, depth / 2 - thick
    return [
        rod((i * x, j * y, height), (i * x * splay, j * y * splay, 0), thick, thick * 0.7)
        for i in (-1, 1)
        for j in (-1, 1)
    ]


def _back(
    width: float, depth: float, height: float, back: float, draw: np.random.Generator
) -> list[Mesh]:
    x, y, top = width / 2 - 0.06, -depth / 2 + 0.06, height + back
    style = draw.integers(3)
    if style == 0:
        return [box((width, 0.09, back), (0, y, height + back / 2))]
    if style == 1:
        path = [(-x, y, height), (-x, y, top - 0.2), (-x * 0.6, y, top), (x * 0.6, y, top)]
        path += [(x, y, top - 0.2), (x, y, height)]
        bars = np.linspace(-x * 0.6, x * 0.6, int(draw.integers(3, 6)))
        return [tube(path, 0.06), *(rod((b, y, height), (b, y, top), 0.035) for b in bars)]
    posts = [box((0.1, 0.1, back), (i * x, y, height + back / 2)) for i in (-1, 1)]
    levels = np.linspace(top - 0.1, height + 0.3, int(draw.integers(2, 4)))
    return posts + [box((width, 0.07, 0.17), (0, y, level)) for level in levels]


def _arms(width: float, depth: float, height: float, draw: np.random.Generator) -> list[Mesh]:
    if draw.random() < 0.6:
        return []
    rise = draw.uniform(0.3, 0.45)
    rests = [box((0.11, depth, 0.07), (i * width / 2, 0, height + rise)) for i in (-1, 1)]
    front = depth / 2 - 0.08
    posts = [
        rod((i * width / 2, front, height), (i * width / 2, front, height + rise), 0.04)
        for i in (-1, 1)
    ]
    return rests + posts
