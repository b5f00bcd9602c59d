"""The writer: preallocate, write, flush, advance the marker, flush; rename at the end."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from layerscope.cache.existing import locked, standing
from layerscope.cache.header import Header
from layerscope.cache.layout import (
    ROW_GROUP,
    ROW_ID,
    ROW_SPLIT,
    ROW_VALID,
    SCHEMA,
    TARGETS,
    TASK_SPLITS,
    features_of,
    part_of,
    split_of,
    target_of,
)
from layerscope.cache.records import to_json
from layerscope.errors import CacheError, DiskError
from layerscope.nouns import Existing

_OVERHEAD = 2**20
"""Bytes granted to everything in the file that is not a feature."""


class CacheWriter:
    """Writes one cache batch by batch; a context manager that keeps finished rows whatever happens.

    Args:
        path: Where the finished cache belongs; until then the file is called ``….h5.part``.
        header: What is written; a part of the same fingerprint is continued.
        existing: What to do with a file that is there.

    Raises:
        CacheError: Something else is there, it is complete, or another process is writing it.
        DiskError: The disk has no room for it.
    """

    def __init__(self, path: Path, header: Header, existing: Existing = "missing") -> None:
        found = standing(path, header, existing)
        if found.status == "there":
            raise CacheError(f"{str(path)!r} is complete.", hint="There is nothing left to write.")
        self.path = path
        self.part = part_of(path)
        self.header = header
        self.rows_done = found.rows_done
        """Rows that are safely in the file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        if found.stale:
            self.part.unlink()
        self._require_room()
        self._file = self._resumed() if found.status == "part" else self._created()
        if found.outdated:
            with self._storing():
                _annotate(self._file, header)
                self._file.flush()

    def __enter__(self) -> CacheWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            _close_quietly(self._file)
            return
        with self._storing():
            self._file.close()

    def write(
        self, features: Mapping[str, npt.NDArray[np.float32]], valid: npt.NDArray[np.bool_]
    ) -> None:
        """Append one batch of rows to every cut, so that a kill at any moment loses no more.

        Args:
            features: By cut and pooling, ``blocks.3@cls``: (b, width).
            valid: (b,) False for an image that could not be read.

        Raises:
            DiskError: The rows could not be stored; those before them are safe.
        """
        rows = slice(self.rows_done, self.rows_done + len(valid))
        with self._storing():
            for cut in self.header.cuts:
                self._file[features_of(cut.key)][rows] = features[cut.key]
            self._file[ROW_VALID][rows] = valid
            self._file.flush()
            self._file.attrs.modify("rows_done", np.int64(rows.stop))
            self._file.flush()
        self.rows_done = rows.stop

    def finish(self, settings: Mapping[str, Any] | None = None) -> Path:
        """Mark the cache complete and give it its name.

        Args:
            settings: What became known on the way, in place of the header's.

        Raises:
            CacheError: Rows are missing.
            DiskError: The file could not be completed.
        """
        if self.rows_done != self.header.rows:
            raise CacheError(
                f"{str(self.part)!r} has {self.rows_done} of {self.header.rows} rows.",
                hint="Repeat the layerscope extract command; it goes on where it stopped.",
            )
        with self._storing():
            if settings is not None:
                self._file.attrs["settings"] = to_json(settings)
            self._file.attrs.modify("complete", np.bool_(True))
            self._file.close()
            _sync(self.part)
            self.part.replace(self.path)
            _sync(self.path.parent)
        return self.path

    def discard(self) -> None:
        """Delete what was written, because it turned out to be wrong."""
        self._file.close()
        self.part.unlink()

    def _require_room(self) -> None:
        needed = (self.header.rows - self.rows_done) * self.header.row_bytes + _OVERHEAD
        free = shutil.disk_usage(self.path.parent).free
        if free < needed:
            raise DiskError(
                f"{str(self.path)!r} needs {needed:,} bytes and {free:,} are free.",
                hint="Free some space, choose another disk with -o, or fewer layers with --cuts.",
            )

    def _resumed(self) -> h5py.File:
        try:
            return h5py.File(self.part, "r+")
        except BlockingIOError as error:
            raise locked(self.part) from error

    def _created(self) -> h5py.File:
        try:
            file = h5py.File(self.part, "x")
        except FileExistsError as error:
            raise locked(self.part) from error
        except OSError as error:
            raise self._failed(error) from error
        try:
            _write_header(file, self.header)
            file.flush()
        except OSError as error:
            _close_quietly(file)
            raise self._failed(error) from error
        return file

    @contextmanager
    def _storing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._failed(error) from error

    def _failed(self, error: OSError) -> DiskError:
        return DiskError(
            f"{str(self.part)!r} cannot be written: {_reason(error)}.",
            hint=f"Its first {self.rows_done} rows are safe; make room or mend the folder, and "
            "repeat the command.",
        )


def annotate(path: Path, header: Header) -> None:
    """Give a complete cache other splits, groups and targets; its features stay as they are.

    A list of training images that was found later, or a column more, costs no second extraction.
    Killed on the way, the file is no complete cache, and the same call completes it.

    Args:
        path: The cache, whose features were made from the same ingredients.
        header: What is known about the images now.

    Raises:
        CacheError: Another process has it open.
        DiskError: The disk is full; the same call completes the cache.
    """
    try:
        file = h5py.File(path, "r+")
    except BlockingIOError as error:
        raise locked(path) from error
    try:
        for done in (False, True):
            if done:
                _annotate(file, header)
            file.attrs.modify("complete", np.bool_(done))
            file.flush()
            _sync(path)
        file.close()
    except OSError as error:
        _close_quietly(file)
        raise DiskError(
            f"{str(path)!r} cannot be written: {_reason(error)}.",
            hint="Its features are unharmed; make room and repeat the command.",
        ) from error


def _annotate(file: h5py.File, header: Header) -> None:
    for name in (ROW_SPLIT, ROW_GROUP, TARGETS, TASK_SPLITS):
        if name in file:
            del file[name]
    _write_annotations(file, header)
    file.attrs.update(
        {
            "fingerprint": header.fingerprint,
            "ingredients": to_json(header.ingredients),
            "tasks": to_json(header.source.tasks),
        }
    )


def _write_header(file: h5py.File, header: Header) -> None:
    for cut in header.cuts:
        _preallocate(file, features_of(cut.key), (header.rows, cut.width))
    file.create_dataset(ROW_VALID, data=np.zeros(header.rows, dtype=np.bool_))
    _write_texts(file, ROW_ID, header.source.ids)
    _write_annotations(file, header)
    file.attrs.update(_attributes(header))


def _write_annotations(file: h5py.File, header: Header) -> None:
    source = header.source
    _write_texts(file, ROW_SPLIT, source.splits)
    _write_texts(file, ROW_GROUP, source.groups)
    for task in source.tasks:
        file.create_dataset(target_of(task.name), data=source.targets[task.name])
    for name, split in source.task_splits.items():
        file.create_dataset(split_of(name), data=split)


def _write_texts(file: h5py.File, name: str, values: Iterable[str]) -> None:
    file.create_dataset(name, data=[str(v) for v in values], dtype=h5py.string_dtype())


def _attributes(header: Header) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "fingerprint": header.fingerprint,
        "ingredients": to_json(header.ingredients),
        "rows_done": np.int64(0),
        "complete": np.bool_(False),
        "source": header.source.name,
        "checkpoint": to_json(header.checkpoint),
        "cuts": to_json(header.cuts),
        "tasks": to_json(header.source.tasks),
        "settings": to_json(header.settings),
    }


def _preallocate(file: h5py.File, name: str, shape: tuple[int, int]) -> None:
    """Reserve a contiguous dataset's place now: after a kill no row may depend on lost metadata."""
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    plan.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    plan.set_obj_track_times(False)
    links = h5py.h5p.create(h5py.h5p.LINK_CREATE)
    links.set_create_intermediate_group(True)
    space = h5py.h5s.create_simple(shape)
    h5py.h5d.create(file.id, name.encode(), h5py.h5t.IEEE_F32LE, space, plan, links)


def _reason(error: OSError) -> str:
    # HDF5's own text runs over several lines, with the time and the file's name once more.
    return os.strerror(error.errno) if error.errno else str(error)


def _close_quietly(file: h5py.File) -> None:
    # What could not be flushed fails again on closing; the first error is the one to report.
    with suppress(OSError):
        file.close()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
