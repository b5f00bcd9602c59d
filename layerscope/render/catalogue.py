"""Which objects a data set shows, and how each of them is made."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from layerscope.errors import RenderError
from layerscope.render.mesh import Corners, Mesh, corners
from layerscope.render.objects import categories
from layerscope.render.scene import Triple, hsv
from layerscope.render.settings import RenderSettings

SUFFIXES = (".glb", ".obj", ".ply", ".stl")


@dataclass(frozen=True, slots=True)
class ObjectInstance:
    """One object of the data set."""

    index: int
    """Position in the data set; with the seed, it decides all that is random about the object."""
    name: str
    """Such as ``chair_0003``."""
    category: str
    file: Path | None = None
    """The user's mesh, or None for a procedural object."""


def catalogue(settings: RenderSettings) -> list[ObjectInstance]:
    """Return the objects in their order: in turn one of each category, so all are as frequent.

    Raises:
        RenderError: The folder of meshes holds none.
    """
    if settings.meshes is not None:
        return _list_meshes(settings.meshes, settings.objects)
    names = categories.names()
    turns = [divmod(index, len(names)) for index in range(settings.objects)]
    return [
        ObjectInstance(index, f"{names[which]}_{turn:04d}", names[which])
        for index, (turn, which) in enumerate(turns)
    ]


def shape(instance: ObjectInstance, seed: int) -> Corners:
    """Return the instance's mesh, centred, scaled into view and with shading normals."""
    if instance.file is not None:
        mesh = _read(instance.file)
    else:
        mesh = categories[instance.category](np.random.default_rng([seed, instance.index, 0]))
    return corners(mesh.fitted())


def colour(instance: ObjectInstance, seed: int) -> Triple:
    """Return the instance's linear RGB albedo: a greyish tint, a property of the object."""
    generator = np.random.default_rng([seed, instance.index, 2])
    hue, saturation, value = generator.uniform((0.0, 0.05, 0.45), (1.0, 0.35, 0.85)).tolist()
    return hsv(hue, saturation, value)


def digest(instances: Sequence[ObjectInstance]) -> str | None:
    """Return the SHA-256 of the user's mesh files in order, or None for procedural objects."""
    files = [instance.file for instance in instances if instance.file is not None]
    if not files:
        return None
    total = hashlib.sha256()
    for file in files:
        total.update(hashlib.sha256(file.read_bytes()).digest())
    return total.hexdigest()


def _list_meshes(folder: Path, limit: int) -> list[ObjectInstance]:
    files = sorted(file for file in folder.glob("*/**/*") if file.suffix.lower() in SUFFIXES)
    if not files:
        raise RenderError(
            f"The folder {str(folder)!r} holds no mesh.",
            hint=f"Put {', '.join(SUFFIXES)} files into it, one subfolder for each category.",
        )
    groups: dict[str, list[Path]] = {}
    for file in files:
        groups.setdefault(file.relative_to(folder).parts[0], []).append(file)
    ranked = sorted((turn, name) for name, group in groups.items() for turn in range(len(group)))
    return [
        ObjectInstance(index, f"{name}_{turn:04d}", name, groups[name][turn])
        for index, (turn, name) in enumerate(ranked[:limit])
    ]


def _read(file: Path) -> Mesh:
    try:
        import trimesh
    except ModuleNotFoundError as error:
        raise RenderError(
            f"Reading {file.name!r} needs the Python package trimesh, which is not installed.",
            hint='Install it with: pip install "layerscope[render]"',
        ) from error
    try:
        loaded: Any = trimesh.load(file, force="mesh")
        vertices, faces = np.asarray(loaded.vertices), np.asarray(loaded.faces)
    except (ValueError, OSError, AttributeError, KeyError, IndexError) as error:
        raise RenderError(
            f"The mesh {str(file)!r} cannot be read: {error}.", hint="Repair it or take it away."
        ) from error
    mesh = Mesh(vertices.astype(np.float32), faces.astype(np.int32))
    used = mesh.vertices[np.unique(mesh.faces)]
    if not np.isfinite(used).all() or mesh.area() == 0.0:
        raise RenderError(
            f"The mesh {str(file)!r} has no surface.", hint="Repair it or take it away."
        )
    return mesh
