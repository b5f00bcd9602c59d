"""Training methods, one file each: how images become inputs, and what is minimised."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor, nn

from layerscope.registry import Registry


class Method(Protocol):
    """A way of training a trunk with a head."""

    name: str
    output: int
    """Numbers read out behind the head; 0 where the loss acts on the embeddings."""
    description: str
    """One sentence for the card."""

    def inputs(self, image: Tensor, side: int) -> tuple[Tensor, ...]:
        """Return the augmented views (3, side, side), uint8, of one image (3, h, w), uint8."""
        ...

    def loss(self, network: nn.Module, views: tuple[Tensor, ...], latents: Tensor) -> Tensor:
        """Return the mean loss of a batch.

        Args:
            network: Images to read-outs, or to embeddings where ``output`` is 0.
            views: For every view (b, 3, side, side), normalised.
            latents: (b, 3) yaw, pitch and roll in radians.
        """
        ...


methods: Registry[Method] = Registry(
    "training method", package="layerscope.pretrain.methods", group="layerscope.methods"
)
"""Every known training method by name."""
