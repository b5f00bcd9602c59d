"""Some rows of one file, prepared by FFCV in a thread of its own that cannot be lost.

In FFCV an exception in that thread leaves whoever waits for a batch waiting for ever, a batch is a
view of a buffer that is written over, and an iterator that nobody finishes keeps its thread. Here
the thread hands over its exceptions, what it hands over is the receiver's own, and it ends when it
is left.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cache, partial
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from layerscope.data.betons.beton import Beton
from layerscope.data.betons.layout import CUSTOM
from layerscope.data.betons.library import library, undisturbed
from layerscope.data.betons.preparing import Resize, prepare
from layerscope.errors import SourceError

Images = npt.NDArray[np.uint8]
Rows = npt.NDArray[np.int64]
Finish = Callable[[Images], npt.NDArray[Any]]
"""Makes of the prepared images, in FFCV's buffer, an array that belongs to whoever gets it. It is
called in FFCV's threads, and in one at a time."""

_AHEAD = 2
"""Batches that are ready before they are asked for."""
_PATIENCE = 0.5
"""Seconds between two looks at whether the thread is still there."""
_MOMENT = 0.02
_one_at_a_time = threading.Lock()
"""Each batch is prepared on all workers; two at once would be no faster, and not every threading
layer of numba survives it."""


class PreparedRows(NamedTuple):
    """Rows of one file, prepared."""

    images: npt.NDArray[Any]
    """(n, h, w, 3)"""
    refused: npt.NDArray[np.bool_]
    """(n,) which of them the default loader has to look at."""
    witness: npt.NDArray[np.int64] | None
    """(n,) what the file says of the rows that were read; None where it says nothing."""


Collect = Callable[[Sequence[Any]], PreparedRows]
"""Makes the rows of a batch of what FFCV's pipelines give."""


class FfcvReader:
    """Reads a file with FFCV.

    Args:
        beton: The file.
        witness: A field of whole numbers that is read along with the images, if there is one.
        batch_size: The most rows that are ever asked for at once.
        workers: Threads.
        size: (height, width) of the prepared images.
        resize: What is done to the whole image.
        kind: The filter, ``BILINEAR`` or ``BICUBIC``.
    """

    def __init__(
        self,
        beton: Beton,
        witness: str | None,
        *,
        batch_size: int,
        workers: int,
        size: tuple[int, int],
        resize: Resize,
        kind: int,
    ) -> None:
        self._beton = beton
        self._witness = witness
        used = {beton.image: _ImageDecoder(size, resize, kind)}
        if witness is not None:
            used[witness] = library().integers()
        # Results come in the order of the file's fields.
        self._order = [field.name for field in beton.fields if field.name in used]
        with undisturbed(), _interpreted():
            self._loader = library().loader(
                str(beton.path),
                batch_size,
                num_workers=workers,
                os_cache=True,
                order=library().sequential,
                seed=0,
                drop_last=False,
                batches_ahead=_AHEAD,
                pipelines={
                    field.name: library().pipeline(field.name, used[field.name])
                    if field.name in used
                    else None
                    for field in beton.fields
                },
                custom_fields=_custom_fields(beton),
            )
        if self._loader.reader.metadata.tobytes() != beton.metadata.tobytes():
            raise SourceError(
                f"{str(beton.path)!r} is not what it was when it was opened.",
                hint="Repeat the command once whoever writes the file is done.",
            )
        # Of a million samples, half a gigabyte that only FFCV's page cache looks at.
        manager = self._loader.memory_manager
        for table in (manager.sample_to_pages, manager.page_to_samples, manager.ptr_to_size):
            table.clear()

    def start(self, parts: Sequence[Rows], finish: Finish) -> PreparingThread:
        """Return a running thread, which gives a :class:`PreparedRows` for each of the parts."""

        def collect(results: Sequence[Any]) -> PreparedRows:
            named = dict(zip(self._order, results, strict=True))
            images, refused = named[self._beton.image]
            witnessed = None if self._witness is None else named[self._witness][:, 0].copy()
            return PreparedRows(finish(images), refused[:, 0] != 0, witnessed)

        with undisturbed():
            return _thread_class()(self._loader, parts, collect)


class _ImageDecoder:
    """A decoder of images in FFCV's sense; it asks for nothing of theirs but these methods."""

    def __init__(self, size: tuple[int, int], resize: Resize, kind: int) -> None:
        self._size, self._resize, self._kind = size, resize, kind

    def accept_field(self, field: Any) -> None: ...

    def accept_globals(self, metadata: Any, memory_read: Any) -> None: ...

    def declare_state_and_memory(self, previous: Any) -> tuple[Any, Any]:
        shape, kind = (*self._size, 3), np.dtype("u1")
        state = replace(previous, jit_mode=True, shape=shape, dtype=kind)
        return state, tuple(library().allocation(it, kind) for it in (shape, (1,)))

    def declare_shared_memory(self, previous: Any) -> None: ...

    def generate_code_for_shared_state(self) -> None: ...

    def generate_code(self) -> Callable[..., Any]:
        return self._prepare

    def _prepare(self, rows: Any, memory: Any, metadata: Any, storage: Any) -> Any:
        images, refused = memory
        file, *table = storage
        decode = library().decode
        bytes_ = np.asarray(file)
        prepare(rows, metadata, bytes_, *table, decode, self._resize, self._kind, images, refused)
        return images, refused


@contextmanager
def _interpreted() -> Iterator[None]:
    """Keep FFCV from compiling: our function is compiled already, and theirs copies few numbers."""
    compiler = library().compiler
    before = compiler.is_enabled
    compiler.set_enabled(False)
    try:
        yield
    finally:
        compiler.set_enabled(before)


def _custom_fields(beton: Beton) -> Mapping[str, Any]:
    """Return what FFCV has to be told of fields that are not its own: how their metadata looks."""
    return {
        field.name: SimpleNamespace(from_binary=partial(_CustomField, beton.parts[field.name]))
        for field in beton.fields
        if field.kind == CUSTOM
    }


class _CustomField:
    """A field of the user's own, in FFCV's sense."""

    def __init__(self, part: np.dtype[Any], _: Any) -> None:
        self.metadata_type = part

    def get_decoder_class(self) -> None:
        """Return nothing: whoever reads the field brings a decoder."""


class _AbandonedError(Exception):
    """Nobody wants the rest of the batches."""


class PreparingThread(threading.Thread):
    """FFCV's ``EpochIterator``, which is put behind it: it says why it stopped, and ends when left.

    Args:
        loader: FFCV's loader.
        parts: The rows of each batch.
        collect: Makes a part of the results of FFCV's pipelines.
    """

    output_queue: queue.Queue[Any]
    terminate_event: threading.Event
    loader: Any

    def __init__(self, loader: Any, parts: Sequence[Rows], collect: Collect) -> None:
        self._parts = parts
        self._collect = collect
        self._taken = 0
        self._threads: int | None = torch.get_num_threads()
        behind: Any = super()
        behind.__init__(loader, np.concatenate(parts))

    def start(self) -> None:
        # FFCV cuts the order into batches of one size; these are cut already.
        self.iter_ixes = iter(self._parts)
        self.name = "ffcv"
        super().start()

    def run(self) -> None:
        try:
            super().run()
        except _AbandonedError:
            return
        except BaseException as error:  # noqa: BLE001  it is raised where somebody hears it
            self._report_error(error)

    def run_pipeline(self, *batch: Any) -> PreparedRows:
        behind: Any = super()
        if self._threads is not None:  # FFCV has just set it, to what it needs itself
            torch.set_num_threads(self._threads)
            self._threads = None
        if self.terminate_event.is_set():
            raise _AbandonedError
        with _one_at_a_time:
            return self._collect(behind.run_pipeline(*batch))

    def _report_error(self, error: BaseException) -> None:
        while not self.terminate_event.is_set():
            with suppress(queue.Full):
                return self.output_queue.put(error, timeout=_PATIENCE)

    def take(self) -> PreparedRows:
        """Return the next part.

        Raises:
            SourceError: The thread stopped.
        """
        while True:
            try:
                result = self.output_queue.get(timeout=_PATIENCE)
            except queue.Empty:
                if self.is_alive() or not self.output_queue.empty():
                    continue
                raise self._stop_error("it is gone") from None
            if isinstance(result, tuple):
                self._taken += 1
                part: PreparedRows = result[1]
                return part
            reason = (str(result).splitlines() or [""])[0] or type(result).__name__
            raise self._stop_error(reason) from result

    def _stop_error(self, reason: str) -> SourceError:
        rows = self._parts[min(self._taken, len(self._parts) - 1)]
        return SourceError(
            f"FFCV stopped at the rows {rows.min()} to {rows.max()} of "
            f"{self.loader.fname!r}: {reason}.",
            hint="Read the file with --loader threads, which names the image if it is one.",
        )

    def leave(self) -> None:
        """End the thread, whatever it was doing, and return when it is gone."""
        self.terminate_event.set()
        while self.is_alive():
            with suppress(queue.Empty):
                self.output_queue.get_nowait()
            self.join(_MOMENT)


@cache
def _thread_class() -> Callable[[Any, Sequence[Rows], Collect], PreparingThread]:
    return type("PreparingThreadOfFfcv", (PreparingThread, library().iterator), {})
