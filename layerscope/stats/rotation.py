"""Rotations and circles: how latents with a topology become regression targets, and back.

Angles are in radians. Quaternions are (x, y, z, w), scalar last, as in SciPy.
"""

from __future__ import annotations

import torch
from torch import Tensor


def quaternion_from_euler(angles: Tensor) -> Tensor:
    """Return the unit quaternions of rotations about the fixed x, y, z axes, in that order.

    The convention of 3DIEBench (``scipy.spatial.transform.Rotation.from_euler("xyz", angles)``)
    and of Blender's default Euler order. q and −q are the same rotation; the one is returned whose
    scalar part is not negative, as SciPy's ``as_quat(canonical=True)``. For angles in ±π/2 that is
    the product of half angles as it is, because the product of three cosines of at most π/4
    exceeds the product of their sines.

    Args:
        angles: (n, 3) rotations about x, y and z in radians.

    Returns:
        (n, 4) unit quaternions (x, y, z, w) with w ≥ 0.
    """
    cx, cy, cz = torch.cos(angles / 2).unbind(-1)
    sx, sy, sz = torch.sin(angles / 2).unbind(-1)
    scalar = cx * cy * cz + sx * sy * sz
    quaternions = torch.stack(
        (
            sx * cy * cz - cx * sy * sz,
            cx * sy * cz + sx * cy * sz,
            cx * cy * sz - sx * sy * cz,
            scalar,
        ),
        dim=-1,
    )
    return torch.where(scalar[..., None] < 0, -quaternions, quaternions)


def nearer_sign(predicted: Tensor, quaternions: Tensor) -> Tensor:
    """Return each quaternion or its negative, whichever is nearer to what was predicted of it.

    Both are the same rotation, so that which of them a regression comes near is no error.

    Args:
        predicted: (..., 4) of any length.
        quaternions: (..., 4), of that shape or one that is broadcast to it.

    Returns:
        (..., 4); the quaternion itself where both are as near.
    """
    opposite = (predicted * quaternions).sum(-1, keepdim=True) < 0
    return torch.where(opposite, -quaternions, quaternions)


def geodesic_angle(first: Tensor, second: Tensor) -> Tensor:
    """Return the angle of the rotation that leads from one orientation to the other.

    Twice the angle between the unit quaternions or their negatives, whichever is less: 2 arccos
    |⟨q, q'⟩|, by the arctangent of half difference over half sum, which is exact for small angles
    (Kahan 2006, "How Futile are Mindless Assessments of Roundoff in Floating-Point Computation?").

    Args:
        first: (..., 4) quaternions of any non-zero length, such as a regression's output.
        second: (..., 4) quaternions.

    Returns:
        (...) angles in [0, π] radians; π for a quaternion of length zero.
    """
    a = torch.nn.functional.normalize(first, dim=-1)
    b = torch.nn.functional.normalize(second, dim=-1)
    apart, together = (a - b).norm(dim=-1), (a + b).norm(dim=-1)
    return 4 * torch.atan2(torch.minimum(apart, together), torch.maximum(apart, together))


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
        point: (..., 2) predicted sines and cosines, of any length.
        angle: (...) true values in their own unit.
        period: Length of a full turn in that unit.

    Returns:
        (...) distances in the quantity's own unit, at most half a period.
    """
    predicted = torch.atan2(point[..., 0], point[..., 1]) * (period / (2 * torch.pi))
    offset = torch.remainder(predicted - angle, period)
    return torch.minimum(offset, period - offset)
