"""Changes of colour and a blur, for augmented views: compiled, in place, one thread each.

Values are float32 in [0, 1]. Definitions are those of torchvision, which a test compares them with:
grey is ITU-R BT.601 luma, and contrast is measured from the mean grey of the image. Torch itself is
not used because its operations start threads of their own in each of a loader's.
"""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt

Colours = npt.NDArray[np.float32]
"""(h, w, 3) red, green and blue in [0, 1], contiguous."""

_compiled = numba.njit(nogil=True, cache=True, error_model="numpy")


@_compiled
def _clipped(value: float) -> np.float32:
    return np.float32(min(max(value, 0.0), 1.0))


@_compiled
def _grey(red: float, green: float, blue: float) -> float:
    return 0.2989 * red + 0.587 * green + 0.114 * blue


@_compiled
def brighten(colours: Colours, factor: float) -> None:
    """Multiply all values."""
    flat = colours.reshape(-1)
    for i in range(len(flat)):
        flat[i] = _clipped(flat[i] * factor)


@_compiled
def contrast(colours: Colours, factor: float) -> None:
    """Multiply the distance of all values from the mean grey."""
    flat = colours.reshape(-1, 3)
    total = 0.0
    for i in range(len(flat)):
        total += _grey(flat[i, 0], flat[i, 1], flat[i, 2])
    middle = total / len(flat)
    values = colours.reshape(-1)
    for i in range(len(values)):
        values[i] = _clipped(middle + factor * (values[i] - middle))


@_compiled
def saturate(colours: Colours, factor: float) -> None:
    """Multiply the distance of each pixel from its grey; a factor of 0 leaves no colour."""
    flat = colours.reshape(-1, 3)
    for i in range(len(flat)):
        grey = _grey(flat[i, 0], flat[i, 1], flat[i, 2])
        for c in range(3):
            flat[i, c] = _clipped(grey + factor * (flat[i, c] - grey))


@_compiled
def turn_hue(colours: Colours, turn: float) -> None:
    """Turn each pixel's hue by a part of the colour circle; value and chroma stay.

    With hue in sixths of a turn, chroma C and value V, a channel of offset n (5 for red, 3 for
    green, 1 for blue) is ``V - C·max(0, min(k, 4 - k, 1))``, ``k = (n + hue) mod 6``: the formula
    of HSV that needs no table of the six sectors.
    """
    flat = colours.reshape(-1, 3)
    for i in range(len(flat)):
        red, green, blue = flat[i, 0], flat[i, 1], flat[i, 2]
        value, low = max(red, green, blue), min(red, green, blue)
        chroma = value - low
        if chroma == 0.0:
            continue
        if value == red:
            hue = (green - blue) / chroma
        elif value == green:
            hue = 2.0 + (blue - red) / chroma
        else:
            hue = 4.0 + (red - green) / chroma
        hue += 6.0 * turn
        for c in range(3):
            k = (5.0 - 2.0 * c + hue) % 6.0
            flat[i, c] = _clipped(value - chroma * max(0.0, min(k, 4.0 - k, 1.0)))


@_compiled
def blur(colours: Colours, weights: npt.NDArray[np.float32]) -> Colours:
    """Return the image convolved along rows and columns, mirrored at its ends.

    Args:
        colours: (h, w, 3).
        weights: (2r + 1,) symmetric, summing to 1, with r below both sides.
    """
    height, width, _ = colours.shape
    radius = len(weights) // 2
    along = np.zeros_like(colours)
    for y in range(height):
        for k in range(len(weights)):
            weight = weights[k]
            for x in range(width):
                at = _mirrored(x + k - radius, width)
                for c in range(3):
                    along[y, x, c] += weight * colours[y, at, c]
    blurred = np.zeros_like(colours)
    for y in range(height):
        for k in range(len(weights)):
            weight, source = weights[k], along[_mirrored(y + k - radius, height)]
            for x in range(width):
                for c in range(3):
                    blurred[y, x, c] += weight * source[x, c]
    return np.minimum(blurred, np.float32(1))


@_compiled
def _mirrored(place: int, count: int) -> int:
    if place < 0:
        return -place
    return 2 * (count - 1) - place if place >= count else place
