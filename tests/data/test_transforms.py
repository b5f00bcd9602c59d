"""The transform is torchvision's, pixel for pixel."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode, v2

from layerscope.data import image_transform
from layerscope.nouns import Preprocessing

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def picture(width, height):
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("resize", [20, (18, 25), None])
@pytest.mark.parametrize("crop", [16, None])
@pytest.mark.parametrize("size", [(31, 47), (47, 31), (20, 20)])
def test_it_agrees_with_torchvisions_evaluation_pipeline(size, resize, crop, interpolation):
    image = picture(*size)
    steps = []
    if resize is not None:
        steps.append(v2.Resize(resize, InterpolationMode(interpolation), antialias=True))
    if crop is not None:
        steps.append(v2.CenterCrop(crop))
    steps += [v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
    found = image_transform(Preprocessing(resize, crop, MEAN, STD, interpolation))(image)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, v2.Compose(steps)(image), rtol=1e-6, atol=1e-6)


def test_an_image_of_the_right_size_is_not_resampled(monkeypatch):
    def resample(*arguments, **options):
        raise AssertionError("resampled")

    monkeypatch.setattr(Image.Image, "resize", resample)
    plain = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    image = picture(24, 16)
    for resize in (16, (16, 24), None):
        found = image_transform(Preprocessing(resize, None, *plain))(image)
        np.testing.assert_array_equal(
            (found.numpy() * 255).round().transpose(1, 2, 0), np.asarray(image)
        )
    with pytest.raises(AssertionError, match="resampled"):
        image_transform(Preprocessing(17, None, *plain))(image)


def test_an_image_smaller_than_the_crop_is_refused_rather_than_padded():
    with pytest.raises(ValueError, match="12×30, smaller than the crop of 16"):
        image_transform(Preprocessing(None, 16, MEAN, STD))(picture(12, 30))
