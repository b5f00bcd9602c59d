"""The transform is torchvision's, with rows resampled first whatever Pillow does."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import InterpolationMode, v2

from layerscope.data import Preparation, frame_preprocessing, image_transform
from layerscope.data.decoding import Decoder
from layerscope.data.resampling import BICUBIC, BILINEAR, PADDING, resample
from layerscope.types import Preprocessing

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
IMAGENET = Preprocessing(256, 224, MEAN, STD)
FILTERS = {BILINEAR: Image.Resampling.BILINEAR, BICUBIC: Image.Resampling.BICUBIC}


def picture(width, height, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def rows_first(pixels, size, kind):
    """Pillow's own resampling, in two calls, so that its version does not matter."""
    height, width = size
    image = Image.fromarray(pixels).resize((width, pixels.shape[0]), FILTERS[kind])
    return np.asarray(image.resize((width, height), FILTERS[kind]))


def resampled(pixels, size, part, kind):
    flat = np.zeros(pixels.size + PADDING, np.uint8)
    flat[: pixels.size] = pixels.ravel()
    out = np.empty((part[2], 3 * part[3]), np.uint8)
    resample(flat, *pixels.shape[:2], size, part, kind, out)
    return out.reshape(part[2], part[3], 3)


@settings(max_examples=150, deadline=None)
@given(
    size=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    to=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    kind=st.sampled_from([BILINEAR, BICUBIC]),
    seed=st.integers(0, 9),
    extreme=st.booleans(),
)
def test_every_byte_is_pillows(size, to, kind, seed, extreme):
    pixels = picture(size[1], size[0], seed)
    if extreme:  # where the bicubic filter overshoots, and has to be clipped
        pixels = np.where(pixels > 127, 255, 0).astype(np.uint8)
    expected = rows_first(pixels, to, kind)
    assert np.array_equal(resampled(pixels, to, (0, 0, *to), kind), expected)
    top, left = to[0] // 3, to[1] // 3
    part = (top, left, to[0] - top, (to[1] - left + 1) // 2)
    found = resampled(pixels, to, part, kind)
    assert np.array_equal(found, expected[top:, left : left + part[3]])


def test_usual_sizes_are_pillows_in_one_call():
    for width, height in ((500, 375), (375, 500), (640, 480), (1024, 683), (120, 90)):
        to = (
            (256, int(256 * width / height)) if width > height else (int(256 * height / width), 256)
        )
        for kind, resampling in FILTERS.items():
            pixels = picture(width, height)
            expected = Image.fromarray(pixels).resize(to[::-1], resampling)
            assert np.array_equal(resampled(pixels, to, (0, 0, *to), kind), np.asarray(expected))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("resize", [20, (25, 18), None])
@pytest.mark.parametrize("crop", [16, None])
@pytest.mark.parametrize("size", [(31, 47), (47, 31), (20, 20), (33, 20)])
def test_it_agrees_with_torchvisions_evaluation_pipeline(size, resize, crop, interpolation):
    pixels = picture(*size)
    steps = []
    if resize is not None:
        steps.append(v2.Resize(resize, InterpolationMode(interpolation), antialias=True))
    if crop is not None:
        steps.append(v2.CenterCrop(crop))
    steps += [v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
    found = image_transform(Preprocessing(resize, crop, MEAN, STD, interpolation))(pixels)
    assert found.dtype == torch.float32
    expected = v2.Compose(steps)(Image.fromarray(pixels))
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("resize", [16, (16, 24), None])
def test_an_image_of_the_right_size_is_not_resampled(resize):
    plain = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    pixels = picture(24, 16)
    found = image_transform(Preprocessing(resize, None, *plain))(pixels)
    np.testing.assert_array_equal((found.numpy() * 255).round().transpose(1, 2, 0), pixels)


def test_an_image_smaller_than_the_crop_is_refused_rather_than_padded():
    with pytest.raises(ValueError, match="12×30, smaller than the crop of 16"):
        image_transform(Preprocessing(None, 16, MEAN, STD))(picture(12, 30))


def written(preprocessing, pixels, kind):
    preparation = Preparation(preprocessing)
    raster = Decoder().decode(pixels, "a picture")
    out = np.empty((*preparation.size(raster.height, raster.width), 3), kind)
    preparation.write(raster, out)
    return out


@pytest.mark.parametrize("preprocessing", [IMAGENET, Preprocessing(None, 30, MEAN, STD)])
def test_bytes_normalised_later_are_the_same_to_the_bit(preprocessing):
    pixels = picture(80, 60)
    at_once = written(preprocessing, pixels, np.float32)
    raw = torch.from_numpy(written(preprocessing, pixels, np.uint8)).permute(2, 0, 1)[None]
    later = Preparation(preprocessing).placed(raw, torch.device("cpu"))
    assert torch.equal(later[0].permute(1, 2, 0), torch.from_numpy(at_once))


@pytest.mark.gpu
def test_a_gpu_normalises_to_the_same_values():
    raw = torch.from_numpy(written(IMAGENET, picture(300, 260), np.uint8)).permute(2, 0, 1)[None]
    preparation = Preparation(IMAGENET)
    on_gpu = preparation.placed(raw, torch.device("cuda")).cpu()
    torch.testing.assert_close(on_gpu, preparation.normalised(raw), rtol=1e-6, atol=0)


def test_what_has_one_size_is_known_beforehand():
    assert Preparation(IMAGENET).fixed_size == (224, 224)
    assert Preparation(Preprocessing((20, 30), None, MEAN, STD)).fixed_size == (20, 30)
    assert Preparation(Preprocessing(256, None, MEAN, STD)).fixed_size is None
    assert Preparation(Preprocessing(None, None, MEAN, STD)).fixed_size is None


@pytest.mark.parametrize(
    ("own", "framing", "resize", "crop"),
    [
        ((256, 224), "checkpoint", 256, 224),
        ((256, 224), "whole", (224, 224), None),
        ((256, 224), "crop", None, 224),
        ((32, 32), "whole", (32, 32), None),
        ((None, 32), "whole", (32, 32), None),
        (((48, 64), None), "whole", (48, 64), None),
        ((518, 518), "crop", None, 518),
        ((None, None), "whole", None, None),
    ],
)
def test_a_source_frames_its_images(own, framing, resize, crop):
    found = frame_preprocessing(Preprocessing(*own, MEAN, STD, "bicubic"), framing)
    assert found == replace(Preprocessing(resize, crop, MEAN, STD), interpolation="bicubic")
