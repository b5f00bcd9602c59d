import numpy as np
import pytest
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from layerscope.render.mesh import RADIUS, Mesh, corners
from layerscope.render.objects import categories

DRAWS = 3
CUBE = [turn for turn in Rotation.create_group("O") if turn.magnitude() > 1e-6]
SLIGHT = [Rotation.from_euler("z", angle, degrees=True) for angle in (15, 30, -15)]
CLEARLY = 1.5


def variants(category: str) -> list[Mesh]:
    return [categories[category](np.random.default_rng([0, n])).fitted() for n in range(DRAWS)]


def spread(mesh: Mesh, count: int, seed: int) -> np.ndarray:
    """Points evenly over the surface."""
    generator = np.random.default_rng(seed)
    first, second, third = mesh.vertices[mesh.faces].astype(float).transpose(1, 0, 2)
    area = np.linalg.norm(np.cross(second - first, third - first), axis=1)
    face = generator.choice(len(area), count, p=area / area.sum())
    along = np.sort(generator.random((count, 2)), axis=1)
    weights = np.stack([along[:, 0], along[:, 1] - along[:, 0], 1 - along[:, 1]], axis=1)
    return (weights[:, :, None] * np.stack([first, second, third], axis=1)[face]).sum(axis=1)


def test_there_are_many_categories():
    assert len(categories.names()) >= 12


@pytest.mark.parametrize("category", categories.names())
def test_no_rotation_brings_an_object_onto_itself(category: str):
    for mesh in variants(category):
        surface = cKDTree(spread(mesh, 6000, seed=0))
        probes = spread(mesh, 1000, seed=1)

        def gap(points: np.ndarray, surface: cKDTree = surface) -> float:
            return float(np.quantile(surface.query(points)[0], 0.99))

        for turn in [*CUBE, *SLIGHT]:
            assert gap(turn.apply(probes)) > CLEARLY * gap(probes)


@pytest.mark.parametrize("category", categories.names())
def test_objects_fit_into_view_and_are_centred(category: str):
    for mesh in variants(category):
        assert np.linalg.norm(mesh.vertices, axis=1).max() == pytest.approx(RADIUS, rel=1e-4)
        assert np.allclose(mesh.vertices.min(axis=0), -mesh.vertices.max(axis=0), atol=1e-5)


@pytest.mark.parametrize("category", categories.names())
def test_objects_are_closed_and_face_outwards(category: str):
    for mesh in variants(category):
        edges = mesh.faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2)
        there = {tuple(edge) for edge in edges.tolist()}
        assert all((end, start) in there for start, end in there)
        assert len(there) == len(edges)
        first, second, third = mesh.vertices[mesh.faces].astype(float).transpose(1, 0, 2)
        assert np.einsum("ij,ij->", first, np.cross(second, third)) > 0


@pytest.mark.parametrize("category", categories.names())
def test_objects_are_light_and_well_formed(category: str):
    for mesh in variants(category):
        assert mesh.vertices.dtype == np.float32 and mesh.faces.dtype == np.int32
        assert len(mesh.faces) < 3000
        assert np.isfinite(mesh.vertices).all()
        form = corners(mesh)
        assert np.allclose(np.linalg.norm(form.normals, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("category", categories.names())
def test_a_category_has_variants_that_its_generator_decides(category: str):
    first, second, _ = variants(category)
    again = categories[category](np.random.default_rng([0, 0])).fitted()
    assert np.array_equal(first.vertices, again.vertices)
    assert first.vertices.shape != second.vertices.shape or not np.allclose(
        first.vertices, second.vertices, atol=1e-3
    )
