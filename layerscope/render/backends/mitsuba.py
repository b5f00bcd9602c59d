"""Mitsuba 3: installed by pip alone, needs no display and no GPU.

Two lights reach a surface. The spot has no extent, so one shadow ray tells exactly what of it
arrives. The paper's sun is the opposite: 90° wide, so that it casts no shadow on the floor. Tracing
it would cost most of the time and leave grain; but without shadows its light depends on the
surface's direction alone, so it is integrated once for each corner of the mesh and handed over as
light that the surface gives off, and so is what the sunlit floor reflects. That makes every image
free of grain: samples only smooth edges, and few are enough.
"""

from __future__ import annotations

import math
from functools import cached_property
from types import ModuleType
from typing import Any

import numpy as np

from layerscope.errors import RenderError
from layerscope.render.mesh import Corners, Floats
from layerscope.render.renderer import Image, renderers
from layerscope.render.scene import Scene, Stage, Triple

SUN_HALF_ANGLE = math.pi / 4


@renderers.register("mitsuba")
class MitsubaRenderer:
    """Direct light by Mitsuba's scalar variant, one thread for each process."""

    name = "mitsuba"

    def version(self) -> str:
        return str(self._library.__version__)

    def render(self, scene: Scene, size: int, samples: int, seed: int) -> Image:
        mi = self._library
        content = _description(mi, scene) | {"sensor": _sensor(mi, scene.stage, size, samples)}
        image = mi.render(mi.load_dict(content), spp=samples, seed=seed)
        shown = mi.Bitmap(image).convert(
            mi.Bitmap.PixelFormat.RGB, mi.Struct.Type.UInt8, srgb_gamma=True
        )
        return np.array(shown, dtype=np.uint8)

    @cached_property
    def _library(self) -> ModuleType:
        return _load()


def _load() -> ModuleType:
    try:
        import drjit
        import mitsuba
    except ModuleNotFoundError as error:
        raise RenderError(
            f"The renderer mitsuba needs the Python package {error.name}, which is not installed.",
            hint='Install it with: pip install "layerscope[render]"',
        ) from error
    except ImportError as error:
        raise RenderError(
            f"The renderer mitsuba cannot be loaded: {error}.", hint=_system_hint(str(error))
        ) from error
    mitsuba.set_variant("scalar_rgb")
    mitsuba.set_log_level(mitsuba.LogLevel.Error)
    drjit.set_thread_count(1)
    library: ModuleType = mitsuba
    return library


def _system_hint(reason: str) -> str:
    if "libatomic" in reason:
        return "Install the system library with: apt-get install libatomic1"
    return 'Install it again with: pip install --force-reinstall "layerscope[render]"'


def _description(mi: ModuleType, scene: Scene) -> dict[str, Any]:
    return {
        "type": "scene",
        # One ray to the spot at every hit, and no ray in search of the light given off.
        "integrator": {"type": "direct", "emitter_samples": 1, "bsdf_samples": 0},
        "floor": _floor(mi, scene),
        "spot": _spot(mi, scene),
        "object": _object(mi, scene),
    }


def _sensor(mi: ModuleType, stage: Stage, size: int, samples: int) -> dict[str, Any]:
    return {
        "type": "perspective",
        "fov": math.degrees(stage.field_of_view),
        "to_world": mi.ScalarTransform4f().look_at(list(stage.camera), [0, 0, 0], [0, 0, 1]),
        "film": {
            "type": "hdrfilm",
            "width": size,
            "height": size,
            "pixel_format": "rgb",
            "rfilter": {"type": "box"},
        },
        "sampler": {"type": "stratified", "sample_count": samples},
    }


def _floor(mi: ModuleType, scene: Scene) -> dict[str, Any]:
    stage = scene.stage
    place = mi.ScalarTransform4f().translate([0, 0, stage.floor_height])
    glow = [stage.sun_strength / math.pi * part for part in scene.floor_colour]
    return {
        "type": "rectangle",
        "to_world": place.scale(stage.floor_half_width),
        "bsdf": _matt(scene.floor_colour),
        "glow": _glow({"type": "rgb", "value": glow}),
    }


def _spot(mi: ModuleType, scene: Scene) -> dict[str, Any]:
    """Describe the spot in Mitsuba's units.

    Blender's watts are those of a lamp that shines to all sides: P / 4π watts for each steradian,
    which is what Mitsuba's intensity means. Blender's size is the full angle of the cone; its edge
    is soft where the cosine lies within ``blend`` of the way from the rim to the axis.
    """
    stage = scene.stage
    rim = math.cos(stage.spot_size / 2)
    strength = stage.spot_power / (4 * math.pi)
    return {
        "type": "spot",
        # Any direction across the beam serves as "up": the cone is round.
        "to_world": mi.ScalarTransform4f().look_at(
            list(scene.spot_position), [0, 0, 0], [0.1, 1.0, 0.01]
        ),
        "cutoff_angle": math.degrees(stage.spot_size / 2),
        "beam_width": math.degrees(math.acos(rim + stage.spot_blend * (1 - rim))),
        "intensity": {"type": "rgb", "value": [strength * part for part in scene.spot_colour]},
    }


def _object(mi: ModuleType, scene: Scene) -> Any:
    corners = scene.placed
    properties = mi.Properties()
    properties["bsdf"] = mi.load_dict({"type": "twosided", "inner": _matt(scene.colour)})
    properties["glow"] = mi.load_dict(_glow({"type": "mesh_attribute", "name": "vertex_glow"}))
    counts = len(corners.positions), len(corners.faces)
    mesh = mi.Mesh("object", *counts, has_vertex_normals=True, props=properties)
    mesh.add_attribute("vertex_glow", 3, _sunlit(corners, scene).astype(np.float32).ravel())
    buffers = mi.traverse(mesh)
    buffers["vertex_positions"] = corners.positions.ravel()
    buffers["vertex_normals"] = corners.normals.ravel()
    buffers["faces"] = corners.faces.ravel().astype(np.uint32)
    buffers.update()
    return mesh


def _matt(colour: Triple) -> dict[str, Any]:
    return {"type": "diffuse", "reflectance": {"type": "rgb", "value": list(colour)}}


def _glow(radiance: dict[str, Any]) -> dict[str, Any]:
    # Weight 0: no ray is spent on it, it is only seen.
    return {"type": "area", "radiance": radiance, "sampling_weight": 0.0}


def _sunlit(corners: Corners, scene: Scene) -> Floats:
    """Return the (C, 3) radiance that the object's corners reflect of the sun and of the floor."""
    normals = corners.normals.astype(np.float64)
    towards, strengths = _sun_rays(scene.stage.sun_strength)
    from_sun = np.maximum(normals @ towards.T, 0.0) @ strengths
    seen_floor = (1.0 - normals[:, 2]) / 2  # share of an endless floor in the view of a surface
    from_floor = scene.stage.sun_strength * np.outer(seen_floor, scene.floor_colour)
    arriving = from_sun[:, None] + from_floor
    reflected: Floats = arriving * np.array(scene.colour) / math.pi
    return reflected


def _sun_rays(strength: float, count: int = 256) -> tuple[Floats, Floats]:
    """Return (count, 3) directions over the sun's disc and their irradiances.

    The points are spread evenly over the disc's projection onto the floor (a sunflower), and scaled
    so that the floor receives ``strength`` watts per square metre.
    """
    step = np.arange(count)
    reach = np.sqrt((step + 0.5) / count) * math.sin(SUN_HALF_ANGLE)
    angle = step * math.pi * (3 - math.sqrt(5))
    height = np.sqrt(1 - reach**2)
    towards = np.stack([reach * np.cos(angle), reach * np.sin(angle), height], axis=1)
    return towards, strength / count / height
