"""The seven latents of an image: how they are drawn, and what they mean in space."""

from __future__ import annotations

from dataclasses import astuple, dataclass

import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation

from layerscope.rendered_set import LATENTS


@dataclass(frozen=True, slots=True)
class Latents:
    """The ground-truth factors of one image."""

    yaw: float
    pitch: float
    roll: float
    floor_hue: float
    spot_theta: float
    spot_phi: float
    spot_hue: float

    def values(self) -> tuple[float, ...]:
        """Return the seven values in the order of ``LATENTS``."""
        return astuple(self)


def draw_latents(seed: int, instance: int, view: int) -> Latents:
    """Return the latents of one image, which depend on nothing but these three numbers."""
    generator = np.random.default_rng([seed, instance, view, 1])
    low, high = zip(*((low, high) for low, high, _ in LATENTS.values()), strict=True)
    return Latents(*generator.uniform(low, high).tolist())


def rotation(latents: Latents) -> npt.NDArray[np.float64]:
    """Return the (3, 3) matrix that turns the object: about x by yaw, then y, then z.

    The axes stay fixed (extrinsic), as in SciPy's ``"xyz"`` and Blender's default ``"XYZ"``.
    """
    angles = [latents.yaw, latents.pitch, latents.roll]
    matrix: npt.NDArray[np.float64] = Rotation.from_euler("xyz", angles).as_matrix()
    return matrix
