"""The schema of the rendered set: ``layerscope render`` writes it, and ``objects3d`` reads it back.

A folder holds the images, ``latents.csv`` with a line for each of them, and ``dataset.json``, which
says what was asked for, what made it, and whether it is complete.
"""

from __future__ import annotations

import math
from typing import NamedTuple

TABLE, MANIFEST = "latents.csv", "dataset.json"
"""The files beside the images."""


class LatentRange(NamedTuple):
    """The values of one latent, which are uniform, as in table 1 of *Guillotine Regularization*."""

    low: float
    high: float
    unit: str


_POSE = LatentRange(-math.pi / 2, math.pi / 2, "radians")
_HUE = LatentRange(0.0, 1.0, "turns of the colour wheel")

LATENTS: dict[str, LatentRange] = {
    "yaw": _POSE,
    "pitch": _POSE,
    "roll": _POSE,
    "floor_hue": _HUE,
    "spot_theta": LatentRange(0.0, math.pi / 4, "radians"),
    "spot_phi": LatentRange(0.0, 2 * math.pi, "radians"),
    "spot_hue": _HUE,
}
"""By name, in the order of the columns. Beyond ±π/2 a pose's quaternion would change its sign."""

HEADER = ("image", "object", "category", *LATENTS, "split")
"""The columns of ``latents.csv``, in order: a path relative to the folder, with forward slashes;
the object, which all of its views share; its category; seven numbers; and a split."""
