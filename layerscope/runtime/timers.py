"""How long a loop has run, and which of its stages it waited for."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")

READING, STORING = "reading images", "storing features"
COMPUTING = "the network"
"""Of which everything is that nobody was seen waiting for."""


class StageTimer:
    """Runs while items are waited for and worked on, until it is stopped.

    Examples:
        >>> watch = StageTimer()
        >>> list(watch.waiting_for([1, 2, 3]))
        [1, 2, 3]
        >>> 0 <= watch.share <= 1
        True
    """

    def __init__(self) -> None:
        self._begin: float | None = None
        self._past = 0.0
        self._waited = {READING: 0.0, STORING: 0.0}

    def waiting_for(self, items: Iterable[T]) -> Iterator[T]:
        """Yield the items, counting the time that each takes to come."""
        self._begin = asked = time.perf_counter()
        for item in items:
            self._waited[READING] += time.perf_counter() - asked
            yield item
            asked = time.perf_counter()

    @contextmanager
    def storing(self) -> Iterator[None]:
        """Count the time until something is handed over to the disk."""
        asked = time.perf_counter()
        yield
        self._waited[STORING] += time.perf_counter() - asked

    def stop(self) -> None:
        """Let no more time pass, until items are waited for again."""
        self._past, self._begin = self.seconds, None

    def restart(self) -> None:
        """Forget what was measured, and run on."""
        self.__init__()  # type: ignore[misc]
        self._begin = time.perf_counter()

    @property
    def seconds(self) -> float:
        """In which it has run."""
        running = 0.0 if self._begin is None else time.perf_counter() - self._begin
        return self._past + running

    @property
    def share(self) -> float:
        """Of the time that was spent waiting for items."""
        return self.shares()[READING]

    def shares(self) -> dict[str, float]:
        """Return the share of the time that each stage took from the others, together 1."""
        whole = self.seconds
        if not whole:
            return {COMPUTING: 1.0, READING: 0.0, STORING: 0.0}
        waited = {stage: min(time / whole, 1.0) for stage, time in self._waited.items()}
        return {COMPUTING: max(0.0, 1 - sum(waited.values())), **waited}

    def note(self) -> str:
        """Return which stage is the slowest, for beside a progress bar."""
        stage, share = max(self.shares().items(), key=lambda item: item[1])
        return f"slowest: {stage} {share:.0%}"
