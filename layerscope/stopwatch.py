"""How long a loop has run, and for how much of it it waited for its images."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

WORTH_SAYING = 0.1
"""Share of the time below which nobody needs to be told."""


class Stopwatch:
    """Runs while items are waited for and worked on, until it is stopped.

    Examples:
        >>> watch = Stopwatch()
        >>> list(watch.waiting_for([1, 2, 3]))
        [1, 2, 3]
        >>> 0 <= watch.share <= 1
        True
    """

    def __init__(self) -> None:
        self._begin: float | None = None
        self._past = 0.0
        self._waited = 0.0

    def waiting_for(self, items: Iterable[T]) -> Iterator[T]:
        """Yield the items, counting the time that each takes to come."""
        self._begin = asked = time.perf_counter()
        for item in items:
            self._waited += time.perf_counter() - asked
            yield item
            asked = time.perf_counter()

    def stop(self) -> None:
        """Let no more time pass, until items are waited for again."""
        self._past, self._begin = self.seconds, None

    def restart(self) -> None:
        """Forget what was measured, and run on."""
        self._begin, self._past, self._waited = time.perf_counter(), 0.0, 0.0

    @property
    def seconds(self) -> float:
        """In which it has run."""
        running = 0.0 if self._begin is None else time.perf_counter() - self._begin
        return self._past + running

    @property
    def share(self) -> float:
        """Of the time that was spent waiting."""
        return self._waited / self.seconds if self.seconds else 0.0

    def note(self) -> str:
        """Return what to say about it beside a progress bar, if anything."""
        return f"waiting on data {self.share:.0%}" if self.share >= WORTH_SAYING else ""
