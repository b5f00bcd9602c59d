"""A triangle mesh, how it is moved, fitted into view and shaded."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

RADIUS = 0.8
"""Every object just fits into a sphere of this radius around the origin.

The camera is 2.5 away and sees a cone of half-angle 19.8°, so spheres up to a radius of 0.84 are
inside the frame at every rotation, and the floor at z = -1 is never touched.
"""

CREASE = np.deg2rad(35.0)
"""Faces that meet at a smaller angle are shaded as one smooth surface."""


@dataclass(frozen=True, slots=True)
class Mesh:
    """Triangles with shared vertices, z up and the object's front towards +y."""

    vertices: npt.NDArray[np.float32]
    """(V, 3) positions."""
    faces: npt.NDArray[np.int32]
    """(F, 3) vertex indices, counter-clockwise seen from outside."""

    def moved(self, x: float = 0.0, y: float = 0.0, z: float = 0.0) -> Mesh:
        """Return the mesh shifted by (x, y, z)."""
        return new_mesh(self.vertices + np.array([x, y, z]), self.faces)

    def scaled(self, x: float = 1.0, y: float = 1.0, z: float = 1.0) -> Mesh:
        """Return the mesh stretched about the origin; a negative factor mirrors it."""
        faces = self.faces[:, ::-1] if x * y * z < 0 else self.faces
        return new_mesh(self.vertices * np.array([x, y, z]), faces)

    def turned(self, axis: str, degrees: float) -> Mesh:
        """Return the mesh turned counter-clockwise about the ``x``, ``y`` or ``z`` axis."""
        return new_mesh(self.vertices @ _turn(axis, degrees).T, self.faces)

    def area(self) -> float:
        """Return the area of the whole surface."""
        return float(np.linalg.norm(_crossed(self), axis=1).sum()) / 2

    def fitted(self) -> Mesh:
        """Return the mesh centred at the origin and scaled into a sphere of ``RADIUS``.

        The centre is that of the bounding box, so that a mirror-symmetric object stays so.
        """
        used = self.vertices[np.unique(self.faces)].astype(np.float64)
        centre = (used.min(axis=0) + used.max(axis=0)) / 2
        reach = float(np.linalg.norm(used - centre, axis=1).max())
        return new_mesh((self.vertices - centre) * (RADIUS / reach), self.faces)


@dataclass(frozen=True, slots=True)
class Corners:
    """A mesh as a renderer takes it: corners with their own shading normals.

    A corner is shared by the faces that are shaded as one smooth surface there.
    """

    positions: npt.NDArray[np.float32]
    """(C, 3)."""
    normals: npt.NDArray[np.float32]
    """(C, 3), of unit length."""
    faces: npt.NDArray[np.int32]
    """(F, 3) corner indices."""

    def rotated(self, matrix: Floats) -> Corners:
        """Return the corners rotated by a (3, 3) matrix."""
        turn = matrix.T.astype(np.float32)
        return Corners(self.positions @ turn, self.normals @ turn, self.faces)


def join(*meshes: Mesh) -> Mesh:
    """Return one mesh holding all the parts; parts may run into one another."""
    starts = np.cumsum([0] + [len(mesh.vertices) for mesh in meshes[:-1]])
    faces = [mesh.faces + start for mesh, start in zip(meshes, starts, strict=True)]
    return new_mesh(np.concatenate([mesh.vertices for mesh in meshes]), np.concatenate(faces))


def mirrored(mesh: Mesh, axis: str) -> Mesh:
    """Return the mesh together with its mirror image across the plane normal to ``axis``."""
    return join(mesh, mesh.scaled(**{axis: -1.0}))


def corners(mesh: Mesh) -> Corners:
    """Return the mesh with shading normals: smooth where it bends little, sharp at creases.

    Vertices at one position count as one.
    """
    # Triangles without area have no normal.
    mesh = Mesh(mesh.vertices, mesh.faces[np.linalg.norm(_crossed(mesh), axis=1) > 1e-9])
    triangles = mesh.vertices[mesh.faces].astype(np.float64)
    _, label = np.unique(mesh.vertices.round(5) + 0.0, axis=0, return_inverse=True)
    welded = label.reshape(-1)[mesh.faces]
    normals = _averaged(welded, _crossed(mesh), float(np.cos(CREASE)))
    keys = np.concatenate([triangles.reshape(-1, 3), normals], axis=1).round(5) + 0.0
    unique, index = np.unique(keys, axis=0, return_inverse=True)
    return Corners(
        unique[:, :3].astype(np.float32),
        unique[:, 3:].astype(np.float32),
        index.reshape(-1, 3).astype(np.int32),
    )


def _averaged(labels: npt.NDArray[np.int64], weighted: Floats, cosine: float) -> Floats:
    """Average each corner's face normal with those of its smooth neighbours, by area."""
    unit = weighted / np.linalg.norm(weighted, axis=1, keepdims=True)
    flat = labels.ravel()
    order = np.argsort(flat, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(flat[order])) + 1)
    normals = np.empty((flat.size, 3))
    for group in groups:
        owners = group // 3
        smooth = unit[owners] @ unit[owners].T >= cosine
        normals[group] = smooth @ weighted[owners]
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    return normals


def _crossed(mesh: Mesh) -> Floats:
    """Return the (F, 3) faces' normals, each as long as twice the face's area."""
    first, second, third = mesh.vertices[mesh.faces].astype(np.float64).transpose(1, 0, 2)
    product: Floats = np.cross(second - first, third - first)
    return product


def _turn(axis: str, degrees: float) -> Floats:
    angle = np.deg2rad(degrees)
    first, second = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}[axis]
    matrix = np.eye(3)
    matrix[first, first] = matrix[second, second] = np.cos(angle)
    matrix[second, first] = np.sin(angle)
    matrix[first, second] = -np.sin(angle)
    return matrix


def new_mesh(vertices: npt.NDArray[np.floating], faces: npt.ArrayLike) -> Mesh:
    """Return a mesh of vertices and faces of any kind of number."""
    return Mesh(vertices.astype(np.float32), np.ascontiguousarray(faces, dtype=np.int32))
