"""Descent of many smooth functions side by side: L-BFGS that takes one trial point at a time.

The caller evaluates all trial points together, however that is cheapest, and hands back values and
gradients; every function then accepts its step or shortens it by itself. Two-loop recursion and
curvature pairs are those of Nocedal and Wright (2006), "Numerical Optimization", algorithms 7.4 and
7.5; where rounding hides the decrease, the slope decides, as in Hager and Zhang (2005), "A new
conjugate gradient method with guaranteed descent and an efficient line search", eq. 4.1.
"""

from __future__ import annotations

from collections.abc import Callable

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


class Descent:
    """Some functions on their way to their minima.

    Args:
        start: (p, k) float64 where the p functions begin; entries that are infinite stay so.
        storage: In which type the pairs are kept, which are most of the memory.
    """

    def __init__(self, start: Tensor, storage: torch.dtype) -> None:
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
        self._pairs: list[tuple[Tensor, Tensor, Tensor]] = []
        self._storage = storage

    @property
    def stuck(self) -> Tensor:
        """(p,) whether no step along the direction goes down."""
        stuck: Tensor = self._step < SHORTEST
        return stuck

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
        self._pairs = [(s[kept], y[kept], inverse[kept]) for s, y, inverse in self._pairs]

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
        self._pairs.append((step.to(self._storage), change.to(self._storage), inverse))
        del self._pairs[:-MEMORY]

    def _shortened(self, value: Tensor) -> Tensor:
        """Return (p,) steps to the minimum of the parabola through both values and the slope."""
        above = value - self.value - self._step * self._slope
        least = -self._slope * self._step.square() / (2 * above.clamp(min=TINY))
        least = least.clamp(0.1 * self._step, 0.5 * self._step)
        return torch.where(value.isfinite(), least, 0.1 * self._step)

    def _newton(self, precondition: Precondition) -> Tensor:
        """Return (p, k) the approximate inverse Hessians times the gradients."""
        vector, shares = self.gradient.clone(), []
        for step, change, inverse in reversed(self._pairs):
            share = inverse * torch.linalg.vecdot(step.to(vector), vector)
            vector -= share[:, None] * change
            shares.append(share)
        vector = precondition(vector)
        for (step, change, inverse), share in zip(self._pairs, reversed(shares), strict=True):
            other = inverse * torch.linalg.vecdot(change.to(vector), vector)
            vector += (share - other)[:, None] * step
        return vector
