"""What the axes of a layer's four-dimensional output are: told from traces, never guessed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn

from layerscope.models.cuts import IMAGES, Call, base_name, trace
from layerscope.types import Layout

_CHANNELS_FIRST = (
    nn.Conv2d,
    nn.BatchNorm2d,
    nn.MaxPool2d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool2d,
    nn.AdaptiveMaxPool2d,
)


Shapes = Mapping[str, tuple[int, ...]]


def wide_shapes(network: nn.Module, side: int) -> Shapes:
    """Return the shapes of outputs for an image twice as wide as high, as far as it gets."""
    return {call.module: call.shape for call in trace(network, side, 2 * side, whole=False)}


def map_layouts(network: nn.Module, calls: Sequence[Call], side: int) -> dict[str, Layout]:
    """Return the layout of every map of which it is certain, by the name of the call.

    torch's own convolutions, poolings and BatchNorms have channels before height and width. Other
    layers are told by a second trace with a wider image: the last axis grows alone where the
    channels come first, the last but one where they come last. An output that is not square for a
    square image, such as the queries of an attention, is no map.

    Args:
        network: The network.
        calls: Its calls, traced with a square image.
        side: Side of that image, in pixels.
    """
    wide = wide_shapes(network, side)
    found: dict[str, Layout] = {}
    for call in calls:
        if len(call.shape) != 4 or call.shape[0] != IMAGES:
            continue
        if isinstance(network.get_submodule(base_name(call.module)), _CHANNELS_FIRST):
            found[call.module] = "map"
        elif layout := _layout_by_growth(call.shape, wide.get(call.module, ())):
            found[call.module] = layout
    return found


def _layout_by_growth(shape: tuple[int, ...], wide: tuple[int, ...]) -> Layout | None:
    if shape[2:] == (1, 1):
        return "map"
    if shape[1:3] == (1, 1):
        return "map-last"
    if len(wide) != 4 or wide[0] != IMAGES:
        return None
    grown = [axis for axis in (1, 2, 3) if shape[axis] != wide[axis]]
    if grown == [3] and shape[2] == shape[3]:
        return "map"
    if grown == [2] and shape[1] == shape[2]:
        return "map-last"
    return None


def like_neighbour(
    shape: tuple[int, ...], neighbour: tuple[int, ...], layout: Layout
) -> Layout | None:
    """Return the layout of a map with the height and width of a known one; None of any other."""
    if layout not in ("map", "map-last") or len(shape) != 4 or shape[0] != IMAGES:
        return None
    size = neighbour[2:] if layout == "map" else neighbour[1:3]
    fitting: Mapping[Layout, bool] = {"map": shape[2:] == size, "map-last": shape[1:3] == size}
    possible = [name for name, fits in fitting.items() if fits]
    return possible[0] if len(possible) == 1 else None
