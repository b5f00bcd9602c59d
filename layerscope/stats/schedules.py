"""Learning-rate schedules: the share of the initial rate that is left after some epochs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol


class Schedule(Protocol):
    """What the rate is multiplied by."""

    def __call__(self, epoch: float, epochs: float) -> float:
        """Return the factor after ``epoch`` of ``epochs``, which need not be whole."""
        ...


@dataclass(frozen=True, slots=True)
class Constant:
    """The rate stays as it is."""

    def __call__(self, epoch: float, epochs: float) -> float:
        return 1.0


@dataclass(frozen=True, slots=True)
class Steps:
    """The rate falls at the end of some epochs.

    Examples:
        >>> [Steps((60, 80))(epoch, 100) for epoch in (59.9, 60, 99)]
        [1.0, 0.1, 0.010000000000000002]
    """

    at: tuple[int, ...]
    """Epochs after which the rate is multiplied once more."""
    factor: float = 0.1

    def __call__(self, epoch: float, epochs: float) -> float:
        return float(self.factor ** sum(epoch >= end for end in self.at))


@dataclass(frozen=True, slots=True)
class Cosine:
    """Half a period of a cosine (Loshchilov and Hutter 2017, "SGDR", eq. 5), after a warm-up.

    Examples:
        >>> [round(Cosine()(epoch, 10), 3) for epoch in (0, 5, 10)]
        [1.0, 0.5, 0.0]
    """

    last: float = 0.0
    """Share of the rate at the end."""
    warmup: float = 0.0
    """Epochs during which the rate grows linearly from 0."""
    by_epoch: bool = False
    """Whether the rate stays the same within an epoch."""

    def __call__(self, epoch: float, epochs: float) -> float:
        epoch = math.floor(epoch) if self.by_epoch else epoch
        if epoch < self.warmup:
            return epoch / self.warmup
        done = (epoch - self.warmup) / (epochs - self.warmup)
        return self.last + (1 - self.last) * (1 + math.cos(math.pi * done)) / 2


@dataclass(frozen=True, slots=True)
class Exponential:
    """The rate is multiplied by the same factor after every epoch."""

    factor: float

    def __call__(self, epoch: float, epochs: float) -> float:
        return float(self.factor ** math.floor(epoch))
