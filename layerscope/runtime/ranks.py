"""Ranks: the processes that ``torchrun`` started to do one job together.

What they tell each other are plans and reports, a few kilobytes before the first image and after
the last: so gloo is enough on every machine, with or without GPUs, and in between no rank waits for
another.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar, cast

from layerscope.errors import LayerScopeError, RankError
from layerscope.runtime.cpus import processors

T = TypeVar("T")

_PATIENCE = timedelta(days=14)
"""For the slowest rank; one that dies is noticed at once, by its connection."""


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process among those of a job; alone by default."""

    rank: int = 0
    count: int = 1
    local_rank: int = 0
    """Among those on the same machine."""
    sharing: int = 1
    """How many of them may use the same processors, this one among them."""
    position: int = 0
    """Of this one among these."""

    def own_processors(self) -> list[int]:
        """Return which of the processors that are shared are this one's."""
        every = processors()
        each = max(1, len(every) // self.sharing)
        first = self.position * each % len(every)
        return every[first : first + each]

    @property
    def leads(self) -> bool:
        """Whether this one plans, and speaks to the user."""
        return self.rank == 0

    def decide(self, decision: Callable[[], T]) -> T:
        """Return what the leader decides, in every rank; if that fails, it fails in all of them.

        Args:
            decision: Called in the leader alone.

        Raises:
            LayerScopeError: What the leader raised.
        """
        if self.count == 1:
            return decision()
        outcome: Any = None
        if self.leads:
            try:
                outcome = decision()
            except LayerScopeError as error:
                outcome = error
        [told] = _together(_broadcast, [outcome])
        if isinstance(told, LayerScopeError):
            raise told
        return cast(T, told)

    def gather(self, value: T) -> list[T]:
        """Return the values of all ranks, in every rank, once the last one has come to this.

        Raises:
            RankError: A rank is gone.
        """
        if self.count == 1:
            return [value]
        return _together(_gather, value, self.count)


ALONE = Ranks()


@contextmanager
def joined() -> Iterator[Ranks]:
    """Join the other ranks that ``torchrun`` started, if it did, and part from them at the end."""
    environment = os.environ
    count = int(environment.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Ranks()
        return
    import torch.distributed

    torch.distributed.init_process_group("gloo", timeout=_PATIENCE)
    try:
        yield Ranks(
            int(environment["RANK"]),
            count,
            int(environment.get("LOCAL_RANK", environment["RANK"])),
            *_sharing(count, int(environment["RANK"])),
        )
    finally:
        torch.distributed.destroy_process_group()


def _sharing(count: int, rank: int) -> tuple[int, int]:
    """Return how many ranks may use this one's processors, and its position among them.

    All on the machine may, unless something else has bound them apart.
    """
    mine = (socket.gethostname(), processors())
    places = _together(_gather, mine, count)
    return places.count(mine), places[:rank].count(mine)


def _together(exchange: Callable[..., list[Any]], *given: Any) -> list[Any]:
    try:
        return exchange(*given)
    except RuntimeError as error:
        raise RankError(
            "Another rank of this job is gone.",
            hint="What all ranks have written is kept; repeat the command, with any number of "
            "ranks, and it goes on.",
        ) from error


def _broadcast(box: list[Any]) -> list[Any]:
    import torch.distributed

    torch.distributed.broadcast_object_list(box, src=0)
    return box


def _gather(value: Any, count: int) -> list[Any]:
    import torch.distributed

    values: list[Any] = [None] * count
    torch.distributed.all_gather_object(values, value)
    return values
