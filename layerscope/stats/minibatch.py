"""Linear classifiers trained side by side by minibatch descent: one product serves all of them.

Each head is a softmax classifier with its own learning rate; all see the same minibatches. Their
cross-entropy's gradient is (softmax − one-hot)ᵀ x / m, so nothing is differentiated automatically.

Momentum is v ← μ v + u and w ← w − γ v, and in Nesterov's form w ← w − γ (u + μ v) (Sutskever et
al. 2013, "On the importance of initialization and momentum in deep learning", in PyTorch's
arrangement): the rate γ is outside of what is gathered. What is gathered differs, with a gradient g
and a decay β:

- SGD: u = g + β w.
- LARS, of You, Gitman and Ginsburg (2017), "Large batch training of convolutional networks", as the
  codes of MoCo v3 and MAE have it: u = η ‖w‖ / ‖g + β w‖ (g + β w) for weights, and u = g for
  intercepts, which neither decay nor are scaled. (The paper's algorithm 1 gathers γ u instead,
  which is another path as soon as γ changes.)
- LARC, as apex has it and SimSiam uses it, without clipping, for weights and intercepts alike:
  u = η ‖w‖ / (‖g‖ + β ‖w‖ + ε) (g + β w).

In both, what has no length is not scaled. Adam is Kingma and Ba (2015),
algorithm 1, and AdamW its decay outside the moments (Loshchilov and Hutter 2019, algorithm 2).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from layerscope.stats.schedules import Schedule

TRUST = 1e-3
"""η of LARS and LARC."""
BETAS, EPSILON = (0.9, 0.999), 1e-8
"""Of Adam and AdamW; ε of LARC as well."""
DEVIATION = 0.01
"""Of the normal weights that a head begins with."""

Remainder = Literal["kept", "left out", "carried over"]
"""What becomes of the rows at the end of an epoch that fill no batch: a smaller batch, nothing, or
the beginning of the next epoch's first batch."""


@dataclass(frozen=True, slots=True)
class Optimiser:
    """How a step follows from a gradient."""

    kind: Literal["sgd", "lars", "larc", "adam", "adamw"]
    momentum: float = 0.9
    """Of sgd, lars and larc."""
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
    remainder: Remainder = "kept"


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
    batches = _batches(len(rows), plan, generator)
    for step in range(plan.steps):
        batch = next(batches)
        block, answers = rows[batch], labels[batch]
        slopes = _slopes(Heads(weights.value, offsets.value).logits(block), answers)
        rate = initial * plan.schedule(step / plan.per_epoch, plan.steps / plan.per_epoch)
        gradient = slopes.flatten(1).T @ block
        weights.move(gradient.view(width), rate)
        offsets.move(slopes.sum(0), rate)
    return Heads(weights.value, offsets.value)


def _batches(count: int, plan: MinibatchPlan, generator: torch.Generator) -> Iterator[Tensor]:
    """Yield (m,) places of minibatches, without an end; every epoch has an order of its own."""
    size, rest = min(plan.batch, count), torch.empty(0, dtype=torch.int64)
    while True:
        order = torch.cat((rest, torch.randperm(count, generator=generator)))
        whole = len(order) // size * size
        yield from torch.split(order[:whole], size)
        rest = order[whole:]
        if plan.remainder == "carried over":
            continue
        if plan.remainder == "kept" and len(rest):
            yield rest
        rest = rest[:0]


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
        else:
            step = rates * self._gathered(self._scaled(gradient))
        self.value = self.value - step

    def _scaled(self, gradient: Tensor) -> Tensor:
        """Return what the momentum gathers."""
        kind, decay = self._optimiser.kind, self._optimiser.decay
        if kind == "lars" and not self._is_weight:
            return gradient
        decayed = gradient + decay * self.value
        if kind == "sgd":
            return decayed
        length = _norms(self.value)
        if kind == "lars":
            slope = below = _norms(decayed)
            unscaled = decayed
        else:
            slope = _norms(gradient)
            below = slope + decay * length + EPSILON
            unscaled = gradient
        trusted = (length > 0) & (slope > 0)
        return torch.where(trusted, TRUST * length / below * decayed, unscaled)

    def _gathered(self, update: Tensor) -> Tensor:
        momentum = self._optimiser.momentum
        self._mean = momentum * self._mean + update
        return update + momentum * self._mean if self._optimiser.nesterov else self._mean

    def _adaptive(self, gradient: Tensor, rates: Tensor, square: Tensor) -> Tensor:
        decay, (first, second) = self._optimiser.decay * self.value, BETAS
        if self._optimiser.kind == "adam":
            gradient, decay = gradient + decay, torch.zeros(())
        self._mean.lerp_(gradient, 1 - first)
        square.lerp_(gradient.square(), 1 - second)
        mean = self._mean / (1 - first**self._turn)
        root = (square / (1 - second**self._turn)).sqrt()
        return rates * (mean / (root + EPSILON) + decay)


def _norms(values: Tensor) -> Tensor:
    """Return the Euclidean length of each of h heads' values, in a shape that they multiply by."""
    lengths: Tensor = torch.linalg.vector_norm(values.flatten(1), dim=1)
    return lengths.view(-1, *[1] * (values.dim() - 1))
