"""Descent of many smooth functions side by side: L-BFGS that takes one trial point at a time.

The caller evaluates all trial points together, however that is cheapest, and hands back values and
gradients; every function then accepts its step or shortens it by itself. Two-loop recursion and
curvature pairs are those of Nocedal and Wright (2006), "Numerical Optimization", algorithms 7.4 and
7.5; where rounding hides the decrease, the slope decides, as in Hager and Zhang (2005), "A new
conjugate gradient method with guaranteed descent and an efficient line search", eq. 4.1.

The first inverse Hessian is the caller's, times one number: the geometric mean of the scalings that
the remembered pairs ask for (their eq. 7.20 takes the last one's), and at most 1. One pair's swings
threefold from step to step, which costs a tenth of the passes; without any, steps where the Hessian
is spread widely around the caller's are twice too long, which costs half of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

MEMORY = 10
"""Pairs of steps and gradient differences that are remembered."""
SUFFICIENT = 1e-4
"""Share of the decrease promised by the slope that a step must bring (Armijo)."""
NOISE = 1e-7
"""Relative difference of two values that may be rounding alone."""
SHORTEST = 1e-8
"""Share of a step below which a function cannot be brought down any more."""
TINY = 1e-300

Precondition = Callable[[Tensor], Tensor]
"""Maps (p, k) gradients to the approximate inverse Hessians times them."""


class Pair(NamedTuple):
    """A step and the change of the gradient along it, of each function."""

    step: Tensor
    """(p, k)"""
    change: Tensor
    """(p, k), zero for a function that did not move."""
    inverse: Tensor
    """(p,) one over their product, or zero."""
    scale: Tensor
    """(p,) logarithm of the scaling that the pair asks for, or zero; nan until it is known."""

    def of(self, kept: Tensor) -> Pair:
        """Return the pair of some of the functions, by a mask or by places."""
        return Pair(*(part[kept] for part in self))

    def scaled(self, precondition: Precondition) -> Pair:
        """Return the pair with the scaling s·y / y·Dy that it asks for of the preconditioner D."""
        change = self.change.double()
        asked = self.inverse * torch.linalg.vecdot(change, precondition(change))
        return self._replace(scale=torch.where(asked > 0, -asked.clamp(min=TINY).log(), 0.0))

    def bent(self, more: Tensor) -> Pair:
        """Return the pair after the Hessians have grown by a diagonal, given as (p, k)."""
        change = self.change + (more * self.step).to(self.change)
        product = torch.linalg.vecdot(self.step.double(), change.double())
        usable = (self.inverse > 0) & (product > TINY)
        return Pair(
            self.step,
            torch.where(usable[:, None], change, torch.zeros_like(change)),
            torch.where(usable, 1 / torch.where(usable, product, 1.0), 0.0),
            torch.where(usable, self.scale, 0.0),
        )


class Descent:
    """Some functions on their way to their minima.

    Args:
        start: (p, k) float64 where the p functions begin; entries that are infinite stay so.
        storage: In which type the pairs are kept, which are most of the memory.
        pairs: What is known of the curvature from before.
    """

    def __init__(self, start: Tensor, storage: torch.dtype, pairs: Sequence[Pair] = ()) -> None:
        p = len(start)
        self.point = start
        """(p, k) the best known."""
        self.trial = start
        """(p, k) what is to be evaluated next."""
        self.value = torch.full((p,), torch.inf, dtype=torch.float64, device=start.device)
        """(p,) at the best known points."""
        self.gradient = torch.zeros_like(start)
        """(p, k) there."""
        self._direction = torch.zeros_like(start)
        self._slope = torch.zeros_like(self.value)
        self._step = torch.ones_like(self.value)
        self._accepted = torch.ones(p, dtype=torch.bool, device=start.device)
        self.pairs = list(pairs)
        """Of the last steps, the oldest first."""
        self._storage = storage

    @property
    def stuck(self) -> Tensor:
        """(p,) whether no step along the direction goes down."""
        stuck: Tensor = self._step < SHORTEST
        return stuck

    @property
    def promised(self) -> Tensor:
        """(p,) by how much a Newton step would lower the value, were the Hessian as remembered."""
        return -self._slope / 2

    def take(self, value: Tensor, gradient: Tensor) -> None:
        """Take in (p,) values and (p, k) gradients at the trial points."""
        first = self.value.isinf()
        accepted = first | self._is_accepted(value, gradient)
        self._remember(gradient, accepted & ~first)
        self._step = torch.where(accepted, 1.0, self._shortened(value))
        chosen = accepted[:, None]
        self.point = torch.where(chosen, self.trial, self.point)
        self.gradient = torch.where(chosen, gradient, self.gradient)
        self.value = torch.where(accepted, value, self.value)
        self._accepted = accepted

    def aim(self, precondition: Precondition) -> None:
        """Set the next trial points: in a new direction where the last ones were accepted."""
        if self.pairs and bool(self.pairs[-1].scale.isnan().any()):
            self.pairs[-1] = self.pairs[-1].scaled(precondition)
        direction = -self._newton(precondition)
        self._direction = torch.where(self._accepted[:, None], direction, self._direction)
        self._slope = torch.linalg.vecdot(self.gradient, self._direction)
        self.trial = self.point + self._step[:, None] * self._direction

    def keep(self, kept: Tensor) -> None:
        """Go on with some of the functions, by a (p,) mask."""
        self.point, self.trial = self.point[kept], self.trial[kept]
        self.value, self.gradient = self.value[kept], self.gradient[kept]
        self._direction, self._slope = self._direction[kept], self._slope[kept]
        self._step, self._accepted = self._step[kept], self._accepted[kept]
        self.pairs = [pair.of(kept) for pair in self.pairs]

    def _is_accepted(self, value: Tensor, gradient: Tensor) -> Tensor:
        promised = SUFFICIENT * self._step * self._slope
        reached = torch.linalg.vecdot(gradient, self._direction)
        level = value <= self.value + NOISE * self.value.abs()
        lower: Tensor = value <= self.value + promised
        flat: Tensor = level & (reached <= (2 * SUFFICIENT - 1) * self._slope)
        return lower | flat

    def _remember(self, gradient: Tensor, accepted: Tensor) -> None:
        step = self._step[:, None] * self._direction
        change = gradient - self.gradient
        product = torch.linalg.vecdot(step, change)
        curved = product > TINY + 1e-14 * step.norm(dim=1) * change.norm(dim=1)
        usable = accepted & curved
        if not bool(usable.any()):
            return
        # A function that did not move has a pair that counts for nothing.
        inverse = torch.where(usable, 1 / torch.where(usable, product, 1.0), 0.0)
        zero = torch.zeros((), dtype=step.dtype, device=step.device)
        change = torch.where(usable[:, None], change, zero)
        unscaled = torch.full_like(inverse, torch.nan)
        kept = step.to(self._storage), change.to(self._storage)
        self.pairs.append(Pair(*kept, inverse, unscaled))
        del self.pairs[:-MEMORY]

    def _shortened(self, value: Tensor) -> Tensor:
        """Return (p,) steps to the minimum of the parabola through both values and the slope."""
        above = value - self.value - self._step * self._slope
        least = -self._slope * self._step.square() / (2 * above.clamp(min=TINY))
        least = least.clamp(0.1 * self._step, 0.5 * self._step)
        return torch.where(value.isfinite(), least, 0.1 * self._step)

    def _newton(self, precondition: Precondition) -> Tensor:
        """Return (p, k) the approximate inverse Hessians times the gradients."""
        vector, shares = self.gradient.clone(), []
        for pair in reversed(self.pairs):
            share = pair.inverse * torch.linalg.vecdot(pair.step.to(vector), vector)
            vector -= share[:, None] * pair.change
            shares.append(share)
        vector = self._scale()[:, None] * precondition(vector)
        for pair, share in zip(self.pairs, reversed(shares), strict=True):
            other = pair.inverse * torch.linalg.vecdot(pair.change.to(vector), vector)
            vector += (share - other)[:, None] * pair.step
        return vector

    def _scale(self) -> Tensor:
        """Return (p,) what the preconditioner is multiplied by."""
        if not self.pairs:
            return torch.ones_like(self.value)
        asked = torch.stack([pair.scale for pair in self.pairs]).sum(0)
        usable = torch.stack([pair.inverse > 0 for pair in self.pairs]).sum(0)
        return (asked / usable.clamp(min=1)).exp().clamp(max=1.0)
