"""What a network sees of an image: resized, cropped, scaled to [0, 1] and normalised."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

from layerscope.nouns import Preprocessing

Transform = Callable[[Image.Image], Tensor]
"""An RGB image to a float32 tensor (3, height, width)."""


def image_transform(preprocessing: Preprocessing) -> Transform:
    """Return the function that prepares one image for a network.

    The resampling is Pillow's, antialiased, by torchvision's rules for rounding sizes; an image
    that has the size already is not resampled.

    Args:
        preprocessing: The checkpoint's own.

    Returns:
        A function that raises ValueError for an image smaller than the crop.
    """
    mean = np.asarray(preprocessing.mean, dtype=np.float32)
    std = np.asarray(preprocessing.std, dtype=np.float32)

    def transform(image: Image.Image) -> Tensor:
        sized = _resized(image, preprocessing.resize, preprocessing.interpolation)
        pixels = np.array(_cropped(sized, preprocessing.crop), dtype=np.float32)
        pixels /= 255
        pixels -= mean
        pixels /= std
        return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))

    return transform


def _resized(
    image: Image.Image, size: int | tuple[int, int] | None, interpolation: str
) -> Image.Image:
    if size is None or _has_size(image, size):
        return image
    sides = [size] if isinstance(size, int) else list(size)
    resized: Image.Image = functional.resize(
        image, sides, interpolation=InterpolationMode(interpolation), antialias=True
    )
    return resized


def _has_size(image: Image.Image, size: int | tuple[int, int]) -> bool:
    if isinstance(size, int):
        return min(image.size) == size
    return (image.height, image.width) == tuple(size)


def _cropped(image: Image.Image, side: int | None) -> Image.Image:
    if side is None or image.size == (side, side):
        return image
    if min(image.size) < side:
        # torchvision would pad with black, which no network was trained on.
        raise ValueError(f"it is {image.width}×{image.height}, smaller than the crop of {side}")
    cropped: Image.Image = functional.center_crop(image, [side, side])
    return cropped
