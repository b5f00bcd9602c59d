"""Renders scenes with Blender's Cycles, in a process of its own.

Blender is under the GPL and bound to one version of Python, so this file is run by Blender or by a
Python in which ``bpy`` is installed, and imports nothing of LayerScope. It reads one JSON job from
each line of stdin and answers each with one line on stdout that starts with ``@``; Blender's own
talk has no such lines. Meshes come as npz files, images go back as PNG files.
"""

from __future__ import annotations

import json
import math
import sys
import traceback
from typing import Any

MARK = "@"


class Studio:
    """A Blender scene whose floor, lights, camera and object are set anew for each job."""

    def __init__(self, stage: dict[str, Any]) -> None:
        import bpy

        self._bpy = bpy
        bpy.ops.wm.read_factory_settings(use_empty=True)
        self._scene = bpy.context.scene
        self._world()
        self._camera(stage)
        self._sun(stage)
        self._spot = self._light("SPOT", stage["spot_power"])
        self._spot.data.spot_size = stage["spot_size"]
        self._spot.data.spot_blend = stage["spot_blend"]
        self._floor_colour = self._floor(stage)
        self._object: Any = None
        self._shown = ""

    def render(self, job: dict[str, Any]) -> None:
        """Render one job into its PNG file."""
        if job["mesh"] != self._shown:
            self._replace(job["mesh"], job["colour"])
        self._object.rotation_euler = job["angles"]
        self._floor_colour.default_value = (*job["floor_colour"], 1.0)
        self._spot.data.color = job["spot_colour"]
        self._spot.location = job["spot_position"]
        self._aim(self._spot)
        self._cycles(job)
        self._bpy.ops.render.render(write_still=True)

    def _world(self) -> None:
        world = self._bpy.data.worlds.new("dark")
        world.use_nodes = True
        world.node_tree.nodes["Background"].inputs["Color"].default_value = (0, 0, 0, 1)
        self._scene.world = world
        # The plain sRGB curve: Blender's own default, a film's look, would shift the hues.
        self._scene.view_settings.view_transform = "Standard"

    def _camera(self, stage: dict[str, Any]) -> None:
        camera = self._added("camera", self._bpy.data.cameras.new("camera"))
        camera.data.angle = stage["field_of_view"]
        camera.location = stage["camera"]
        self._aim(camera)
        self._scene.camera = camera

    def _sun(self, stage: dict[str, Any]) -> None:
        sun = self._light("SUN", stage["sun_strength"])
        sun.data.angle = math.pi / 2

    def _floor(self, stage: dict[str, Any]) -> Any:
        half, height = stage["floor_half_width"], stage["floor_height"]
        mesh = self._bpy.data.meshes.new("floor")
        square = [(-half, -half), (half, -half), (half, half), (-half, half)]
        mesh.from_pydata([(x, y, height) for x, y in square], [], [(0, 1, 2, 3)])
        self._added("floor", mesh)
        return self._matt(mesh)

    def _replace(self, file: str, colour: list[float]) -> None:
        if self._object is not None:
            self._bpy.data.meshes.remove(self._object.data)
        mesh = self._mesh(file)
        self._object = self._added("object", mesh)
        self._object.rotation_mode = "XYZ"
        self._matt(mesh).default_value = (*colour, 1.0)
        self._shown = file

    def _mesh(self, file: str) -> Any:
        import numpy as np

        with np.load(file) as content:
            positions, faces = content["positions"], content["faces"]
            normals = content["normals"]
        mesh = self._bpy.data.meshes.new("object")
        mesh.from_pydata(positions.tolist(), [], faces.tolist())
        mesh.polygons.foreach_set("use_smooth", [True] * len(mesh.polygons))
        mesh.normals_split_custom_set_from_vertices(normals.tolist())
        return mesh

    def _matt(self, mesh: Any) -> Any:
        material = self._bpy.data.materials.new("matt")
        material.use_nodes = True
        nodes, links = material.node_tree.nodes, material.node_tree.links
        nodes.clear()
        diffuse = nodes.new("ShaderNodeBsdfDiffuse")
        output = nodes.new("ShaderNodeOutputMaterial")
        links.new(diffuse.outputs["BSDF"], output.inputs["Surface"])
        mesh.materials.append(material)
        return diffuse.inputs["Color"]

    def _light(self, kind: str, energy: float) -> Any:
        light = self._bpy.data.lights.new(kind.lower(), kind)
        light.energy = energy
        return self._added(kind.lower(), light)

    def _added(self, name: str, data: Any) -> Any:
        thing = self._bpy.data.objects.new(name, data)
        self._scene.collection.objects.link(thing)
        return thing

    def _aim(self, thing: Any) -> None:
        # Cameras and lamps look along their own -z axis; +y is up in the image.
        thing.rotation_euler = (-thing.location).to_track_quat("-Z", "Y").to_euler()

    def _cycles(self, job: dict[str, Any]) -> None:
        render, cycles = self._scene.render, self._scene.cycles
        render.engine = "CYCLES"
        render.resolution_x = render.resolution_y = job["size"]
        render.threads_mode, render.threads = "FIXED", 1
        render.image_settings.file_format = "PNG"
        render.image_settings.color_mode = "RGB"
        render.filepath = job["image"]
        cycles.device = "CPU"
        cycles.samples = job["samples"]
        cycles.seed = job["seed"] % 2**31
        cycles.use_adaptive_sampling = False
        cycles.use_denoising = False


def answer(content: dict[str, Any]) -> None:
    """Write one line to the process that asked."""
    print(MARK + json.dumps(content), flush=True)


def main() -> None:
    """Work off jobs until stdin ends."""
    import bpy

    answer({"version": bpy.app.version_string})
    studio: Studio | None = None
    for line in sys.stdin:
        try:
            job = json.loads(line)
            studio = studio or Studio(job["stage"])
            studio.render(job)
            answer({"done": job["image"]})
        except Exception as error:  # noqa: BLE001 - told to the process that asked, which raises
            traceback.print_exc()
            answer({"error": f"{type(error).__name__}: {error}"})


if __name__ == "__main__":
    main()
