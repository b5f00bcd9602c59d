from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from layerscope.stats.rotation import (
    circle_from_angle,
    circular_distance,
    geodesic_angle,
    nearer_sign,
    quaternion_from_euler,
)


def angles(n: int = 200, half: float = math.pi / 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return (torch.rand(n, 3, generator=generator, dtype=torch.float64) * 2 - 1) * half


RANGES = pytest.mark.parametrize("half", [math.pi / 2, math.pi, 7.0])
"""Half the range of each angle: up to where quaternions are unique, and further."""


@RANGES
def test_quaternions_are_those_of_scipy(half):
    known = angles(half=half)
    reference = Rotation.from_euler("xyz", known.numpy()).as_quat(canonical=True)
    np.testing.assert_allclose(quaternion_from_euler(known), reference, atol=1e-12)


@RANGES
def test_quaternions_have_unit_length_and_a_positive_scalar_part(half):
    quaternions = quaternion_from_euler(angles(5000, half))
    torch.testing.assert_close(quaternions.norm(dim=1), torch.ones(5000, dtype=torch.float64))
    assert bool((quaternions[:, 3] > 0).all())


def test_whole_turns_leave_the_quaternion_as_it_is():
    known = angles(half=math.pi)
    turned = known + 2 * math.pi * torch.tensor([1.0, 0.0, -2.0], dtype=torch.float64)
    torch.testing.assert_close(quaternion_from_euler(turned), quaternion_from_euler(known))


@RANGES
@pytest.mark.parametrize("apart", [1.0, 1e-4, 1e-9])
def test_the_geodesic_is_that_of_scipy(half, apart):
    first = angles(half=half)
    second = first + apart * angles().flip(0)
    rotations = [Rotation.from_euler("xyz", part.numpy()) for part in (first, second)]
    expected = (rotations[0] * rotations[1].inv()).magnitude()
    measured = geodesic_angle(quaternion_from_euler(first), quaternion_from_euler(second))
    np.testing.assert_allclose(measured, expected, rtol=1e-5 if apart < 1e-4 else 1e-9, atol=1e-15)


def test_the_nearer_of_a_quaternion_and_its_negative_is_no_further_than_either():
    known, predicted = quaternion_from_euler(angles()), angles(400).view(2, 150, 4)[0] * 2
    known = known[:150]
    found = nearer_sign(predicted, known)
    least = torch.minimum((predicted - known).norm(dim=1), (predicted + known).norm(dim=1))
    torch.testing.assert_close((predicted - found).norm(dim=1), least)
    assert torch.equal(found.abs(), known.abs())
    assert torch.equal(nearer_sign(-known, known), -known)


def test_the_geodesic_is_symmetric_and_blind_to_sign_and_length():
    a, b = quaternion_from_euler(angles()).split(100)
    torch.testing.assert_close(geodesic_angle(a, b), geodesic_angle(b, a))
    torch.testing.assert_close(geodesic_angle(-3 * a, b), geodesic_angle(a, b))
    assert float(geodesic_angle(a, -a).max()) == 0.0


def test_a_turn_about_one_axis_is_its_angle():
    turn = torch.tensor([[0.0, 0.0, 0.7]], dtype=torch.float64)
    still = quaternion_from_euler(torch.zeros(1, 3, dtype=torch.float64))
    torch.testing.assert_close(
        geodesic_angle(quaternion_from_euler(turn), still),
        torch.tensor([0.7], dtype=torch.float64),
    )


def test_a_quaternion_of_length_zero_is_half_a_turn_away():
    zero, unit = torch.zeros(1, 4), torch.tensor([[0.0, 0.0, 0.0, 1.0]])
    assert math.isclose(float(geodesic_angle(zero, unit)), math.pi, rel_tol=1e-6)


def test_a_point_on_the_circle_is_at_no_distance_from_its_value():
    values = torch.rand(50, dtype=torch.float64) * 10 - 5
    points = circle_from_angle(values, 0.7)
    assert float(circular_distance(points, values, 0.7).max()) < 1e-12


def test_circular_distance_wraps_and_is_at_most_half_a_period():
    points = circle_from_angle(torch.tensor([0.99, 0.5, 0.25]), 1.0)
    distances = circular_distance(points, torch.tensor([0.01, 0.0, 0.0]), 1.0)
    torch.testing.assert_close(distances, torch.tensor([0.02, 0.5, 0.25]), atol=1e-6, rtol=0)


def test_whole_turns_change_nothing():
    values = torch.linspace(0, 1, 20, dtype=torch.float64)
    points = circle_from_angle(values.flip(0), 1.0)
    torch.testing.assert_close(
        circular_distance(points, values, 1.0), circular_distance(points, values + 3, 1.0)
    )
