"""Rotations and circles: how latents with a topology become regression targets, and back.

Angles are in radians. Quaternions are (x, y, z, w), scalar last, as in SciPy.
"""

from __future__ import annotations

import torch
from torch import Tensor


def quaternion_from_euler(angles: Tensor) -> Tensor:
    """Return the unit quaternions of rotations about the fixed x, y, z axes, in that order.

    The convention of 3DIEBench (``scipy.spatial.transform.Rotation.from_euler("xyz", angles)``)
    and of Blender's default Euler order. For angles in ±π/2 the scalar part is positive, because
    the product of three cosines of at most π/4 exceeds the product of their sines, so absolute
    poses need no choice of sign.

    Args:
        angles: (n, 3) rotations about x, y and z in radians.

    Returns:
        (n, 4) unit quaternions (x, y, z, w).
    """
    cx, cy, cz = torch.cos(angles / 2).unbind(-1)
    sx, sy, sz = torch.sin(angles / 2).unbind(-1)
    return torch.stack(
        (
            sx * cy * cz - cx * sy * sz,
            cx * sy * cz + sx * cy * sz,
            cx * cy * sz - sx * sy * cz,
            cx * cy * cz + sx * sy * sz,
        ),
        dim=-1,
    )


def geodesic_angle(first: Tensor, second: Tensor) -> Tensor:
    """Return the angle of the rotation that leads from one orientation to the other.

    ``2 arccos |<q, q'>|`` after normalising both; q and -q are the same rotation.

    Args:
        first: (n, 4) quaternions of any non-zero length, such as a regression's output.
        second: (n, 4) quaternions.

    Returns:
        (n,) angles in [0, π] radians; π for a quaternion of length zero.
    """
    a = torch.nn.functional.normalize(first, dim=-1)
    b = torch.nn.functional.normalize(second, dim=-1)
    return 2 * torch.arccos((a * b).sum(-1).abs().clamp(max=1.0))


def circle_from_angle(angle: Tensor, period: float) -> Tensor:
    """Return the points on the unit circle that stand for values of a periodic quantity.

    Args:
        angle: (n,) values in their own unit.
        period: Length of a full turn in that unit: 2π for radians, 1 for a hue.

    Returns:
        (n, 2) sines and cosines.
    """
    turn = angle * (2 * torch.pi / period)
    return torch.stack((torch.sin(turn), torch.cos(turn)), dim=-1)


def circular_distance(point: Tensor, angle: Tensor, period: float) -> Tensor:
    """Return how far apart on the circle a predicted point's direction and a value lie.

    Args:
        point: (n, 2) predicted sines and cosines, of any length.
        angle: (n,) true values in their own unit.
        period: Length of a full turn in that unit.

    Returns:
        (n,) distances in the quantity's own unit, at most half a period.
    """
    predicted = torch.atan2(point[:, 0], point[:, 1]) * (period / (2 * torch.pi))
    offset = torch.remainder(predicted - angle, period)
    return torch.minimum(offset, period - offset)
