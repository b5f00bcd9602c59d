import numpy as np
import pytest

from layerscope.render.mesh import Mesh, corners, join, mirrored
from layerscope.render.parts import ball, box, lathe, plate, rod, torus, tube

NOTCHED = [(0, 0), (1, 0), (1, 1), (0.5, 0.25), (0, 1)]


def volume(mesh: Mesh) -> float:
    first, second, third = mesh.vertices[mesh.faces].astype(float).transpose(1, 0, 2)
    return float(np.einsum("ij,ij->", first, np.cross(second, third))) / 6


@pytest.mark.parametrize(
    ("mesh", "expected", "tolerance"),
    [
        (box((1, 2, 3), (4, 5, 6)), 6.0, 1e-5),
        (rod((0, 0, 0), (0, 0, 2), 1, sides=64), 2 * np.pi, 0.01),
        (rod((0, 0, 0), (3, 0, 0), 1, 0.5, sides=64), np.pi * 1.75, 0.01),
        (tube([(0, 0, 0), (0, 1, 0), (0, 2, 0)], 0.5, sides=64), np.pi / 2, 0.01),
        (torus(2, 0.5, axis="y"), np.pi**2, 0.1),
        (ball((1, 2, 3), sides=64), 8 * np.pi, 0.01),
        (lathe([(1, 0), (1, 2)], sides=64), 2 * np.pi, 0.01),
        (plate(NOTCHED, 2), 1.25, 1e-5),
        (plate(NOTCHED[::-1], 2), 1.25, 1e-5),
        (mirrored(box((1, 1, 1), (2, 0, 0)), "x"), 2.0, 1e-5),
        (box((1, 2, 3)).turned("x", 33).scaled(2, 1, -1), 12.0, 1e-5),
    ],
)
def test_parts_enclose_their_volume_outwards(mesh: Mesh, expected: float, tolerance: float):
    assert volume(mesh) == pytest.approx(expected, rel=tolerance)


def test_turns_are_counter_clockwise():
    point = Mesh(np.array([[0, 1, 0]], np.float32), np.zeros((0, 3), np.int32))
    assert np.allclose(point.turned("x", 90).vertices, [[0, 0, 1]], atol=1e-6)
    assert np.allclose(point.turned("z", 90).vertices, [[-1, 0, 0]], atol=1e-6)


def test_a_box_is_shaded_flat_and_a_ball_smooth():
    flat = corners(box((1, 1, 1)))
    assert len(flat.positions) == 24
    assert np.allclose(np.abs(flat.normals).max(axis=1), 1)
    smooth = corners(ball((1, 1, 1), sides=24))
    assert np.allclose(smooth.normals, smooth.positions, atol=0.1)


def test_shading_does_not_depend_on_shared_vertices():
    mesh = ball((1, 1, 1))
    loose = Mesh(
        mesh.vertices[mesh.faces].reshape(-1, 3),
        np.arange(mesh.faces.size, dtype=np.int32).reshape(-1, 3),
    )
    assert np.allclose(corners(mesh).normals, corners(loose).normals, atol=1e-5)


def test_joined_parts_keep_all_faces():
    whole = join(box((1, 1, 1)), ball((1, 1, 1)))
    assert volume(whole) == pytest.approx(1 + volume(ball((1, 1, 1))), rel=1e-5)
