import builtins
from pathlib import Path

import numpy as np
import pytest

from layerscope.errors import RenderError
from layerscope.render import RenderSettings, render_dataset
from layerscope.render.catalogue import catalogue, shape
from layerscope.render.parts import box

TRIANGLES = box((3, 2, 1), (10, 0, 0))


def as_obj() -> str:
    points = [f"v {x} {y} {z}" for x, y, z in TRIANGLES.vertices.tolist()]
    return "\n".join(points + [f"f {a} {b} {c}" for a, b, c in (TRIANGLES.faces + 1).tolist()])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    trimesh = pytest.importorskip("trimesh")
    home = tmp_path / "meshes"
    for name in ("brick", "plank"):
        (home / name / "deeper").mkdir(parents=True)
        (home / name / "a.obj").write_text(as_obj())
    whole = trimesh.Trimesh(TRIANGLES.vertices, TRIANGLES.faces)
    for suffix in ("ply", "glb", "stl"):
        whole.export(home / "brick" / f"b.{suffix}")
    whole.export(home / "plank" / "deeper" / "c.ply")
    (home / "brick" / "notes.txt").write_text("not a mesh")
    return home


def settings(folder: Path, objects: int = 400) -> RenderSettings:
    return RenderSettings(
        objects=objects, views=1, size=16, renderer="drawn", samples=1, meshes=folder
    )


def test_subfolders_are_categories_and_every_format_is_read(folder: Path):
    instances = catalogue(settings(folder))
    assert [instance.name for instance in instances] == [
        "brick_0000",
        "plank_0000",
        "brick_0001",
        "plank_0001",
        "brick_0002",
        "brick_0003",
    ]
    expected = np.abs(shape(instances[0], 0).positions).max(axis=0)
    assert np.linalg.norm(expected) == pytest.approx(0.8, rel=1e-4)
    for instance in instances:
        assert np.allclose(
            np.sort(np.abs(shape(instance, 0).positions).max(axis=0)), np.sort(expected)
        )


def test_fewer_objects_can_be_asked_for(folder: Path):
    assert len(catalogue(settings(folder, objects=3))) == 3


def test_a_changed_mesh_is_another_data_set(folder: Path, tmp_path: Path, drawn):
    out = render_dataset(tmp_path / "set", settings(folder), workers=1)
    assert len(list(out.glob("images/*/*.jpg"))) == 6
    moved = folder.rename(tmp_path / "elsewhere")
    render_dataset(out, settings(moved), workers=1)
    (moved / "brick" / "a.obj").write_text(as_obj() + "\n# changed\n")
    with pytest.raises(RenderError, match="meshes_sha256"):
        render_dataset(out, settings(moved), workers=1)


@pytest.mark.parametrize(
    "text", ["", "v 1 2 3\nv 1 2 3\nv 1 2 3\nf 1 2 3\n", "v 0 0 0\nv 1 0 0\nv 2 0 0\nf 1 2 3\n"]
)
def test_a_mesh_without_surface_is_named(tmp_path: Path, text: str):
    pytest.importorskip("trimesh")
    (tmp_path / "kind").mkdir()
    (tmp_path / "kind" / "bad.obj").write_text(text)
    (instance,) = catalogue(settings(tmp_path))
    with pytest.raises(RenderError, match=r"bad\.obj"):
        shape(instance, 0)


def test_a_folder_without_meshes_is_an_error(tmp_path: Path):
    with pytest.raises(RenderError, match="holds no mesh") as caught:
        catalogue(settings(tmp_path))
    assert ".glb" in caught.value.hint


def test_a_missing_trimesh_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch):
    real = builtins.__import__

    def refuse(name: str, *rest: object) -> object:
        if name == "trimesh":
            raise ModuleNotFoundError("no", name=name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(RenderError, match="trimesh") as caught:
        shape(catalogue(settings(folder))[0], 0)
    assert "layerscope[render]" in caught.value.hint
