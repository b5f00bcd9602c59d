import errno
import json
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from layerscope.errors import DiskError, RenderError, SettingsError, UnknownNameError
from layerscope.render import RenderSettings, plan, render_dataset
from layerscope.render.catalogue import catalogue
from layerscope.render.dataset import _jobs
from layerscope.render.table import table
from layerscope.render.workers import render_jobs


def content(folder: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def record(folder: Path) -> dict:
    return json.loads((folder / "dataset.json").read_text())


def test_the_layout_is_as_promised(tmp_path: Path, small: RenderSettings, drawn):
    out = render_dataset(tmp_path / "set", small, workers=1)
    images = sorted(out.glob("images/*/*.jpg"))
    assert len(images) == 15
    assert (out / "images/bed_0000/002.jpg") in images
    with Image.open(images[0]) as image:
        assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (16, 16))
    assert len((out / "latents.csv").read_text().splitlines()) == 16
    assert {path.name for path in out.iterdir()} == {
        "images",
        "latents.csv",
        "dataset.json",
        "preview.png",
    }


def test_the_record_tells_how_the_data_was_made(tmp_path: Path, small: RenderSettings, drawn):
    found = record(render_dataset(tmp_path / "set", small, workers=1))
    assert found["schema"] == "objects3d/1"
    assert found["complete"] is True
    assert (found["renderer"], found["renderer_version"]) == ("drawn", "1")
    assert found["settings"]["seed"] == 4
    assert found["latents"]["spot_theta"]["unit"] == "radians"
    assert found["splits"]["images"] == {"train": 9, "val": 3, "test": 3}
    assert found["stage"]["spot_power"] == 500


def test_a_broken_off_run_continues_to_the_same_bytes(tmp_path: Path, small: RenderSettings, drawn):
    whole = content(render_dataset(tmp_path / "whole", small, workers=1))
    sheet = drawn.count - 15
    drawn.count, drawn.fuse = 0, sheet + 7
    with pytest.raises(KeyboardInterrupt):
        render_dataset(tmp_path / "part", small, workers=1)
    assert record(tmp_path / "part")["complete"] is False
    assert len(list(tmp_path.glob("part/images/*/*.jpg"))) == 7
    drawn.count, drawn.fuse = 0, None
    assert content(render_dataset(tmp_path / "part", small, workers=1)) == whole
    assert drawn.count == 8


def test_a_finished_run_renders_nothing_again(tmp_path: Path, small: RenderSettings, drawn):
    render_dataset(tmp_path, small, workers=1)
    drawn.count = 0
    seen = []
    render_dataset(tmp_path, small, workers=1, progress=lambda *counts: seen.append(counts))
    assert drawn.count == 0
    assert seen == [(15, 15)]


def test_progress_counts_every_image(tmp_path: Path, small: RenderSettings, drawn):
    seen = []
    render_dataset(tmp_path, small, workers=1, progress=lambda *counts: seen.append(counts))
    assert seen == [(count, 15) for count in range(16)]


@pytest.mark.parametrize("change", [{"seed": 5}, {"size": 32}, {"views": 4}, {"objects": 6}])
def test_other_settings_in_the_same_folder_are_refused(
    tmp_path: Path, small: RenderSettings, drawn, change: dict
):
    render_dataset(tmp_path, small, workers=1)
    before = content(tmp_path)
    with pytest.raises(RenderError, match=next(iter(change))) as caught:
        render_dataset(tmp_path, replace(small, **change), workers=1)
    assert str(next(iter(change.values()))) in caught.value.message
    assert content(tmp_path) == before


def test_another_version_of_the_renderer_is_refused(tmp_path: Path, small: RenderSettings, drawn):
    render_dataset(tmp_path, small, workers=1)
    drawn.release = "2"
    with pytest.raises(RenderError, match=r"renderer_version '1' there, '2' here"):
        render_dataset(tmp_path, small, workers=1)


def test_images_of_unknown_origin_are_not_adopted(tmp_path: Path, small: RenderSettings, drawn):
    (tmp_path / "images").mkdir()
    with pytest.raises(RenderError, match=r"no dataset\.json"):
        render_dataset(tmp_path, small, workers=1)


@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_damaged_record_is_an_error(tmp_path: Path, small: RenderSettings, drawn, text: str):
    (tmp_path / "dataset.json").write_text(text)
    with pytest.raises(RenderError, match=r"dataset\.json"):
        render_dataset(tmp_path, small, workers=1)


def test_an_unknown_renderer_shows_the_nearest(tmp_path: Path):
    with pytest.raises(UnknownNameError, match="mitsuba"):
        render_dataset(tmp_path, RenderSettings(renderer="mitsubishi"))


@pytest.mark.parametrize("change", [{"objects": 0}, {"size": 2}, {"seed": -1}, {"samples": 0}])
def test_settings_without_sense_are_refused(change: dict):
    with pytest.raises(SettingsError, match=next(iter(change))):
        RenderSettings(**change)


def test_no_workers_are_refused(tmp_path: Path, small: RenderSettings):
    with pytest.raises(SettingsError, match="workers is 0"):
        render_dataset(tmp_path, small, workers=0)


def test_a_full_disk_keeps_what_is_finished(
    tmp_path: Path, small: RenderSettings, drawn, monkeypatch: pytest.MonkeyPatch
):
    write = Path.write_bytes

    def full(file: Path, data: bytes) -> int:
        if file.name == "001.jpg.part":
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(file, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(DiskError, match=r"001\.jpg"):
        render_dataset(tmp_path, small, workers=1)
    assert [file.name for file in tmp_path.glob("images/*/*")] == ["000.jpg"]


def test_the_plan_tells_what_a_run_writes(tmp_path: Path, small: RenderSettings):
    planned = plan(small)
    assert (planned.objects, planned.images) == (5, 15)
    assert planned.splits == {"train": 9, "val": 3, "test": 3}
    assert sum(planned.categories.values()) == 5
    assert plan(RenderSettings()).bytes == pytest.approx(77e6, rel=0.15)


def test_importing_the_room_loads_no_renderer():
    code = "import sys, layerscope.render as r; r.renderers.names(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"mitsuba", "trimesh", "torch", "bpy"} & set(done.stdout.split())


def jobs_for_blender(tmp_path: Path):
    settings = RenderSettings(objects=2, views=1, size=16, renderer="blender")
    return _jobs(tmp_path, table(catalogue(settings), settings)), settings


def test_an_error_in_a_worker_surfaces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LAYERSCOPE_BLENDER", "false")
    monkeypatch.delenv("LAYERSCOPE_BLENDER_PYTHON", raising=False)
    jobs, settings = jobs_for_blender(tmp_path)
    with pytest.raises(RenderError, match="exit code 1") as caught:
        list(render_jobs(jobs, settings, None, workers=2))
    assert "LAYERSCOPE_BLENDER" in caught.value.hint


def test_the_death_of_a_worker_surfaces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    script = tmp_path / "murderer"
    script.write_text("#!/bin/sh\nkill -9 $PPID\n")
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("LAYERSCOPE_BLENDER_PYTHON", str(script))
    jobs, settings = jobs_for_blender(tmp_path)
    with pytest.raises(RenderError, match="died"):
        list(render_jobs(jobs, settings, None, workers=2))
