"""The reader: a complete cache, cut by cut and split by split."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from layerscope.cache.existing import locked
from layerscope.cache.layout import (
    ATTRIBUTES,
    PART,
    READABLE,
    ROW_GROUP,
    ROW_ID,
    ROW_SPLIT,
    ROW_VALID,
    SCHEMA,
    SUFFIX,
    TASK_SPLITS,
    features_of,
    split_of,
    target_of,
)
from layerscope.cache.records import checkpoint_from, cut_from, task_from
from layerscope.errors import CacheError, UnknownNameError
from layerscope.nouns import SPLITS, Checkpoint, CutPoint, Split, Task

_BLOCK = 16384
"""Rows read at a time when a split's rows are scattered: HDF5 is slow at picking single rows."""

_REPEAT = "Repeat the layerscope extract command that made it; it goes on where it stopped."
_MAKE = "Make a cache with layerscope extract."
_AGAIN = "Extract the features again: layerscope extract … --existing replace."


class Cache:
    """A complete cache, open for reading; made by :func:`open_cache`, closed by ``with``.

    Args:
        path: The file.
        file: The same, open.
    """

    def __init__(self, path: Path, file: h5py.File) -> None:
        self.path = path
        self._file = file

    def __enter__(self) -> Cache:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; views of it can no longer be read."""
        self._file.close()

    @cached_property
    def card(self) -> Checkpoint:
        """The checkpoint's card; of its weights' path only the file's name."""
        return checkpoint_from(self._json("checkpoint"))

    @property
    def checkpoint(self) -> str:
        return self.card.name

    @cached_property
    def source(self) -> str:
        return str(self._file.attrs["source"])

    @cached_property
    def cuts(self) -> tuple[CutPoint, ...]:
        return tuple(cut_from(record) for record in self._json("cuts"))

    @cached_property
    def tasks(self) -> tuple[Task, ...]:
        return tuple(task_from(record) for record in self._json("tasks"))

    @cached_property
    def fingerprint(self) -> str:
        return str(self._file.attrs["fingerprint"])

    @property
    def complete(self) -> bool:
        return bool(self._file.attrs["complete"])

    @cached_property
    def settings(self) -> dict[str, Any]:
        """How the features were computed: precision, device, versions and the like."""
        recorded: dict[str, Any] = self._json("settings")
        return recorded

    @property
    def limit(self) -> int | None:
        """Rows that a smoke run was limited to, or None."""
        limit: int | None = self._json("ingredients")["limit"]
        return limit

    @property
    def rows(self) -> int:
        """Number of images, those that could not be read among them."""
        return len(self._file[ROW_VALID])

    @cached_property
    def own_splits(self) -> frozenset[str]:
        """Names of the tasks that divide the rows otherwise than the source."""
        return frozenset(self._file.get(TASK_SPLITS, ()))

    def view(self, cut: str, pooling: str | None = None, task: str | None = None) -> View:
        """Return one cut in one pooling with its splits and targets.

        Args:
            cut: Its name.
            pooling: May be left out where the cache has only one of the cut.
            task: Whose splits to use, where it has its own; by default the source's.

        Raises:
            UnknownNameError: The cache has no such cut, or not in this pooling.
            CacheError: It has several, and none was named.
        """
        known = {point.pooling: point for point in self.cuts if point.name == cut}
        if not known:
            raise UnknownNameError("layer", cut, (point.name for point in self.cuts))
        if pooling is None and len(known) == 1:
            return View(self, next(iter(known.values())), task)
        if pooling is None:
            raise CacheError(
                f"{str(self.path)!r} has {cut} in several poolings: {', '.join(known)}.",
                hint=f'Name one: view("{cut}", "{next(iter(known))}").',
            )
        for name, point in known.items():
            if name == pooling:
                return View(self, point, task)
        raise UnknownNameError(f"pooling of {cut}", pooling, known)

    def rows_of(self, split: Split, task: str | None = None) -> npt.NDArray[np.int64]:
        """Return the (n,) readable rows of one split, ascending.

        Args:
            split: Which.
            task: Whose splits, where it has its own; by default the source's.
        """
        if task is None or task not in self.own_splits:
            return self._rows[split]
        codes, valid = self._file[split_of(task)][:], self._file[ROW_VALID][:]
        return np.flatnonzero((codes == SPLITS.index(split)) & valid)

    def texts(self, name: str, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.str_]:
        """Return the (n,) texts of some rows of one ``rows/`` dataset."""
        everything = np.asarray(self._file[name].asstr()[:], dtype=np.str_)
        return everything[rows]

    def numbers(self, name: str, rows: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """Return the (n, …) values of some rows of one dataset."""
        return _take(self._file[name], rows)

    @cached_property
    def _rows(self) -> dict[str, npt.NDArray[np.int64]]:
        splits = np.asarray(self._file[ROW_SPLIT].asstr()[:], dtype=np.str_)
        valid = self._file[ROW_VALID][:]
        return {split: np.flatnonzero((splits == split) & valid) for split in SPLITS}

    def _json(self, name: str) -> Any:
        return json.loads(self._file.attrs[name])


@dataclass(frozen=True, slots=True)
class View:
    """One cut of a cache: what an estimator sees. Rows of unreadable images are left out."""

    cache: Cache
    cut: CutPoint
    task: str | None = None
    """Whose splits these are, where it has its own."""

    @property
    def checkpoint(self) -> str:
        return self.cache.checkpoint

    @property
    def source(self) -> str:
        return self.cache.source

    @property
    def fingerprint(self) -> str:
        return self.cache.fingerprint

    def features(self, split: Split) -> npt.NDArray[np.float32]:
        """Return the (n, width) features of one split, in source order."""
        return self.cache.numbers(features_of(self.cut.key), self._rows(split))

    def target(self, task: str, split: Split) -> npt.NDArray[Any]:
        """Return the (n,) classes or (n, k) latents of one split.

        Raises:
            UnknownNameError: The cache has no targets for this task.
        """
        known = [entry.name for entry in self.cache.tasks]
        if task not in known:
            raise UnknownNameError("task", task, known)
        return self.cache.numbers(target_of(task), self._rows(split))

    def groups(self, split: Split) -> npt.NDArray[np.str_]:
        """Return the (n,) group of each row of one split."""
        return self.cache.texts(ROW_GROUP, self._rows(split))

    def ids(self, split: Split) -> npt.NDArray[np.str_]:
        """Return the (n,) id of each row of one split."""
        return self.cache.texts(ROW_ID, self._rows(split))

    def _rows(self, split: Split) -> npt.NDArray[np.int64]:
        return self.cache.rows_of(split, self.task)


def _take(dataset: h5py.Dataset, rows: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    taken = np.empty((len(rows), *dataset.shape[1:]), dtype=dataset.dtype)
    edges = np.arange(0, len(dataset) + _BLOCK, _BLOCK)
    for first, last in np.searchsorted(rows, np.stack((edges[:-1], edges[1:]), axis=1)):
        if first < last:
            base = rows[first]
            block = dataset[base : rows[last - 1] + 1]
            taken[first:last] = block[rows[first:last] - base]
    return taken


def open_cache(path: Path) -> Cache:
    """Open a complete cache for reading.

    Raises:
        CacheError: The file is missing, incomplete, truncated, in use or no cache at all.
    """
    if path.name.endswith(PART):
        raise CacheError(f"{str(path)!r} is incomplete.", hint=_REPEAT)
    if not path.is_file():
        raise CacheError(f"There is no cache {str(path)!r}.", hint=_MAKE)
    try:
        file = h5py.File(path, "r")
    except BlockingIOError as error:
        raise locked(path) from error
    except OSError as error:
        raise CacheError(
            f"{str(path)!r} cannot be read: {error}.",
            hint="If it was copied, copy it again; otherwise make it anew with layerscope extract.",
        ) from error
    return _checked(path, file)


def _checked(path: Path, file: h5py.File) -> Cache:
    try:
        _require_schema(path, file)
        cache = Cache(path, file)
        _require_datasets(path, cache, file)
    except CacheError:
        file.close()
        raise
    return cache


def _require_schema(path: Path, file: h5py.File) -> None:
    schema = file.attrs.get("schema")
    if schema == "layerscope-cache/1":
        raise CacheError(
            f"{str(path)!r} has the older schema {schema!r}, which this version does not read.",
            hint=_AGAIN,
        )
    if schema not in READABLE or any(name not in file.attrs for name in ATTRIBUTES):
        raise CacheError(
            f"{str(path)!r} is an HDF5 file with the schema {schema!r}, not {SCHEMA!r}.",
            hint=_MAKE,
        )
    if not file.attrs["complete"]:
        raise CacheError(
            f"{str(path)!r} is incomplete: {file.attrs['rows_done']} rows are written.",
            hint=_REPEAT,
        )


def _require_datasets(path: Path, cache: Cache, file: h5py.File) -> None:
    rows = len(file[ROW_VALID]) if ROW_VALID in file else -1
    expected: dict[str, tuple[int, ...]] = {
        features_of(cut.key): (rows, cut.width) for cut in cache.cuts
    }
    expected |= {name: (rows,) for name in (ROW_ID, ROW_SPLIT, ROW_GROUP, ROW_VALID)}
    for name, shape in expected.items():
        if name not in file or file[name].shape != shape:
            raise CacheError(f"{str(path)!r} has no {name} of shape {shape}.", hint=_MAKE)
    for task in cache.tasks:
        if target_of(task.name) not in file or len(file[target_of(task.name)]) != rows:
            raise CacheError(f"{str(path)!r} has no targets of {task.name}.", hint=_MAKE)


def find_caches(path: Path) -> list[Path]:
    """Return the caches that a user's path names: a file, or every ``.h5`` in a folder, sorted.

    Raises:
        CacheError: There is none.
    """
    if path.is_file():
        return [path]
    found = sorted(path.glob(f"*{SUFFIX}")) if path.is_dir() else []
    if found:
        return found
    if not path.exists():
        raise CacheError(f"There is no file or folder {str(path)!r}.", hint=_MAKE)
    parts = sorted(part.name for part in path.glob(f"*{SUFFIX}{PART}"))
    if parts:
        raise CacheError(
            f"The folder {str(path)!r} holds only unfinished caches: {', '.join(parts)}.",
            hint=_REPEAT,
        )
    raise CacheError(f"The folder {str(path)!r} holds no cache.", hint=_MAKE)
