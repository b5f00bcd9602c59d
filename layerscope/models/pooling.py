"""From a layer's output to one vector per image, in memory of its own."""

from __future__ import annotations

from torch import Tensor

from layerscope.errors import CheckpointError


def pooling_of(shape: tuple[int, ...]) -> str:
    """Return how an output of this shape (b, …) is pooled: ``mean`` for maps, else ``none``."""
    return "mean" if len(shape) == 4 else "none"


def pooled_width(shape: tuple[int, ...]) -> int:
    """Return the number of pooled features of an output of shape (b, c, h, w) or (b, c).

    Raises:
        CheckpointError: The output is neither a map nor a vector per image.
    """
    if len(shape) not in (2, 4):
        raise CheckpointError(
            f"A layer's output has shape {shape}, which is neither a map nor a vector per image.",
            hint="Choose cut points whose outputs are (batch, channels[, height, width]).",
        )
    return shape[1]


def pool(output: Tensor, pooling: str) -> Tensor:
    """Return (b, c) float32 features that no later operation can change.

    A captured tensor is not ours: an in-place ReLU behind the tapped layer overwrites it. The mean
    makes new memory by itself; a vector is copied.

    Args:
        output: (b, c, h, w) for ``mean``, (b, c) for ``none``.
        pooling: ``mean`` over height and width, or ``none``.
    """
    if pooling == "mean":
        return output.float().mean(dim=(2, 3))
    return output.detach().float().clone()
