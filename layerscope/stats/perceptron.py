"""Multi-layer perceptrons with rectified hidden layers, trained until held-out rows say stop.

Weights begin as Kaiming He et al. (2015), "Delving Deep into Rectifiers", scaled as PyTorch's
linear layers do; the optimiser is AdamW (Loshchilov and Hutter 2019, "Decoupled Weight Decay
Regularization"). Early stopping is that of Prechelt (1998), "Early Stopping — But When?": training
ends when the held-out rows have not improved for some epochs, and the best epoch is what is kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn.functional import linear

Loss = Callable[[Tensor, Tensor], Tensor]
"""Maps (m, c) outputs and the targets of the same rows to their mean loss."""
ValidationLoss = tuple[float, ...]
"""Less is better; a perceptron that diverged has one that is not a number."""


@dataclass(frozen=True, slots=True)
class Perceptron:
    """Linear layers with a rectifier behind each of them but the last."""

    weights: tuple[Tensor, ...]
    """(out, in) float32 of each layer."""
    offsets: tuple[Tensor, ...]
    """(out,) float32 of each layer."""

    def __call__(self, rows: Tensor) -> Tensor:
        """Return (m, c) outputs of (m, d) rows."""
        *hidden, last = zip(self.weights, self.offsets, strict=True)
        for weight, offset in hidden:
            rows = linear(rows, weight, offset).relu()
        return linear(rows, *last)

    def copy(self) -> Perceptron:
        """Return one that no further training changes."""
        weights, offsets = (
            tuple(part.detach().clone() for part in parts) for parts in (self.weights, self.offsets)
        )
        return Perceptron(weights, offsets)


@dataclass(frozen=True, slots=True)
class PerceptronTraining:
    """How a perceptron is trained."""

    hidden: tuple[int, ...]
    """Units of each hidden layer."""
    rate: float = 1e-3
    decay: float = 1e-2
    batch: int = 256
    epochs: int = 100
    """At most."""
    patience: int = 10
    """Epochs without an improvement, after which training ends."""


@dataclass(frozen=True, slots=True)
class TrainedPerceptron:
    """The best perceptron and when it was found."""

    best: Perceptron
    at: int
    """The epoch after which it was the best, from 1; 0 if none ever had a finite loss."""
    epochs: int
    """Epochs run."""


def train(
    rows: Tensor,
    targets: Tensor,
    outputs: int,
    loss: Loss,
    validate: Callable[[Perceptron], ValidationLoss],
    training: PerceptronTraining,
    seed: int,
) -> TrainedPerceptron:
    """Train a perceptron, deterministically.

    Args:
        rows: (n, d) float32 standardised features.
        targets: (n, ...) what the loss compares with.
        outputs: Their number c.
        loss: What is descended.
        validate: Returns the loss of a perceptron on held-out rows; called after every epoch.
        training: How long, and in which steps.
        seed: Of the first weights and of the order of the rows.
    """
    generator = torch.Generator().manual_seed(seed)
    network = _initial_perceptron((rows.shape[1], *training.hidden, outputs), generator)
    parameters = [*network.weights, *network.offsets]
    optimiser = torch.optim.AdamW(parameters, lr=training.rate, weight_decay=training.decay)
    least: ValidationLoss = (math.inf,)
    best, at, epoch = network, 0, 0
    while epoch < training.epochs and epoch - at < training.patience:
        epoch += 1
        order = torch.randperm(len(rows), generator=generator)
        for batch in torch.split(order, training.batch):
            optimiser.zero_grad()
            # torch's own backward carries no types.
            loss(network(rows[batch]), targets[batch]).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        with torch.no_grad():
            found = validate(network)
        if found < least:
            best, least, at = network.copy(), found, epoch
    return TrainedPerceptron(best.copy(), at, epoch)


def _initial_perceptron(widths: Sequence[int], generator: torch.Generator) -> Perceptron:
    weights: list[Tensor] = []
    offsets: list[Tensor] = []
    for inputs, outputs in pairwise(widths):
        bound = 1 / math.sqrt(inputs)
        for parts, shape in ((weights, (outputs, inputs)), (offsets, (outputs,))):
            drawn = torch.rand(shape, generator=generator) * (2 * bound) - bound
            parts.append(drawn.requires_grad_())
    return Perceptron(tuple(weights), tuple(offsets))
