"""The parts that objects are put together from: boxes, rods, tubes, lathes and cut-out plates."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from layerscope.render.mesh import Floats, Mesh, new_mesh

Point = Sequence[float]
Outline = Sequence[tuple[float, float]]


def box(size: Point, centre: Point = (0.0, 0.0, 0.0)) -> Mesh:
    """Return a box of ``size`` (x, y, z)."""
    half = np.asarray(size, dtype=np.float64) / 2
    corner = np.array([[x, y, z] for z in (-1, 1) for y in (-1, 1) for x in (-1, 1)])
    sides = [(0, 2, 3, 1), (4, 5, 7, 6), (0, 1, 5, 4), (2, 6, 7, 3), (0, 4, 6, 2), (1, 3, 7, 5)]
    faces = [triangle for a, b, c, d in sides for triangle in ((a, b, c), (a, c, d))]
    return new_mesh(corner * half + np.asarray(centre), faces)


def rod(
    start: Point, end: Point, radius: float, end_radius: float | None = None, sides: int = 14
) -> Mesh:
    """Return a round bar from ``start`` to ``end``, tapered to ``end_radius`` if that is given."""
    radii = [radius, radius if end_radius is None else end_radius]
    return tube([start, end], radii, sides=sides)


def tube(
    path: Sequence[Point], radius: float | Sequence[float], sides: int = 12, closed: bool = False
) -> Mesh:
    """Return a round tube along ``path``.

    Args:
        path: At least two points; for a closed tube the first is not repeated.
        radius: One radius, or one for each point.
        sides: Corners of the cross-section.
        closed: Whether the last point is joined to the first; otherwise the ends are capped.
    """
    points = np.asarray(path, dtype=np.float64)
    radii = np.broadcast_to(np.asarray(radius, dtype=np.float64), len(points))
    angle = np.linspace(0, 2 * np.pi, sides, endpoint=False)
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    frames = _frames(points, closed)
    rings = points[:, None] + radii[:, None, None] * (circle @ frames)
    return _skin(rings, closed)


def torus(
    radius: float, thickness: float, centre: Point = (0.0, 0.0, 0.0), axis: str = "z"
) -> Mesh:
    """Return a ring of tube radius ``thickness`` whose axis is ``x``, ``y`` or ``z``."""
    angle = np.linspace(0, 2 * np.pi, 20, endpoint=False)
    flat = np.array([np.zeros(20), radius * np.cos(angle), radius * np.sin(angle)])
    path = np.roll(flat, "xyz".index(axis), axis=0).T
    return tube((path + np.asarray(centre)).tolist(), thickness, sides=10, closed=True)


def ball(radii: Point, centre: Point = (0.0, 0.0, 0.0), sides: int = 16) -> Mesh:
    """Return an ellipsoid with half-axes ``radii`` (x, y, z)."""
    angle = np.linspace(-np.pi / 2, np.pi / 2, sides // 2 + 1)
    profile = [(float(max(np.cos(a), 0.0)), float(np.sin(a))) for a in angle]
    x, y, z = radii
    return lathe(profile, sides).scaled(x, y, z).moved(*centre)


def lathe(profile: Outline, sides: int = 20) -> Mesh:
    """Return the surface swept by a profile turned about the z axis.

    Args:
        profile: (radius, height) pairs, from the bottom up along the outside; where it ends off
            the axis a flat cap closes it.
        sides: Corners of the cross-section.
    """
    angle = np.linspace(0, 2 * np.pi, sides, endpoint=False)
    circle = np.stack([np.cos(angle), np.sin(angle), np.zeros(sides)], axis=1)
    rings = np.array([r * circle + np.array([0.0, 0.0, z]) for r, z in profile])
    return _skin(rings, closed=False)


def plate(outline: Outline, thickness: float) -> Mesh:
    """Return a plate cut along ``outline`` in the x-z plane, centred at y = 0.

    Args:
        outline: (x, z) corners of a simple polygon, concave or not, in either direction.
        thickness: Extent along y.
    """
    flat = np.asarray(outline, dtype=np.float64)
    if _area(flat) < 0:
        flat = flat[::-1]
    count = len(flat)
    half = thickness / 2
    front = np.stack([flat[:, 0], np.full(count, half), flat[:, 1]], axis=1)
    back = front - np.array([0.0, thickness, 0.0])
    lid = _ears(flat)
    wall = [(i, (i + 1) % count) for i in range(count)]
    faces = [(a, c, b) for a, b, c in lid]
    faces += [(a + count, b + count, c + count) for a, b, c in lid]
    faces += [t for i, j in wall for t in ((i, j, j + count), (i, j + count, i + count))]
    return new_mesh(np.concatenate([front, back]), faces)


def arc(
    centre: tuple[float, float], radius: float, start: float, stop: float, steps: int = 8
) -> list[tuple[float, float]]:
    """Return ``steps`` + 1 points of a circle, angles in degrees."""
    angles = np.deg2rad(np.linspace(start, stop, steps + 1))
    return [
        (float(centre[0] + radius * np.cos(a)), float(centre[1] + radius * np.sin(a)))
        for a in angles
    ]


def _frames(points: Floats, closed: bool) -> Floats:
    """Carry one pair of directions across the path along it, turning as little as possible."""
    if closed:
        tangents = np.roll(points, -1, axis=0) - np.roll(points, 1, axis=0)
    else:
        tangents = np.gradient(points, axis=0)
    tangents /= np.linalg.norm(tangents, axis=1, keepdims=True)
    across = np.cross(tangents[0], np.eye(3)[np.abs(tangents[0]).argmin()])
    frames = np.empty((len(points), 2, 3))
    for index, tangent in enumerate(tangents):
        across = across - (across @ tangent) * tangent
        across /= np.linalg.norm(across)
        frames[index] = across, np.cross(tangent, across)
    return frames


def _skin(rings: Floats, closed: bool) -> Mesh:
    """Join (R, S, 3) rings, counter-clockwise about the direction of travel, into a surface."""
    count, sides = rings.shape[:2]
    index = np.arange(count * sides).reshape(count, sides)
    lower = index if closed else index[:-1]
    upper = np.roll(index, -1, axis=0) if closed else index[1:]
    right, above = np.roll(lower, -1, axis=1), np.roll(upper, -1, axis=1)
    faces = [np.stack([lower, right, above], -1), np.stack([lower, above, upper], -1)]
    vertices = rings.reshape(-1, 3)
    if not closed:
        vertices = np.concatenate([vertices, rings[[0, -1]].mean(axis=1)])
        first, last = count * sides, count * sides + 1
        start, end = index[0], index[-1]
        faces.append(np.stack([np.roll(start, -1), start, np.full(sides, first)], -1))
        faces.append(np.stack([end, np.roll(end, -1), np.full(sides, last)], -1))
    return new_mesh(vertices, np.concatenate([part.reshape(-1, 3) for part in faces]))


def _area(flat: Floats) -> float:
    x, y = flat[:, 0], flat[:, 1]
    return float(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2


def _ears(flat: Floats) -> list[tuple[int, int, int]]:
    """Triangulate a counter-clockwise polygon by cutting off one ear after another."""
    left = list(range(len(flat)))
    triangles = []
    while len(left) > 3:
        spot = next((i for i in range(len(left)) if _is_ear(flat, left, i)), 0)
        triangles.append((left[spot - 1], left[spot], left[(spot + 1) % len(left)]))
        left.pop(spot)
    return [*triangles, (left[0], left[1], left[2])]


def _is_ear(flat: Floats, left: list[int], spot: int) -> bool:
    names = [left[spot - 1], left[spot], left[(spot + 1) % len(left)]]
    a, b, c = flat[names]
    if _cross(b - a, c - b) <= 1e-12:
        return False
    others = flat[[i for i in left if i not in names]]
    inside = [_cross(q - p, others - p) >= -1e-12 for p, q in ((a, b), (b, c), (c, a))]
    return not bool(np.logical_and.reduce(inside).any())


def _cross(first: Floats, second: Floats) -> npt.NDArray[np.float64]:
    product: npt.NDArray[np.float64] = first[..., 0] * second[..., 1]
    return product - first[..., 1] * second[..., 0]
