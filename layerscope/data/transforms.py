"""What a network sees of an image: resized, cropped, scaled to [0, 1] and normalised.

Sizes and the place of a crop follow torchvision's rules, the resampling is Pillow's, antialiased.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from layerscope.data.decoding import Decoder, Raster
from layerscope.data.resampling import KINDS, Pixels, resample, resample_normalised
from layerscope.types import Framing, Preprocessing

Size = tuple[int, int]
"""(height, width)."""


def frame_preprocessing(preprocessing: Preprocessing, framing: Framing) -> Preprocessing:
    """Return a checkpoint's preprocessing under what a source lets happen to its images.

    Examples:
        >>> own = Preprocessing(256, 224, (0.5,) * 3, (0.5,) * 3)
        >>> frame_preprocessing(own, "whole").resize, frame_preprocessing(own, "whole").crop
        ((224, 224), None)
        >>> frame_preprocessing(own, "crop").resize, frame_preprocessing(own, "crop").crop
        (None, 224)
    """
    if framing == "crop":
        return replace(preprocessing, resize=None)
    side = preprocessing.crop or preprocessing.resize
    if framing == "whole" and side is not None:
        return replace(
            preprocessing, resize=(side, side) if isinstance(side, int) else side, crop=None
        )
    return preprocessing


class Preparation:
    """A preprocessing, as a source frames it, ready to be applied to one image after the other."""

    def __init__(self, preprocessing: Preprocessing) -> None:
        self.preprocessing = preprocessing
        self._kind = KINDS[preprocessing.interpolation]
        self._mean = np.asarray(preprocessing.mean, dtype=np.float32)
        self._std = np.asarray(preprocessing.std, dtype=np.float32)

    @property
    def fixed_size(self) -> Size | None:
        """The size of every prepared image; None where it depends on the image."""
        crop, resize = self.preprocessing.crop, self.preprocessing.resize
        if crop is not None:
            return crop, crop
        return resize if isinstance(resize, tuple) else None

    def size(self, height: int, width: int) -> Size:
        """Return the size of a prepared image.

        Raises:
            ValueError: The image is smaller than the crop.
        """
        crop = self.preprocessing.crop
        resized = self._resized(height, width)
        if crop is None:
            return resized
        if min(resized) < crop:
            # torchvision would pad with black, which no network was trained on.
            raise ValueError(f"it is {resized[1]}×{resized[0]}, smaller than the crop of {crop}")
        return crop, crop

    def write(self, raster: Raster, out: npt.NDArray[np.uint8 | np.float32]) -> None:
        """Write the prepared image: bytes, or normalised where ``out`` is float32.

        Args:
            raster: The decoded image.
            out: (rows, columns, 3) contiguous, of :meth:`size`.
        """
        rows, columns, _ = out.shape
        flat: npt.NDArray[Any] = out.reshape(rows, 3 * columns)
        to = self._resized(raster.height, raster.width)
        part = (_middle(to[0], rows), _middle(to[1], columns), rows, columns)
        image = (raster.flat, raster.height, raster.width, to, part, self._kind)
        if out.dtype == np.uint8:
            resample(*image, flat)
        else:
            resample_normalised(*image, self._mean, self._std, flat)

    def placed(self, images: Tensor, device: torch.device) -> Tensor:
        """Return a loader's batch on a device, normalised there if it is not yet."""
        if device.type == "cuda":  # from pinned memory, so that the copy is not waited for
            images = images.pin_memory()
        moved = images.to(device, non_blocking=True)
        return self.normalised(moved) if moved.dtype == torch.uint8 else moved

    def normalised(self, images: Tensor) -> Tensor:
        """Return (b, 3, h, w) float32 of (b, 3, h, w) bytes, on their device, to the same bits."""
        # As tensors: torch turns a division by a number into a product on some devices.
        full, mean, std = (
            torch.tensor(values, device=images.device).view(1, -1, 1, 1)
            for values in (np.full(1, 255, np.float32), self._mean, self._std)
        )
        return images.float().div_(full).sub_(mean).div_(std)

    def _resized(self, height: int, width: int) -> Size:
        size = self.preprocessing.resize
        if size is None:
            return height, width
        if isinstance(size, tuple):
            return size
        short, long = sorted((height, width))
        longer = int(size * long / short)
        return (longer, size) if width <= height else (size, longer)


def _middle(whole: int, part: int) -> int:
    return round((whole - part) / 2)


def image_transform(preprocessing: Preprocessing) -> Callable[[Pixels], Tensor]:
    """Return the function that prepares one image for a network.

    It takes (h, w, 3) pixels, returns (3, height, width) float32, and raises ValueError for an
    image smaller than the crop.
    """
    preparation, decoder = Preparation(preprocessing), Decoder()

    def transform(pixels: Pixels) -> Tensor:
        raster = decoder.decode(pixels, "an array")
        out = np.empty((*preparation.size(raster.height, raster.width), 3), np.float32)
        preparation.write(raster, out)
        return torch.from_numpy(np.ascontiguousarray(out.transpose(2, 0, 1)))

    return transform
