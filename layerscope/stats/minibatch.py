"""Linear classifiers trained side by side by minibatch descent: one product serves all of them.

Each head is a softmax classifier with its own learning rate; all see the same minibatches. Their
cross-entropy's gradient is (softmax − one-hot)ᵀ x / m, so nothing is differentiated automatically.

Momentum is v ← μ v + g and w ← w − γ v, and in Nesterov's form w ← w − γ (g + μ v) (Sutskever et
al. 2013, "On the importance of initialization and momentum in deep learning", in PyTorch's
arrangement); with the decay β w as part of g. LARS is algorithm 1 of You, Gitman and Ginsburg
(2017), "Large batch training of convolutional networks": the rate of a head's weights is multiplied
by η ‖w‖ / (‖g‖ + β ‖w‖) (eq. 6) and the momentum gathers the scaled steps. As in the codes that
use it, intercepts and weights of no length move at the rate itself. Adam is Kingma and Ba (2015),
algorithm 1, and AdamW its decay outside the moments (Loshchilov and Hutter 2019, algorithm 2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from layerscope.stats.schedules import Schedule

TRUST = 1e-3
"""η of LARS."""
BETAS, EPSILON = (0.9, 0.999), 1e-8
"""Of Adam and AdamW."""
DEVIATION = 0.01
"""Of the normal weights that a head begins with."""


@dataclass(frozen=True, slots=True)
class Optimiser:
    """How a step follows from a gradient."""

    kind: Literal["sgd", "lars", "adam", "adamw"]
    momentum: float = 0.9
    """Of sgd and lars."""
    nesterov: bool = False
    """Of sgd."""
    decay: float = 0.0
    """β, of the weights and the intercepts as in the published codes; of lars of weights alone."""


@dataclass(frozen=True, slots=True)
class MinibatchPlan:
    """How long heads are trained, and on how much at a time."""

    optimiser: Optimiser
    schedule: Schedule
    steps: int
    """Minibatches in all."""
    per_epoch: float
    """Minibatches that the schedule takes for an epoch."""
    batch: int


@dataclass(frozen=True, slots=True)
class Heads:
    """h softmax classifiers of c classes on d features."""

    weights: Tensor
    """(h, c, d) float32."""
    intercepts: Tensor
    """(h, c) float32."""

    def only(self, head: int) -> Heads:
        """Return one of the heads."""
        return Heads(self.weights[head][None], self.intercepts[head][None])

    def logits(self, rows: Tensor) -> Tensor:
        """Return (m, h, c) logits of (m, d) rows."""
        flat = torch.addmm(self.intercepts.flatten(), rows, self.weights.flatten(0, 1).T)
        return flat.view(len(rows), *self.intercepts.shape)


def train_heads(
    rows: Tensor,
    labels: Tensor,
    classes: int,
    rates: Sequence[float],
    plan: MinibatchPlan,
    seed: int,
) -> Heads:
    """Train one head for each learning rate; one that diverges is not finite and harms no other.

    Args:
        rows: (n, d) float32 features.
        labels: (n,) int64 in [0, classes).
        classes: Their number c.
        rates: h initial learning rates.
        plan: Steps, batches and the schedule of the rates.
        seed: Of the first weights, which all heads share, and of the order of the rows.
    """
    generator = torch.Generator().manual_seed(seed)
    width = len(rates), classes, rows.shape[1]
    first = DEVIATION * torch.randn(1, *width[1:], generator=generator)
    weights = _Parameter(first.repeat(len(rates), 1, 1), plan.optimiser, is_weight=True)
    offsets = _Parameter(torch.zeros(width[:2]), plan.optimiser, is_weight=False)
    initial = torch.tensor(rates, dtype=torch.float32)
    batches: list[Tensor] = []
    for step in range(plan.steps):
        if not batches:
            order = torch.randperm(len(rows), generator=generator)
            batches = list(torch.split(order, plan.batch))[::-1]
        batch = batches.pop()
        block, answers = rows[batch], labels[batch]
        slopes = _slopes(Heads(weights.value, offsets.value).logits(block), answers)
        rate = initial * plan.schedule(step / plan.per_epoch, plan.steps / plan.per_epoch)
        gradient = slopes.flatten(1).T @ block
        weights.move(gradient.view(width), rate)
        offsets.move(slopes.sum(0), rate)
    return Heads(weights.value, offsets.value)


def _slopes(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the (m, h, c) derivatives of the heads' mean cross-entropies."""
    slopes = torch.softmax(logits, 2)
    chosen = labels[:, None, None].expand(-1, logits.shape[1], 1)
    slopes.scatter_add_(2, chosen, slopes.new_full((), -1.0).expand(chosen.shape))
    return slopes / len(labels)


class _Parameter:
    """The weights or the intercepts of all heads, with what the optimiser remembers of them."""

    def __init__(self, value: Tensor, optimiser: Optimiser, *, is_weight: bool) -> None:
        self.value = value
        self._optimiser, self._is_weight = optimiser, is_weight
        self._mean = torch.zeros_like(value)
        self._square = torch.zeros_like(value) if optimiser.kind.startswith("adam") else None
        self._turn = 0

    def move(self, gradient: Tensor, rate: Tensor) -> None:
        """Take one step of (h,) rates against the gradient."""
        self._turn += 1
        rates = rate.view(-1, *[1] * (gradient.dim() - 1))
        if self._square is not None:
            step = self._adaptive(gradient, rates, self._square)
        elif self._optimiser.kind == "lars":
            step = self._layerwise(gradient, rates)
        else:
            step = self._plain(gradient, rates)
        self.value = self.value - step

    def _plain(self, gradient: Tensor, rates: Tensor) -> Tensor:
        momentum = self._optimiser.momentum
        gradient = gradient + self._optimiser.decay * self.value
        self._mean = momentum * self._mean + gradient
        ahead = gradient + momentum * self._mean if self._optimiser.nesterov else self._mean
        return rates * ahead

    def _layerwise(self, gradient: Tensor, rates: Tensor) -> Tensor:
        if self._is_weight:
            decay = self._optimiser.decay
            length = self.value.flatten(1).norm(dim=1).view_as(rates)
            slope = gradient.flatten(1).norm(dim=1).view_as(rates)
            trust = TRUST * length / (slope + decay * length)
            rates = torch.where((length > 0) & (slope > 0), rates * trust, rates)
            gradient = gradient + decay * self.value
        self._mean = self._optimiser.momentum * self._mean + rates * gradient
        return self._mean

    def _adaptive(self, gradient: Tensor, rates: Tensor, square: Tensor) -> Tensor:
        decay, (first, second) = self._optimiser.decay * self.value, BETAS
        if self._optimiser.kind == "adam":
            gradient, decay = gradient + decay, torch.zeros(())
        self._mean.lerp_(gradient, 1 - first)
        square.lerp_(gradient.square(), 1 - second)
        mean = self._mean / (1 - first**self._turn)
        root = (square / (1 - second**self._turn)).sqrt()
        return rates * (mean / (root + EPSILON) + decay)
