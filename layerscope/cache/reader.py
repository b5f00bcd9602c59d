"""The reader: a complete cache, cut by cut and split by split."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import numpy.typing as npt

from layerscope.cache.cache_file import UNREADABLE, unreadable, without_shard
from layerscope.cache.features import Features, Segment
from layerscope.cache.fingerprint import VIEWS, VIEWS_OF
from layerscope.cache.hdf5_offsets import Rows, extent_of
from layerscope.cache.label import open_file, seal_in
from layerscope.cache.layout import (
    ATTRIBUTES,
    MISSING,
    OLDER,
    PART,
    ROW_GROUP,
    ROW_ID,
    ROW_INDEX,
    ROW_SPLIT,
    ROW_STATE,
    ROW_VALID,
    SCHEMA,
    SHARD_LIST,
    SUFFIX,
    TASK_SPLITS,
    checksums_of,
    features_of,
    split_of,
    target_of,
)
from layerscope.cache.open_record import OpenRecord
from layerscope.cache.part import storage_in
from layerscope.cache.status import require_sealed
from layerscope.cache.storage import StorageChoice
from layerscope.errors import CacheError, UnknownNameError
from layerscope.types import SPLITS, BaselineKind, CutPoint, Split

if TYPE_CHECKING:
    import torch

    from layerscope.cache.dataset import FeatureDataset

_REPEAT = "Repeat the layerscope extract command that made it; it goes on where it stopped."
_MAKE = "Make a cache with layerscope extract."
_AGAIN = "Extract the features again: layerscope extract … --existing replace."


class Cache(OpenRecord):
    """A complete cache, open for reading; made by :func:`open_cache`, closed by ``with``.

    Args:
        path: The file.
        file: The same, open.
        verify: Whether features are checked against their checksums as they are read.
    """

    def __init__(self, path: Path, file: h5py.File, verify: bool = True) -> None:
        super().__init__(path, file)
        self.verify = verify
        self._handles: dict[Path, int] = {}
        self._features: dict[str, Features] = {}

    def close(self) -> None:
        """Close the file; views of it can no longer be read."""
        while self._handles:
            os.close(self._handles.popitem()[1])
        super().close()

    @property
    def complete(self) -> bool:
        return True  # no other is ever opened

    @cached_property
    def seal(self) -> str:
        """The sha256 over everything in it: two caches with the same seal hold the same."""
        return seal_in(self.path)

    @cached_property
    def stored(self) -> Mapping[str, StorageChoice]:
        """By cut and pooling, in which type the features are stored, and why."""
        return storage_in(self._file)

    @cached_property
    def views(self) -> int:
        """Augmented views of each image, in rows one after the other; 1 where there are none."""
        return int(self.ingredients.get(VIEWS, {"count": 1})["count"])

    @cached_property
    def views_of(self) -> str:
        """Name of the source of whose images the rows are augmented views; empty for the images."""
        known = str(self._file.attrs.get(VIEWS_OF, ""))
        if known or VIEWS not in self.ingredients:
            return known
        # Caches of before this was written down have it in their source's name alone.
        return self.source.removesuffix(f".views{self.views}")

    @property
    def trained(self) -> bool:
        """Whether the checkpoint's weights come from a training, and not from a seed."""
        return self.card.trained

    @property
    def baseline(self) -> BaselineKind:
        """What the checkpoint is a baseline by; empty for a checkpoint of its own."""
        return self.card.baseline

    @property
    def baseline_of(self) -> str:
        """Name of the checkpoint that it is a baseline of; empty for a checkpoint of its own."""
        return self.card.baseline_of

    @property
    def limit(self) -> int | None:
        """Images that a smoke run was limited to, or None."""
        limit: int | None = self.ingredients["limit"]
        return limit

    @property
    def rows(self) -> int:
        """Number of images or of their views, those that could not be read among them."""
        return len(self._file[ROW_VALID])

    @cached_property
    def valid(self) -> npt.NDArray[np.bool_]:
        """(rows,) False for an image that could not be read."""
        return np.asarray(self._file[ROW_VALID])

    @cached_property
    def own_splits(self) -> frozenset[str]:
        """Names of the tasks that divide the rows otherwise than the source."""
        return frozenset(self._file.get(TASK_SPLITS, ()))

    @cached_property
    def shards(self) -> tuple[Path, ...]:
        """The files that hold the features, where they are not in this one."""
        return tuple(self.path.parent / record["file"] for record in self._records)

    def __getitem__(self, cut: str) -> Features:
        """Return the features of one cut, which are read as they are asked for.

        Args:
            cut: ``layer4.1``, or with its pooling: ``blocks.3@cls``.

        Raises:
            UnknownNameError: The cache has no such cut, or not in this pooling.
            CacheError: It has several poolings of it, and none was named.
        """
        name, _, pooling = cut.partition("@")
        return self.features_of(self.view(name, pooling or None).cut)

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
        known: dict[str, CutPoint] = {it.pooling: it for it in self.cuts if it.name == cut}
        if not known:
            raise UnknownNameError("layer", cut, (point.name for point in self.cuts))
        first = next(iter(known))
        if pooling is None and len(known) > 1:
            raise CacheError(
                f"{str(self.path)!r} has {cut} in several poolings: {', '.join(known)}.",
                hint=f'Name one: view("{cut}", "{first}").',
            )
        if pooling is not None and pooling not in known:
            raise UnknownNameError(f"pooling of {cut}", pooling, known)
        return View(self, known[pooling or first], task)

    def features_of(self, cut: CutPoint) -> Features:
        """Return the features of one cut in one pooling, lazily."""
        if cut.key not in self._features:
            segments = [it for each in self._records for it in self._segments(cut.key, each)] or [
                self._segment(self.path, self._file, cut.key, 0, 0, self.rows)
            ]
            self._features[cut.key] = Features(
                name=f"{cut.key} of {str(self.path)!r}",
                shape=(self.rows, cut.width),
                segments=tuple(sorted(segments, key=lambda segment: segment.first)),
                checksums=self._file[checksums_of(cut.key)][()] if self.verify else None,
            )
        return self._features[cut.key]

    def dataset(self, cut: str, task: str | None = None, split: Split = "train") -> FeatureDataset:
        """Return one cut's rows of a split, with a task's targets, for a ``DataLoader``.

        Args:
            cut: ``layer4.1``, or with its pooling: ``blocks.3@cls``.
            task: Whose targets and splits; None for features alone.
            split: Which rows.

        Raises:
            UnknownNameError: The cache has no such cut or task.
        """
        from layerscope.cache.dataset import FeatureDataset

        name, _, pooling = cut.partition("@")
        view = self.view(name, pooling or None, task)
        return FeatureDataset(
            self.features_of(view.cut),
            self.rows_of(split, task),
            None if task is None else view.target(task, split),
            partial(_reopen_dataset, self.path, self.verify, cut, task, split),
        )

    def rows_of(self, split: Split, task: str | None = None) -> Rows:
        """Return the (n,) readable rows of one split, ascending.

        Args:
            split: Which.
            task: Whose splits, where it has its own; by default the source's.
        """
        if task is None or task not in self.own_splits:
            return self._rows[split]
        codes = self._file[split_of(task)][:]
        return np.flatnonzero((codes == SPLITS.index(split)) & self.valid)

    def texts(self, name: str, rows: Rows) -> npt.NDArray[np.str_]:
        """Return the (n,) texts of some rows of one ``rows/`` dataset."""
        encoded = self._file[name][()]
        return np.char.decode(encoded[rows], "utf-8").astype(np.str_, copy=False)

    def numbers(self, name: str, rows: Rows) -> npt.NDArray[Any]:
        """Return the (n, …) values of some rows of one dataset that is no feature."""
        return np.asarray(self._file[name])[rows]

    @cached_property
    def _rows(self) -> dict[str, Rows]:
        splits = self._file[ROW_SPLIT][()]
        return {s: np.flatnonzero((splits == s.encode()) & self.valid) for s in SPLITS}

    @cached_property
    def _records(self) -> list[dict[str, Any]]:
        return list(self._json(SHARD_LIST)) if SHARD_LIST in self._file.attrs else []

    def _segments(self, key: str, record: Mapping[str, Any]) -> list[Segment]:
        path = self.path.parent / record["file"]
        try:
            with open_file(path) as shard:
                return [self._segment(path, shard, key, *run) for run in record["runs"]]
        except FileNotFoundError:
            raise without_shard(self.path, record["file"]) from None
        except UNREADABLE as error:
            raise unreadable(path, error) from error

    def _segment(
        self, path: Path, file: h5py.File, key: str, first: int, place: int, count: int
    ) -> Segment:
        if path not in self._handles:
            self._handles[path] = os.open(path, os.O_RDONLY)
        rows = extent_of(file, features_of(key))
        return Segment(self._handles[path], rows, storage_in(file)[key].type, first, place, count)


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
        """Return the (n, width) features of one split, in source order.

        Raises:
            CacheError: Some are not what was written.
        """
        return self.cache.features_of(self.cut).take(self._rows(split))

    def blocks(self, split: Split, size: int) -> Iterator[npt.NDArray[np.float32]]:
        """Yield the features of one split, at most ``size`` rows at a time, in source order.

        Raises:
            CacheError: Some are not what was written.
        """
        rows, features = self._rows(split), self.cache.features_of(self.cut)
        for start in range(0, len(rows), size):
            yield features.take(rows[start : start + size])

    def tensor(self, split: Split) -> torch.Tensor:
        """Return the (n, width) float32 features of one split, in source order."""
        import torch

        return torch.from_numpy(self.features(split))

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

    def views(self, split: Split) -> npt.NDArray[np.int64]:
        """Return the (n,) number of the augmented view that each row of one split is, from 0."""
        return self._rows(split) % self.cache.views

    def instances(self, split: Split) -> npt.NDArray[np.int64]:
        """Return the (n,) number of the image of which each row of one split is a view."""
        return self._rows(split) // self.cache.views

    def ids(self, split: Split) -> npt.NDArray[np.str_]:
        """Return the (n,) id of each row of one split."""
        return self.cache.texts(ROW_ID, self._rows(split))

    def _rows(self, split: Split) -> Rows:
        return self.cache.rows_of(split, self.task)


def open_cache(path: Path | str, *, verify: bool = True) -> Cache:
    """Open a complete cache for reading.

    Everything but the features is checked now, and each feature when it is read.

    Args:
        path: The file.
        verify: False to read what is there, damaged or not, and save the time of checking it.

    Raises:
        CacheError: The file is missing, incomplete, truncated, damaged or no cache at all.
    """
    path = Path(path)
    if path.name.endswith(PART):
        raise CacheError(f"{str(path)!r} is incomplete.", hint=_REPEAT)
    if not path.is_file():
        raise CacheError(f"There is no cache {str(path)!r}.", hint=_MAKE)
    try:
        file = open_file(path)
    except OSError as error:
        raise unreadable(path, error) from error
    try:
        _require_schema(path, file)
        if verify:
            require_sealed(path)
        cache = Cache(path, file, verify)
        _require_datasets(cache, file)
        return cache
    except UNREADABLE as error:
        file.close()
        raise unreadable(path, error) from error
    except BaseException:
        file.close()
        raise


def _reopen_dataset(
    path: Path, verify: bool, cut: str, task: str | None, split: Split
) -> FeatureDataset:
    return open_cache(path, verify=verify).dataset(cut, task, split)


def _require_schema(path: Path, file: h5py.File) -> None:
    schema = file.attrs.get("schema")
    if schema in OLDER:
        raise CacheError(
            f"{str(path)!r} has the older schema {schema!r}, which this version does not read.",
            hint=_AGAIN,
        )
    if schema != SCHEMA or any(name not in file.attrs for name in ATTRIBUTES):
        raise CacheError(
            f"{str(path)!r} is an HDF5 file with the schema {schema!r}, not {SCHEMA!r}.",
            hint=_MAKE,
        )
    if ROW_INDEX in file:
        raise CacheError(
            f"{str(path)!r} is a shard, which holds a part of the rows.",
            hint="Open the cache that it belongs to, beside the folder of shards.",
        )
    if not seal_in(path):
        written = int((file[ROW_STATE][()] != MISSING).sum())
        raise CacheError(f"{str(path)!r} is incomplete: {written} rows are written.", hint=_REPEAT)


def _require_datasets(cache: Cache, file: h5py.File) -> None:
    path, rows = cache.path, cache.rows
    expected: dict[str, tuple[int, ...]] = {
        features_of(cut.key): (rows, cut.width) for cut in cache.cuts
    }
    expected |= {checksums_of(cut.key): (rows,) for cut in cache.cuts}
    expected |= {name: (rows,) for name in (ROW_ID, ROW_SPLIT, ROW_GROUP, ROW_VALID, ROW_STATE)}
    for name, shape in expected.items():
        if name not in file or file[name].shape != shape:
            raise CacheError(f"{str(path)!r} has no {name} of shape {shape}.", hint=_MAKE)
    for task in cache.tasks:
        if target_of(task.name) not in file or len(file[target_of(task.name)]) != rows:
            raise CacheError(f"{str(path)!r} has no targets of {task.name}.", hint=_MAKE)
    for key, stored in cache.stored.items():
        if file[features_of(key)].dtype != stored.dtype:
            raise CacheError(
                f"{str(path)!r} holds {key} as {file[features_of(key)].dtype}, not as "
                f"{stored.type}.",
                hint=_MAKE,
            )


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
