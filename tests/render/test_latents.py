import math

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from scipy.stats import kstest

from layerscope.render.latents import Latents, draw_latents, rotation
from layerscope.render.scene import STAGE, Scene, hsv, spherical
from layerscope.rendered_set import LATENTS

MANY = np.array(
    [draw_latents(3, instance, view).values() for instance in range(60) for view in range(50)]
)


@pytest.mark.parametrize("column", range(7), ids=list(LATENTS))
def test_latents_are_uniform_over_their_range(column: int):
    low, high, _ = list(LATENTS.values())[column]
    values = MANY[:, column]
    assert low <= values.min() and values.max() <= high
    assert kstest(values, "uniform", args=(low, high - low)).pvalue > 1e-3


def test_latents_do_not_depend_on_one_another():
    correlations = np.corrcoef(MANY.T) - np.eye(7)
    assert np.abs(correlations).max() < 0.08


def test_latents_depend_on_seed_object_and_view_alone():
    assert draw_latents(3, 5, 7) == draw_latents(3, 5, 7)
    others = {draw_latents(*numbers) for numbers in [(3, 5, 7), (4, 5, 7), (3, 7, 5), (3, 5, 8)]}
    assert len(others) == 4


def test_ranges_are_those_of_the_paper():
    quarter = math.pi / 2
    assert [(low, high) for low, high, _ in LATENTS.values()] == [
        *[(-quarter, quarter)] * 3,
        (0, 1),
        (0, math.pi / 4),
        (0, 2 * math.pi),
        (0, 1),
    ]


def test_rotation_turns_about_the_fixed_axes_x_then_y_then_z():
    latents = draw_latents(0, 1, 2)
    x, y, z = (
        Rotation.from_rotvec(angle * axis).as_matrix()
        for angle, axis in zip(latents.values()[:3], np.eye(3), strict=True)
    )
    assert np.allclose(rotation(latents), z @ y @ x)


def test_rotation_is_scipys_extrinsic_xyz_with_a_positive_real_part():
    for view in range(50):
        latents = draw_latents(0, 0, view)
        expected = Rotation.from_euler("xyz", latents.values()[:3])
        assert np.allclose(rotation(latents), expected.as_matrix())
        assert expected.as_quat()[3] > 0


def test_a_yaw_of_a_quarter_turn_takes_the_front_to_the_top():
    turned = rotation(Latents(math.pi / 2, 0, 0, 0, 0, 0, 0)) @ np.array([0.0, 1.0, 0.0])
    assert np.allclose(turned, [0, 0, 1])


def test_camera_and_spot_stand_where_the_paper_says():
    assert np.allclose(STAGE.camera, [0, 2.5 * math.sin(math.pi / 4), 2.5 * math.cos(math.pi / 4)])
    assert np.allclose(spherical(4, 0, 1.2), [0, 0, 4])
    assert np.allclose(spherical(4, math.pi / 4, 0), [math.sqrt(8), 0, math.sqrt(8)])


def test_hues_go_round_the_colour_wheel():
    assert hsv(0.0, 1, 0.8) == (0.8, 0, 0)
    assert np.allclose(hsv(1 / 3, 1, 0.8), (0, 0.8, 0))
    scene = Scene("", None, (1, 1, 1), Latents(0, 0, 0, 2 / 3, 0, 0, 0))
    assert np.allclose(scene.floor_colour, (0.24, 0.24, 0.6))
    assert np.allclose(scene.spot_colour, (0.8, 0, 0))
