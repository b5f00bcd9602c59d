"""Heads (projectors) as an ordered list of layers, each a probe point of its own."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn


class Head(nn.Sequential):
    """Layers named ``1``, ``2``, … whose outputs are the cut points ``head.1``, ``head.2``, …."""

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        super().__init__()
        for number, layer in enumerate(layers, start=1):
            self.add_module(str(number), layer)


def mlp_head(widths: Sequence[int]) -> Head:
    """Build an MLP head: Linear, BatchNorm and ReLU a layer, the last one a bare Linear.

    The structure of the projectors in FFCV-SSL's ``train_ssl.py``: hidden layers have biases and
    are probed after their ReLU, the last has neither bias, normalisation nor activation.

    Args:
        widths: Of the trunk's output and of every head layer: four numbers for three layers.
    """
    pairs = list(pairwise(widths))
    hidden = [
        nn.Sequential(nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs), nn.ReLU())
        for inputs, outputs in pairs[:-1]
    ]
    last = [nn.Sequential(nn.Linear(*pair, bias=False)) for pair in pairs[-1:]]
    return Head([*hidden, *last])


class TrunkAndHead(nn.Module):
    """A trunk whose representation goes through a head, and perhaps through a read-out.

    Args:
        trunk: Images (b, 3, h, w) to representations (b, d).
        head: Representations to embeddings.
        output: A read-out behind the head, such as four numbers for a rotation; not a cut point.
    """

    def __init__(self, trunk: nn.Module, head: Head, output: nn.Module | None = None) -> None:
        super().__init__()
        self.trunk = trunk
        self.head = head
        self.output = output or nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        """Return the read-out (b, k), or the embeddings where there is no read-out."""
        result: Tensor = self.output(self.head(self.trunk(images)))
        return result
