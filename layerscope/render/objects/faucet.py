"""A faucet: a post, a bent spout and a lever on one side."""

from __future__ import annotations

import numpy as np

from layerscope.render.mesh import Mesh, join
from layerscope.render.objects import categories
from layerscope.render.parts import ball, lathe, rod, tube


@categories.register("faucet")
def faucet(draw: np.random.Generator) -> Mesh:
    """Return a faucet that runs towards +y, its lever at +x."""
    rise, reach = draw.uniform(0.7, 1.2), draw.uniform(0.7, 1.0)
    thick, wide = draw.uniform(0.09, 0.13), draw.uniform(0.2, 0.3)
    foot = lathe([(wide * 1.3, 0), (wide * 1.3, 0.1), (wide, 0.15), (wide * 0.8, rise * 0.45)])
    return join(foot, _spout(rise, reach, thick), *_lever(rise, wide, draw))


def _spout(rise: float, reach: float, thick: float) -> Mesh:
    bow = reach / 2
    angle = np.linspace(np.pi, -0.15 * np.pi, 12)
    path = [(0.0, 0.0, 0.1), (0.0, 0.0, rise * 0.7)]
    path += [(0.0, bow + bow * float(np.cos(a)), rise + bow * float(np.sin(a))) for a in angle]
    return tube(path, thick, sides=12)


def _lever(rise: float, wide: float, draw: np.random.Generator) -> list[Mesh]:
    level, long = rise * 0.28, draw.uniform(0.35, 0.6)
    hub, tilt = wide + 0.18, draw.uniform(15, 70)
    tip = (hub + long * np.cos(np.deg2rad(tilt)), 0.0, level + long * np.sin(np.deg2rad(tilt)))
    return [
        rod((0, 0, level), (hub, 0, level), 0.12),
        rod((hub - 0.02, 0, level), tip, 0.06, 0.045),
        ball((0.08, 0.08, 0.08), tip, sides=10),
    ]
