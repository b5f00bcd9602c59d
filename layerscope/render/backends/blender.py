"""Blender's Cycles, the paper's renderer, as a process of its own.

Blender is under the GPL and bound to one version of Python; nothing of it is loaded here.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import weakref
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as Pillow

from layerscope.errors import RenderError
from layerscope.render.renderer import Image, renderers
from layerscope.render.scene import Scene

WORKER = Path(__file__).parents[1] / "blender_worker.py"
MARK = "@"
PROGRAM = "LAYERSCOPE_BLENDER"
PYTHON = "LAYERSCOPE_BLENDER_PYTHON"
HINT = (
    f"Install Blender from https://www.blender.org and set {PROGRAM} to its program, or: "
    "python3.11 -m venv blender-env && blender-env/bin/pip install bpy==4.2.23 && "
    f"export {PYTHON}=$PWD/blender-env/bin/python"
)


@renderers.register("blender")
class BlenderRenderer:
    """Path tracing by Cycles; one Blender for each process, started at the first image."""

    name = "blender"

    def version(self) -> str:
        return self._blender.version

    def render(self, scene: Scene, size: int, samples: int, seed: int) -> Image:
        return self._blender.render(scene, size, samples, seed)

    @cached_property
    def _blender(self) -> BlenderProcess:
        return BlenderProcess(blender_command())


class BlenderProcess:
    """A running worker: jobs go in as lines of JSON, images come back as files."""

    def __init__(self, command: list[str]) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="layerscope-blender-")
        self._log = Path(self._folder.name) / "log.txt"
        self._mesh = ""
        with self._log.open("w") as log:
            self._process = _start(command, log)
        self._end = weakref.finalize(self, _stop, self._process, self._folder)
        self.version = str(self._read_answer()["version"])

    def render(self, scene: Scene, size: int, samples: int, seed: int) -> Image:
        """Return the (size, size, 3) image of a scene."""
        image = Path(self._folder.name) / "image.png"
        job = _job(scene) | {"size": size, "samples": samples, "seed": seed, "image": str(image)}
        self._send(job | {"mesh": self._write_mesh(scene)})
        self._read_answer()
        with Pillow.open(image) as picture:
            return np.array(picture.convert("RGB"), dtype=np.uint8)

    def _write_mesh(self, scene: Scene) -> str:
        """Write the object's mesh, once for all the scenes in a row that show it."""
        file = Path(self._folder.name) / f"{scene.name}.npz"
        if str(file) != self._mesh:
            form = scene.corners
            np.savez(file, positions=form.positions, normals=form.normals, faces=form.faces)
            self._mesh = str(file)
        return self._mesh

    def _send(self, job: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(job) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._exit_error() from None

    def _read_answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(MARK):
                content: dict[str, Any] = json.loads(line.removeprefix(MARK))
                if "error" in content:
                    raise RenderError(
                        f"Blender failed on a scene: {content['error']}.",
                        hint="Another version may help; 4.2 is the one that is tested.",
                    )
                return content
        raise self._exit_error()

    def _exit_error(self) -> RenderError:
        code = self._process.wait()
        last = self._log.read_text(errors="replace").strip().splitlines()[-1:]
        reason = f": {last[0]}" if last else ""
        return RenderError(f"Blender ended with exit code {code}{reason}.", hint=HINT)


def blender_command() -> list[str]:
    """Return how to start the worker.

    Raises:
        RenderError: There is no Blender; the hint says how to get one.
    """
    if python := os.environ.get(PYTHON):
        return [_require_program(PYTHON, python), str(WORKER)]
    named = os.environ.get(PROGRAM)
    program = _require_program(PROGRAM, named) if named else shutil.which("blender")
    if program is None:
        raise RenderError("The renderer blender needs Blender, which was not found.", hint=HINT)
    return [program, "--background", "--factory-startup", "--python", str(WORKER)]


def _require_program(variable: str, program: str) -> str:
    found = shutil.which(program)
    if found is None:
        raise RenderError(
            f"{variable} is {program!r}, which is not a program that can be started.", hint=HINT
        )
    return found


def _start(command: list[str], log: Any) -> subprocess.Popen[str]:
    # A session of its own: Ctrl-C reaches us, and the image in progress is still finished.
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        start_new_session=True,
    )


def _stop(process: subprocess.Popen[str], folder: tempfile.TemporaryDirectory[str]) -> None:
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()
    try:
        process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    folder.cleanup()


def _job(scene: Scene) -> dict[str, Any]:
    latents = scene.latents
    return {
        "stage": asdict(scene.stage) | {"camera": scene.stage.camera},
        "colour": scene.colour,
        "angles": [latents.yaw, latents.pitch, latents.roll],
        "floor_colour": scene.floor_colour,
        "spot_colour": scene.spot_colour,
        "spot_position": scene.spot_position,
    }
