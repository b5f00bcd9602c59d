"""One scene: the fixed stage of the paper, and what one image puts on it."""

from __future__ import annotations

import colorsys
import math
from dataclasses import dataclass

from layerscope.render.latents import Latents, rotation
from layerscope.render.mesh import RADIUS, Corners

Triple = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Stage:
    """What all images share, in Blender's units: metres, radians, watts."""

    camera_distance: float = 2.5
    camera_theta: float = math.pi / 4
    """From the z axis."""
    camera_phi: float = math.pi / 2
    """From the x axis."""
    field_of_view: float = 0.691111
    """Horizontal, in radians: Blender's default lens of 50 mm on 36 mm."""
    floor_height: float = -1.0
    floor_half_width: float = 20.0
    floor_saturation: float = 0.6
    floor_value: float = 0.6
    spot_distance: float = 4.0
    spot_saturation: float = 1.0
    spot_value: float = 0.8
    spot_power: float = 500.0
    """Watts, as if it shone to all sides."""
    spot_size: float = math.pi / 8
    """Full angle of the cone."""
    spot_blend: float = 0.15
    """Share of the cone over which its edge is soft: Blender's default."""
    sun_strength: float = 1.5
    """Watts per square metre, straight down."""
    object_radius: float = RADIUS

    @property
    def camera(self) -> Triple:
        """Position of the camera, which looks at the origin with z up."""
        return spherical(self.camera_distance, self.camera_theta, self.camera_phi)


STAGE = Stage()


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything a renderer needs to know for one image."""

    name: str
    """The object; scenes of one name show one object, which a renderer may keep."""
    corners: Corners
    """The object before its rotation."""
    colour: Triple
    """Linear RGB albedo of the object."""
    latents: Latents
    stage: Stage = STAGE

    @property
    def placed(self) -> Corners:
        """The object as it stands in the image."""
        return self.corners.rotated(rotation(self.latents))

    @property
    def floor_colour(self) -> Triple:
        """Linear RGB albedo of the floor."""
        stage = self.stage
        return hsv(self.latents.floor_hue, stage.floor_saturation, stage.floor_value)

    @property
    def spot_colour(self) -> Triple:
        """Linear RGB colour of the spot's light."""
        stage = self.stage
        return hsv(self.latents.spot_hue, stage.spot_saturation, stage.spot_value)

    @property
    def spot_position(self) -> Triple:
        """Position of the spot, which is aimed at the origin."""
        latents = self.latents
        return spherical(self.stage.spot_distance, latents.spot_theta, latents.spot_phi)


def spherical(distance: float, theta: float, phi: float) -> Triple:
    """Return the point at ``theta`` from the z axis and ``phi`` from the x axis."""
    across = distance * math.sin(theta)
    return across * math.cos(phi), across * math.sin(phi), distance * math.cos(theta)


def hsv(hue: float, saturation: float, value: float) -> Triple:
    """Return the RGB of a hue in turns: 0 and 1 are both red."""
    return colorsys.hsv_to_rgb(hue, saturation, value)
