"""Statistics of features, collected by one process or several, with snapshots on the way."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from layerscope.cache.cache_file import CacheFile
from layerscope.cache.collector import StatisticsCollector, TaskGroup, task_groups
from layerscope.cache.fingerprint import differences
from layerscope.cache.hdf5_offsets import Rows
from layerscope.cache.header import Header
from layerscope.cache.label import open_file
from layerscope.cache.lock import require_unlocked
from layerscope.cache.part import disk_errors, storage_in
from layerscope.cache.statistics import (
    DONE,
    Statistics,
    open_statistics,
    read_states,
    statistics_name,
    write_statistics,
)
from layerscope.cache.status import CacheStatus, made_otherwise, parts_status
from layerscope.cache.storage import FeatureRows, Valid
from layerscope.cache.writer import WriteAssignment, split_rows
from layerscope.errors import CacheError
from layerscope.types import Existing, Source

SNAPSHOT_EVERY = 60.0
"""Seconds of work that a killed process may cost; more where a snapshot takes long itself."""
_PATIENCE = 20
"""A snapshot may take one part in so many of the time."""


@dataclass(frozen=True)
class StatisticsSink:
    """Keeps statistics alone; described by :class:`layerscope.cache.sink.Sink`."""

    regression: Mapping[str, torch.Tensor]
    """By task: (n, c) the encoded targets of those that are not classes."""

    file_name = staticmethod(statistics_name)

    def ingredients(self, source: Source) -> dict[str, Any]:
        return {"stream": "statistics", "tasks": [task.name for task in source.tasks]}

    def size(self, header: Header) -> int:
        return self._collector(header).bytes

    def size_left(self, header: Header, status: CacheStatus) -> int:
        return self.size(header) * (len(status.missing) > 0)

    def status(self, path: Path, header: Header, existing: Existing) -> CacheStatus:
        require_unlocked(path)
        if existing == "replace":
            return CacheStatus("new", missing=np.arange(header.rows))
        if path.exists():
            with open_statistics(path) as found:
                _require_same(found, header)
            return CacheStatus("there", header.rows)
        return parts_status(_parts(path), header, existing, _require_same)

    def settle(self, path: Path, existing: Existing) -> None:
        if existing == "replace":
            self.discard(path)

    def rows_due(self, header: Header, missing: Rows, unit: int) -> Rows:
        return missing  # a row that is collected twice counts twice

    def assign(
        self, path: Path, header: Header, status: CacheStatus, processes: int, unit: int
    ) -> list[WriteAssignment]:
        return [
            WriteAssignment(parts_of(path) / f"{secrets.token_hex(8)}.hdf5", rows, False)
            for rows in split_rows(status.missing, processes, unit)
            if len(rows)
        ]

    def writer(self, path: Path, header: Header, assignment: WriteAssignment) -> StatisticsWriter:
        return StatisticsWriter(path, header, assignment.path, self._groups(header))

    def finish(self, path: Path, header: Header) -> Path:
        parts = _parts(path)
        seen = np.sum([np.zeros(header.rows, int), *(part.done for part in parts)], axis=0)
        if not (seen == 1).all():
            raise CacheError(
                f"{str(path)!r} has {int((seen > 0).sum())} of {header.rows} rows.",
                hint="Repeat the layerscope extract command; it goes on where it stopped.",
            )
        whole = self._collector(header)
        for part in sorted(parts, key=lambda part: int(np.argmax(part.done))):
            collected = self._collector(header)
            with open_file(part.path) as file:
                collected.restore(read_states(file))
            whole.merge(collected)
        write_statistics(path, header, self._groups(header), whole.states())
        self.discard(path)
        return path

    def discard(self, path: Path) -> None:
        folder = parts_of(path)
        if folder.is_dir():
            for part in folder.iterdir():
                part.unlink()
            folder.rmdir()

    def _groups(self, header: Header) -> tuple[TaskGroup, ...]:
        return task_groups(header.source, self.regression)

    def _collector(self, header: Header) -> StatisticsCollector:
        return StatisticsCollector(header, self._groups(header))


class StatisticsWriter:
    """Collects one assignment, and writes snapshots; rows in the last one are never lost."""

    def __init__(self, path: Path, header: Header, part: Path, groups: Sequence[TaskGroup]) -> None:
        self._path = path
        self._header = header
        self._part = part
        self._groups = groups
        self._collector = StatisticsCollector(header, groups)
        self._done = np.zeros(header.rows, bool)
        self._due = time.monotonic() + SNAPSHOT_EVERY
        with disk_errors(path):
            self._part.parent.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> StatisticsWriter:
        return self

    def __exit__(self, *_: object) -> None:
        if self._done.any():
            self.snapshot()

    def write(self, rows: Rows, features: FeatureRows, valid: Valid) -> None:
        """Take in some rows of every cut.

        Raises:
            DiskError: A snapshot could not be written; the one before is kept.
        """
        self._collector.update(rows, features, valid)
        self._done[rows] = True
        if time.monotonic() > self._due:
            self.snapshot()

    def snapshot(self) -> None:
        """Write what was collected so far, in place of the last snapshot."""
        begin = time.monotonic()
        with disk_errors(self._path):
            states = self._collector.states()
            write_statistics(self._part, self._header, self._groups, states, self._done)
        now = time.monotonic()
        self._due = now + max(SNAPSHOT_EVERY, _PATIENCE * (now - begin))


def parts_of(path: Path) -> Path:
    """Return the folder in which processes keep their snapshots."""
    return path.with_name(path.name + ".parts")


def _parts(path: Path) -> list[CacheFile]:
    return [_inspect_part(part) for part in sorted(parts_of(path).glob("*.hdf5"))]


def _inspect_part(path: Path) -> CacheFile:
    with open_file(path) as file:
        done = file[DONE][()]
        return CacheFile(
            path=path,
            ingredients=json.loads(file.attrs["ingredients"]),
            stored=storage_in(file),
            settings=json.loads(file.attrs["settings"]),
            index=np.arange(len(done)),
            done=done,
            valid=np.ones_like(done),
            sealed=False,
        )


def _require_same(file: CacheFile | Statistics, header: Header) -> None:
    changed = differences(file.ingredients, header.ingredients)
    if changed:
        raise made_otherwise(file.path, changed, "collect it anew with --existing replace")
