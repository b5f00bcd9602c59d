import os
from pathlib import Path

import numpy as np
import pytest

from layerscope.errors import RenderError
from layerscope.render import renderers
from layerscope.render.backends.blender import BlenderRenderer, blender_command
from layerscope.render.latents import draw_latents
from layerscope.render.mesh import corners
from layerscope.render.parts import box
from layerscope.render.scene import Scene

PYTHON = os.environ.get("LAYERSCOPE_BLENDER_PYTHON")
PROGRAM = os.environ.get("LAYERSCOPE_BLENDER")
SCENE = Scene("box", corners(box((1, 0.8, 0.6)).fitted()), (0.6, 0.6, 0.6), draw_latents(0, 0, 0))


@pytest.fixture
def nothing_named(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.delenv("LAYERSCOPE_BLENDER", raising=False)
    monkeypatch.delenv("LAYERSCOPE_BLENDER_PYTHON", raising=False)
    return monkeypatch


def executable(file: Path, text: str) -> str:
    file.write_text(text)
    file.chmod(0o755)
    return str(file)


def test_without_blender_the_error_says_how_to_get_it(nothing_named, tmp_path: Path):
    nothing_named.setenv("PATH", str(tmp_path))
    with pytest.raises(RenderError, match="not found") as caught:
        BlenderRenderer().version()
    assert "pip install bpy==4.2.23" in caught.value.hint
    assert "LAYERSCOPE_BLENDER" in caught.value.hint


@pytest.mark.parametrize("variable", ["LAYERSCOPE_BLENDER", "LAYERSCOPE_BLENDER_PYTHON"])
def test_a_program_that_is_not_there_is_named(nothing_named, variable: str):
    nothing_named.setenv(variable, "/no/such/blender")
    with pytest.raises(RenderError, match="/no/such/blender"):
        blender_command()


def test_the_program_is_found_on_the_path(nothing_named, tmp_path: Path):
    program = executable(tmp_path / "blender", "#!/bin/sh\n")
    nothing_named.setenv("PATH", str(tmp_path))
    command = blender_command()
    assert command[:2] == [program, "--background"]
    assert Path(command[-1]).name == "blender_worker.py"


def test_the_last_words_of_a_process_that_ends_are_passed_on(nothing_named, tmp_path: Path):
    program = executable(tmp_path / "python", "#!/bin/sh\necho 'No module named bpy' >&2\nexit 3\n")
    nothing_named.setenv("LAYERSCOPE_BLENDER_PYTHON", program)
    with pytest.raises(RenderError, match="exit code 3: No module named bpy"):
        BlenderRenderer().version()


def test_an_error_on_a_scene_is_passed_on(nothing_named, tmp_path: Path):
    talk = '#!/bin/sh\necho Blender talks\necho \'@{"version": "9"}\'\nread job\n'
    program = executable(tmp_path / "python", talk + 'echo \'@{"error": "no lamp"}\'\n')
    nothing_named.setenv("LAYERSCOPE_BLENDER_PYTHON", program)
    renderer = BlenderRenderer()
    assert renderer.version() == "9"
    with pytest.raises(RenderError, match="no lamp"):
        renderer.render(SCENE, 16, 1, 0)


@pytest.mark.skipif(not (PYTHON or PROGRAM), reason="no Blender is named in the environment")
def test_blender_and_mitsuba_show_the_same_scene():
    pytest.importorskip("mitsuba")
    cycles = renderers["blender"]().render(SCENE, 64, 64, 1).astype(float)
    direct = renderers["mitsuba"]().render(SCENE, 64, 16, 1).astype(float)
    assert np.abs(cycles - direct).mean() < 7.5
    blocks = [image.reshape(8, 8, 8, 8, 3).mean(axis=(1, 3)).ravel() for image in (cycles, direct)]
    assert np.corrcoef(*blocks)[0, 1] > 0.94
