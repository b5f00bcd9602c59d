"""Training methods, one file each: how images become inputs, and what is minimised."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor, nn
from torchvision.transforms import v2

from layerscope.registry import Registry


class Method(Protocol):
    """A way of training a trunk with a head."""

    name: str
    task: str
    """Whose targets it is trained with; empty where it needs none."""
    description: str
    """One sentence for the card, without its full stop."""
    citation: str
    """Where the method is described, for the card."""

    @property
    def output(self) -> int | None:
        """Numbers read out behind the head; 0 where the loss acts on the embeddings.

        None for one a class of the task.
        """

    def inputs(self, image: Tensor, side: int) -> tuple[Tensor, ...]:
        """Return the augmented views (3, side, side), uint8, of one image (3, h, w), uint8."""

    def loss(self, network: nn.Module, views: tuple[Tensor, ...], targets: Tensor) -> Tensor:
        """Return the mean loss of a batch.

        Args:
            network: Images to read-outs, or to embeddings where ``output`` is 0.
            views: For every view (b, 3, side, side), normalised.
            targets: (b,) int64 classes or (b, k) float32 latents of the method's task; zeros
                where it needs none.
        """


def crop_weakly(image: Tensor, side: int) -> Tensor:
    """Return a crop that keeps what supervised methods ask about: 70 to 100 % of the area."""
    crop = v2.RandomResizedCrop(side, scale=(0.7, 1.0), ratio=(0.9, 1.1), antialias=True)
    view: Tensor = crop(image)
    return view


methods: Registry[Method] = Registry(
    "training method", package="layerscope.training.methods", group="layerscope.methods"
)
"""Every known training method by name."""
