"""How augmented views of an image are drawn: which crop, which colours, how much blur.

What is drawn depends on the seed, the image's name and the view's number alone: not on who draws
it, in which order or beside what. It is drawn from raw uniform numbers of PCG64, whose stream NumPy
keeps from version to version; that of its distributions it may change.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from layerscope.data.colours import Colours, blur, brighten, contrast, saturate, turn_hue
from layerscope.data.resampling import PADDING, Pixels, resample
from layerscope.registry import Registry

_TRIES = 10
"""Crops that are drawn before the middle of the image is taken, as torchvision does."""
_DRAWS = 16
"""Uniform numbers of a view beside those of its crop; more than are used, so that an operation can
be added without changing the others."""

Range = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Augmentation:
    """A family of random views; each of its numbers is in the fingerprint of what it made."""

    name: str
    citation: str
    area: Range
    """Share of the image's area that a crop has."""
    ratio: Range
    """Width by height of a crop, uniform in its logarithm."""
    flip: float
    """Probability that left and right change places."""
    jitter: float
    """Probability that the colours change, in a random order of the four changes."""
    brightness: float
    """The factor is uniform in 1 ± this, and so are the next two."""
    contrast: float
    saturation: float
    hue: float
    """Turns of the colour circle, uniform in ± this."""
    grayscale: float
    """Probability that no colour is left."""
    blur: float
    """Probability of a Gaussian blur."""
    sigma: Range
    """Its standard deviation in pixels."""
    kernel: float
    """Its diameter, as a share of the view's height."""


augmentations: Registry[Augmentation] = Registry("augmentation", group="layerscope.augmentations")
"""By name: how views are drawn."""

augmentations.add(
    "simclr",
    Augmentation(
        name="simclr",
        citation="Chen et al. (2020), A Simple Framework for Contrastive Learning, appendix A",
        area=(0.08, 1.0),
        ratio=(3 / 4, 4 / 3),
        flip=0.5,
        jitter=0.8,
        brightness=0.8,
        contrast=0.8,
        saturation=0.8,
        hue=0.2,
        grayscale=0.2,
        blur=0.5,
        sigma=(0.1, 2.0),
        kernel=0.1,
    ),
)


def generator(seed: int, name: str, view: int) -> np.random.Generator:
    """Return the generator of one view of the image whose id is ``name``."""
    digest = hashlib.sha256(f"{seed}\0{view}\0{name}".encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest, "big")))


def draw_view(
    pixels: Pixels,
    augmentation: Augmentation,
    size: tuple[int, int],
    kind: int,
    draws: np.random.Generator,
) -> Pixels:
    """Return one random view of an image.

    The crop is resized as every image is, antialiased; colours are changed in float32 and rounded
    to 8 bits once, at the end.

    Args:
        pixels: (h, w, 3) red, green and blue.
        augmentation: The ranges to draw from.
        size: (height, width) of the view.
        kind: ``BILINEAR`` or ``BICUBIC``, for the crop.
        draws: From :func:`generator`.
    """
    box = draw_box(pixels.shape[0], pixels.shape[1], augmentation, draws)
    view = _cropped(pixels, box, size, kind)
    uniform = draws.random(_DRAWS)
    if uniform[0] < augmentation.flip:
        view = np.ascontiguousarray(view[:, ::-1])
    colours = view.astype(np.float32) / np.float32(255)
    if uniform[1] < augmentation.jitter:
        _jitter(colours, augmentation, uniform[2:10])
    if uniform[10] < augmentation.grayscale:
        saturate(colours, 0.0)
    if uniform[11] < augmentation.blur:
        colours = _blurred(colours, augmentation, uniform[12])
    rounded: Pixels = np.rint(colours * np.float32(255)).astype(np.uint8)
    return rounded


def draw_box(
    height: int, width: int, augmentation: Augmentation, draws: np.random.Generator
) -> tuple[int, int, int, int]:
    """Return (top, left, rows, columns) of a random crop.

    Its area and the logarithm of its ratio are uniform; where ten such do not fit into the image,
    the middle of it is taken, with the nearest ratio that is allowed.
    """
    low, high = (math.log(ratio) for ratio in augmentation.ratio)
    # All at once, so that the numbers after it do not depend on how many fit.
    for share, form, down, right in draws.random((_TRIES, 4)).tolist():
        area = height * width * _between(augmentation.area, share)
        ratio = math.exp(low + (high - low) * form)
        rows, columns = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
        if 0 < rows <= height and 0 < columns <= width:
            return (
                int(down * (height - rows + 1)),
                int(right * (width - columns + 1)),
                rows,
                columns,
            )
    ratio = min(max(width / height, augmentation.ratio[0]), augmentation.ratio[1])
    rows, columns = min(height, round(width / ratio)), min(width, round(height * ratio))
    return (height - rows) // 2, (width - columns) // 2, rows, columns


def _cropped(
    pixels: Pixels, box: tuple[int, int, int, int], size: tuple[int, int], kind: int
) -> Pixels:
    top, left, rows, columns = box
    flat = np.zeros(3 * rows * columns + PADDING, np.uint8)
    flat[: 3 * rows * columns].reshape(rows, columns, 3)[:] = pixels[
        top : top + rows, left : left + columns
    ]
    view = np.empty((size[0], 3 * size[1]), np.uint8)
    resample(flat, rows, columns, size, (0, 0, *size), kind, view)
    return view.reshape(*size, 3)


def _jitter(colours: Colours, augmentation: Augmentation, uniform: npt.NDArray[np.float64]) -> None:
    factors = [
        _between((max(0.0, 1 - spread), 1 + spread), share)
        for spread, share in zip(
            (augmentation.brightness, augmentation.contrast, augmentation.saturation),
            uniform[:3],
            strict=True,
        )
    ]
    changes = (brighten, contrast, saturate)
    turn = _between((-augmentation.hue, augmentation.hue), uniform[3])
    for step in np.argsort(uniform[4:8], kind="stable").tolist():
        if step < len(changes):
            changes[step](colours, factors[step])
        else:
            turn_hue(colours, turn)


def _blurred(colours: Colours, augmentation: Augmentation, share: float) -> Colours:
    height, width, _ = colours.shape
    # Beyond its end the image is mirrored, once.
    radius = min(int(height * augmentation.kernel) // 2, height - 1, width - 1)
    sigma = _between(augmentation.sigma, share)
    places = np.arange(-radius, radius + 1, dtype=np.float64)
    weights = np.exp(-0.5 * np.square(places / sigma))
    return blur(colours, (weights / weights.sum()).astype(np.float32))


def _between(ends: Range, share: float) -> float:
    return float(ends[0] + (ends[1] - ends[0]) * share)
