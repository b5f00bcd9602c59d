"""An aeroplane: fuselage, swept wings, tail and engines."""

from __future__ import annotations

import numpy as np

from layerscope.render.mesh import Mesh, join, mirrored
from layerscope.render.objects import categories
from layerscope.render.parts import ball, box, lathe, plate


@categories.register("plane")
def plane(draw: np.random.Generator) -> Mesh:
    """Return a plane that flies towards +y."""
    radius = draw.uniform(0.13, 0.22)
    half = draw.uniform(0.9, 1.1)
    parts = [_fuselage(half, radius), *_tail(half, radius, draw)]
    span, chord, sweep = draw.uniform(0.9, 1.4), draw.uniform(0.35, 0.5), draw.uniform(0.0, 0.5)
    height = draw.choice([-0.6, 0.9]) * radius
    wing = _wing(span, chord, sweep).moved(0, draw.uniform(0.05, 0.25), height)
    parts.append(mirrored(wing, "x"))
    if draw.random() < 0.7:
        parts.append(mirrored(_engine(draw).moved(span * 0.4, 0.15, height - 0.1), "x"))
    else:
        parts.append(box((0.7, 0.04, 0.09), (0, half + 0.02, 0)).turned("y", draw.uniform(20, 70)))
    return join(*parts)


def _fuselage(half: float, radius: float) -> Mesh:
    profile = [(0.0, -half), (0.3, -half), (0.75, -0.4 * half), (1.0, 0.0), (1.0, 0.6 * half)]
    profile += [(0.75, 0.85 * half), (0.4, 0.96 * half), (0.0, half)]
    body = lathe([(r * radius, z) for r, z in profile], sides=16).turned("x", -90)
    cockpit = ball((0.6 * radius, 0.25, 0.5 * radius), (0, 0.65 * half, 0.75 * radius), sides=12)
    return join(body, cockpit)


def _wing(span: float, chord: float, sweep: float) -> Mesh:
    tip = chord * 0.45
    outline = [(0.0, chord / 2), (span, tip / 2 - sweep), (span, -tip / 2 - sweep)]
    return plate([*outline, (0.0, -chord / 2)], 0.06).turned("x", -90)


def _tail(half: float, radius: float, draw: np.random.Generator) -> list[Mesh]:
    rise, chord = draw.uniform(0.35, 0.55), draw.uniform(0.25, 0.35)
    fin = plate([(0, 0), (chord * 1.4, 0), (chord * 0.5, rise), (0, rise)], 0.05)
    fin = fin.turned("z", 90).moved(0, -half, radius * 0.2)
    level = draw.choice([radius * 0.3, rise])
    stabiliser = _wing(draw.uniform(0.4, 0.55), chord, 0.12).moved(0, -half + chord * 0.5, level)
    return [fin, mirrored(stabiliser, "x")]


def _engine(draw: np.random.Generator) -> Mesh:
    wide = draw.uniform(0.08, 0.12)
    profile = [(wide * 0.6, -0.2), (wide, 0.0), (wide, 0.2), (wide * 0.7, 0.2), (0.0, 0.1)]
    return lathe(profile, sides=12).turned("x", -90)
