"""Two threads for what waits for the disk or works on bytes, and leaves Python alone meanwhile."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

THREADS = 2
"""One reads or writes while the other checks or converts; more would be the network's."""


def in_threads(job: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """Return the job's results in the order of the items, of which two are worked on at a time.

    Every item has been worked on, or was given up, when this returns or raises.

    Examples:
        >>> in_threads(abs, [-1, 2, -3])
        [1, 2, 3]
    """
    waiting = list(items)
    if len(waiting) < 2:
        return [job(item) for item in waiting]
    jobs = [_pool(os.getpid()).submit(job, item) for item in waiting]
    try:
        return [done.result() for done in jobs]
    finally:
        for late in jobs:
            if not late.cancel():
                late.exception()  # waited for, so that nobody writes into what is given back


@lru_cache(maxsize=1)
def _pool(process: int) -> ThreadPoolExecutor:
    """Return this process's threads: those of the one that it was forked from are not here."""
    del process
    return ThreadPoolExecutor(THREADS, thread_name_prefix="cache")
