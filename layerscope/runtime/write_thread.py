"""A thread that writes what was computed, while the next batch is computed."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any

AHEAD = 4
"""Batches that may wait: enough for the disk's hiccups, and all that memory ever holds of them."""


class WriteThread:
    """Calls a function in a thread, in the order given, at most ``AHEAD`` calls behind.

    At the end of ``with`` everything that was put has been written, or the first error is raised;
    after an error elsewhere too, for what was computed is not to be lost.

    Args:
        write: Writes one batch.

    Examples:
        >>> done = []
        >>> with WriteThread(done.append) as storing:
        ...     storing.put(1)
        ...     storing.put(2)
        >>> done
        [1, 2]
    """

    def __init__(self, write: Callable[..., Any]) -> None:
        self._write = write
        self._waiting: queue.Queue[tuple[Any, ...] | None] = queue.Queue(AHEAD)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="store", daemon=True)

    def __enter__(self) -> WriteThread:
        self._thread.start()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._waiting.put(None)
        self._thread.join()
        if error is None:
            self._raise()

    def put(self, *batch: Any) -> None:
        """Have a batch written, and wait only if too many are waiting already.

        Raises:
            Exception: What writing an earlier batch raised.
        """
        self._raise()
        self._waiting.put(batch)

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        while (batch := self._waiting.get()) is not None:
            if self._error is not None:
                continue  # nobody may be left waiting for room in the queue
            try:
                self._write(*batch)
            except BaseException as error:  # noqa: BLE001  it is raised where it was put
                self._error = error
