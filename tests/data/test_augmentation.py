"""Augmented views: the colours are torchvision's and the draws are as stated."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional

from layerscope.data.augmentation import augmentations, draw_box, draw_view, generator
from layerscope.data.colours import blur, brighten, contrast, saturate, turn_hue
from layerscope.data.resampling import BILINEAR

SIMCLR = augmentations["simclr"]
STILL = replace(SIMCLR, area=(1, 1), ratio=(1.5, 1.5), flip=0, jitter=0, grayscale=0, blur=0)
"""The whole of an image of 40 × 60, as it is."""
SHAPE = (40, 60)


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(0, 256, (*SHAPE, 3), dtype=np.uint8)


@pytest.fixture
def colours(pixels):
    return pixels.astype(np.float32) / 255


def as_torch(colours):
    return torch.from_numpy(colours.transpose(2, 0, 1).copy())


def view(pixels, augmentation, seed=0, size=(16, 24)):
    return draw_view(pixels, augmentation, size, BILINEAR, generator(seed, "a", 0))


@pytest.mark.parametrize(
    ("ours", "theirs", "strengths"),
    [
        (brighten, functional.adjust_brightness, (0.3, 1.0, 1.7)),
        (contrast, functional.adjust_contrast, (0.0, 0.3, 1.7)),
        (saturate, functional.adjust_saturation, (0.0, 0.3, 1.7)),
        (turn_hue, functional.adjust_hue, (-0.5, -0.2, 0.0, 0.13)),
    ],
)
def test_colours_change_as_torchvision_changes_them(colours, ours, theirs, strengths):
    for strength in strengths:
        changed = colours.copy()
        ours(changed, strength)
        expected = theirs(as_torch(colours), strength).numpy().transpose(1, 2, 0)
        np.testing.assert_allclose(changed, expected, atol=3e-6)


def test_a_blur_is_torchvisions(colours):
    weights = np.exp(-0.5 * (np.arange(-3, 4) / 1.3) ** 2)
    expected = functional.gaussian_blur(as_torch(colours), 7, 1.3).numpy().transpose(1, 2, 0)
    blurred = blur(colours, (weights / weights.sum()).astype(np.float32))
    np.testing.assert_allclose(blurred, expected, atol=3e-6)


def test_a_blur_keeps_what_is_of_one_colour_to_the_edge():
    flat = np.full((9, 9, 3), 0.25, np.float32)
    np.testing.assert_allclose(blur(flat, np.full(5, 0.2, np.float32)), flat, atol=1e-6)


def test_a_turn_of_the_hue_and_back_changes_nothing(colours):
    turned = colours.copy()
    turn_hue(turned, 0.3)
    assert np.abs(turned - colours).max() > 0.1
    turn_hue(turned, -0.3)
    np.testing.assert_allclose(turned, colours, atol=1e-5)


def test_grey_has_no_hue_to_turn():
    grey = np.full((2, 2, 3), 0.4, np.float32)
    turn_hue(grey, 0.3)
    assert (grey == np.float32(0.4)).all()


def test_with_nothing_to_draw_a_view_is_the_image(pixels):
    np.testing.assert_array_equal(view(pixels, STILL, size=SHAPE), pixels)
    flipped = view(pixels, replace(STILL, flip=1), size=SHAPE)
    np.testing.assert_array_equal(flipped, pixels[:, ::-1])


def test_a_crop_is_resized_as_torchvision_resizes_it(pixels):
    cropping = replace(STILL, area=(0.3, 0.9), ratio=(0.7, 1.4))
    box = draw_box(*SHAPE, cropping, generator(0, "a", 0))
    expected = functional.resized_crop(
        torch.from_numpy(pixels).permute(2, 0, 1), *box, [16, 24], antialias=True
    )
    difference = view(pixels, cropping).astype(int) - expected.permute(1, 2, 0).numpy()
    assert abs(difference).max() <= 1


def test_crops_have_the_areas_and_ratios_that_are_stated():
    boxes = np.array([draw_box(300, 300, SIMCLR, generator(0, "a", n)) for n in range(4000)])
    top, left, rows, columns = boxes.T
    assert (np.minimum(top, left) >= 0).all()
    assert (top + rows <= 300).all() and (left + columns <= 300).all()
    area, ratio = rows * columns / 300**2, np.log(columns / rows)
    assert 0.078 < area.min() < 0.1 and area.max() > 0.9
    assert abs(ratio).max() < math.log(4 / 3) + 0.02
    assert abs(ratio.mean()) < 3 * ratio.std() / 4000**0.5
    # Those that fit less often are drawn again, so only small areas are uniform.
    small = np.histogram(area[area < 0.5], bins=4, range=(0.08, 0.5))[0]
    assert abs(small / small.mean() - 1).max() < 4 * (small.mean() ** -0.5)


def test_an_image_that_no_crop_fits_gives_its_middle():
    assert draw_box(10, 100, replace(SIMCLR, area=(1, 1)), generator(0, "a", 0)) == (0, 43, 10, 13)


@pytest.mark.parametrize("chance", ["flip", "jitter", "grayscale", "blur"])
def test_operations_happen_as_often_as_is_stated(pixels, chance):
    only = replace(STILL, **{chance: getattr(SIMCLR, chance)})
    still, count = view(pixels, STILL, size=SHAPE), 400
    changed = sum(
        not np.array_equal(view(pixels, only, seed, SHAPE), still) for seed in range(count)
    )
    expected = getattr(SIMCLR, chance)
    # A blur of a tenth of a pixel changes nothing.
    slack = 3.5 * (expected * (1 - expected) / count) ** 0.5
    assert abs(changed / count - expected) < slack + (0.1 if chance == "blur" else 0)


def test_grayscale_leaves_no_colour(pixels):
    grey = view(pixels, replace(STILL, grayscale=1)).astype(int)
    assert np.ptp(grey, axis=2).max() == 0


def test_a_view_depends_on_seed_name_and_number():
    drawn = {
        generator(*what).random()
        for what in ((0, "a", 0), (1, "a", 0), (0, "b", 0), (0, "a", 1), (0, "a", 10))
    }
    assert len(drawn) == 5
    assert generator(3, "x/ü.png", 7).random() == generator(3, "x/ü.png", 7).random()
