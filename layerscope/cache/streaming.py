"""Collecting statistics over many rows, by one process or several, with snapshots on the way."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from layerscope.cache.checkpoint_settings import series_in, with_series
from layerscope.cache.collection import Collection, Division, divisions
from layerscope.cache.existing import CacheStatus
from layerscope.cache.fingerprint import differences
from layerscope.cache.hdf5_offsets import Rows
from layerscope.cache.header import Header
from layerscope.cache.label import open_file
from layerscope.cache.lock import Lock, require_unlocked
from layerscope.cache.part import stored_in
from layerscope.cache.statistics import (
    DONE,
    open_statistics,
    read_states,
    write_statistics,
)
from layerscope.cache.storage import Stored
from layerscope.cache.writer import WriteAssignment, divided, storing
from layerscope.errors import CacheError
from layerscope.types import Existing

SNAPSHOT_EVERY = 60.0
"""Seconds of work that a killed process may cost; more where a snapshot takes long itself."""
_PATIENCE = 20
"""A snapshot may take one part in so many of the time."""


@dataclass(frozen=True, slots=True)
class _Part:
    path: Path
    ingredients: Mapping[str, Any]
    stored: Mapping[str, Stored]
    settings: Mapping[str, Any]
    done: npt.NDArray[np.bool_]


def statistics_status(path: Path, header: Header, existing: Existing) -> CacheStatus:
    """Return how far the statistics at ``path`` have come.

    Raises:
        CacheError: Something else is there, or another process is collecting.
    """
    require_unlocked(path)
    everything = np.arange(header.rows)
    if existing == "replace":
        return CacheStatus("new", missing=everything)
    if path.exists():
        with open_statistics(path) as found:
            _require_same(path, found.ingredients, header)
        return CacheStatus("there", header.rows)
    parts = _parts(path)
    if existing == "keep" and parts:
        raise CacheError(
            f"{str(parts[0].path)!r} is incomplete and was left as it is.",
            hint="Go on with --existing missing, or start again with --existing replace.",
        )
    for part in parts:
        _require_same(part.path, part.ingredients, header)
    done = np.any([np.zeros(header.rows, bool), *(part.done for part in parts)], axis=0)
    return CacheStatus("part" if parts else "new", int(done.sum()), missing=np.flatnonzero(~done))


class StatisticsBuild:
    """The collecting of one file of statistics, by one process or many.

    Args:
        path: Where the file belongs.
        header: What is collected.
        existing: What to do with what is there.
        regression: By task: (n, c) the encoded targets of those that are not classes.

    Raises:
        CacheError: Something else is there, or another process is collecting.
    """

    def __init__(
        self,
        path: Path,
        header: Header,
        existing: Existing,
        regression: Mapping[str, torch.Tensor],
    ) -> None:
        self.path = path
        self._regression = regression
        with storing(path):
            self._lock = Lock(path)
        try:
            self.cache_status = statistics_status(path, header, existing)
            if existing == "replace":
                self.discard()
            begun = _parts(path)
            if begun:
                settings = with_series(begun[0].settings, series_in(header.settings))
                header = replace(header, stored=begun[0].stored, settings=settings)
            self.header = header
        except BaseException:
            self._lock.release()
            raise

    def __enter__(self) -> StatisticsBuild:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._lock.release()

    def shares(self, processes: int = 1, unit: int = 1) -> list[WriteAssignment]:
        """Return what each process is to collect: together, all that is missing."""
        parts = divided(self.cache_status.missing, processes, unit)
        return [
            WriteAssignment(parts_of(self.path) / f"{secrets.token_hex(8)}.hdf5", rows, False)
            for rows in parts
            if len(rows)
        ]

    def finish(self) -> Path:
        """Make one file of all that was collected.

        Raises:
            CacheError: Rows are missing.
            DiskError: The disk could not take it.
        """
        self._lock.require()
        parts = _parts(self.path)
        seen = np.sum([np.zeros(self.header.rows, int), *(part.done for part in parts)], axis=0)
        if not (seen == 1).all():
            raise CacheError(
                f"{str(self.path)!r} has {int((seen > 0).sum())} of {self.header.rows} rows.",
                hint="Repeat the layerscope extract command; it goes on where it stopped.",
            )
        division = divisions(self.header.source, self._regression)
        whole = Collection(self.header, division)
        for part in sorted(parts, key=lambda part: int(np.argmax(part.done))):
            collected = Collection(self.header, division)
            with open_file(part.path) as file:
                collected.restore(read_states(file))
            whole.merge(collected)
        with storing(self.path):
            write_statistics(
                self.path, self.header, whole.states(), columns(division), _owners(division)
            )
        self.discard()
        return self.path

    def discard(self) -> None:
        """Delete what was collected so far."""
        folder = parts_of(self.path)
        if folder.is_dir():
            for part in folder.iterdir():
                part.unlink()
            folder.rmdir()


class StatisticsWriter:
    """Collects one share, and writes snapshots of it; rows in the last one are never lost.

    Args:
        path: Where the file of statistics belongs.
        header: Of the whole.
        share: From :meth:`StatisticsBuild.shares`.
        regression: By task: (n, c) the encoded targets of those that are not classes.
    """

    def __init__(
        self,
        path: Path,
        header: Header,
        share: WriteAssignment,
        regression: Mapping[str, torch.Tensor],
    ) -> None:
        self._path = path
        self._header = header
        self._share = share
        self._divided = divisions(header.source, regression)
        self._collection = Collection(header, self._divided)
        self._done = np.zeros(header.rows, bool)
        self._due = time.monotonic() + SNAPSHOT_EVERY
        with storing(path):
            share.path.parent.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> StatisticsWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._done.any():
            self.snapshot()

    def write(
        self,
        rows: Rows,
        features: Mapping[str, npt.NDArray[np.float32]],
        valid: npt.NDArray[np.bool_],
    ) -> None:
        """Take in some rows of every cut.

        Raises:
            DiskError: A snapshot could not be written; the one before is kept.
        """
        self._collection.update(rows, features, valid)
        self._done[rows] = True
        if time.monotonic() > self._due:
            self.snapshot()

    def snapshot(self) -> None:
        """Write what was collected so far, in place of the last snapshot."""
        begin = time.monotonic()
        with storing(self._path):
            write_statistics(
                self._share.path,
                self._header,
                self._collection.states(),
                columns(self._divided),
                _owners(self._divided),
                self._done,
            )
        now = time.monotonic()
        self._due = now + max(SNAPSHOT_EVERY, _PATIENCE * (now - begin))


def parts_of(path: Path) -> Path:
    """Return the folder in which processes keep their snapshots."""
    return path.with_name(path.name + ".parts")


def columns(division: tuple[Division, ...]) -> dict[str, tuple[str, int, int]]:
    """Return where the targets of each regression task are among those of its owner."""
    found: dict[str, tuple[str, int, int]] = {}
    for part in division:
        first = 0
        for task, width in zip(part.regressed, part.widths, strict=True):
            found[task.name] = (part.owner, first, first + width)
            first += width
    return found


def _owners(division: tuple[Division, ...]) -> tuple[str, ...]:
    return tuple(part.owner for part in division)


def _parts(path: Path) -> list[_Part]:
    found = []
    for part in sorted(parts_of(path).glob("*.hdf5")):
        with open_file(part) as file:
            found.append(
                _Part(
                    part,
                    json.loads(file.attrs["ingredients"]),
                    stored_in(file),
                    json.loads(file.attrs["settings"]),
                    file[DONE][()],
                )
            )
    return found


def _require_same(path: Path, there: Mapping[str, Any], header: Header) -> None:
    changed = differences(there, header.ingredients)
    if changed:
        raise CacheError(
            f"{str(path)!r} was made from something else; it differs in {', '.join(changed)}.",
            hint="Choose another folder with -o, collect it anew with --existing replace, or "
            "return to the settings that it was made with.",
        )
