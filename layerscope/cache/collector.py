"""Statistics of every cut while they are collected: moments, alone, by class and with targets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from layerscope.cache.hdf5_offsets import Rows
from layerscope.cache.header import Header
from layerscope.cache.storage import (
    FeatureRows,
    Valid,
    Values,
    decoded,
    encoded,
    overflows,
    widened,
)
from layerscope.stats.class_moments import RunningClassMoments
from layerscope.stats.moments import RunningCrossMoments, State
from layerscope.types import SPLITS, Source, Split, Task

Running = RunningCrossMoments | RunningClassMoments

TOGETHER = 1024
"""Rows that are collected before they become products: each product is d × d, however few rows."""
CLASS_BYTES = 2 * 2**30
"""Memory for scatters of single classes, of which there are classes × d × d; tasks that need least
have theirs first, and of the others the scatter within classes is kept as a whole."""


@dataclass(frozen=True, slots=True)
class TaskGroup:
    """Tasks that divide the rows alike: those of the source's own splits, or one by itself."""

    owner: str
    """The task whose splits these are, or ``source``."""
    codes: npt.NDArray[np.int8]
    """(n,) places in ``SPLITS``, or -1."""
    regressed: tuple[Task, ...]
    """Those whose targets are numbers, or labels of 0 and 1."""
    widths: tuple[int, ...]
    """How many components the encoded targets of each of these have."""
    targets: Tensor
    """(n, k) float64 the encoded targets of all of them, side by side."""
    classified: tuple[Task, ...]


def task_groups(source: Source, regression: Mapping[str, Tensor]) -> tuple[TaskGroup, ...]:
    """Return the tasks of a source by their splits.

    Args:
        source: With the targets of its tasks.
        regression: By task: (n, c) the encoded targets of those that are not classes.
    """
    own = tuple(source.task_splits)
    usual = np.array([SPLITS.index(split) for split in source.splits], np.int8)
    codes = {"source": usual, **{name: source.task_splits[name] for name in own}}
    found = []
    for owner, places in codes.items():
        mine = [t for t in source.tasks if (t.name if t.name in own else "source") == owner]
        regressed = tuple(task for task in mine if task.name in regression)
        parts = [regression[task.name].double() for task in regressed]
        targets = torch.cat([torch.zeros(len(places), 0, dtype=torch.float64), *parts], 1)
        classified = tuple(task for task in mine if task.kind == "classes")
        widths = tuple(part.shape[1] for part in parts)
        found.append(TaskGroup(owner, places, regressed, widths, targets, classified))
    return tuple(found)


def target_columns(groups: Sequence[TaskGroup]) -> dict[str, tuple[str, int, int]]:
    """Return where the targets of each regression task are among those of its owner."""
    found: dict[str, tuple[str, int, int]] = {}
    for group in groups:
        first = 0
        for task, width in zip(group.regressed, group.widths, strict=True):
            found[task.name] = (group.owner, first, first + width)
            first += width
    return found


class StatisticsCollector:
    """Statistics of every cut, split and task, of rows that arrive in batches.

    They are those of the features as a cache would hold them, in products of float64.
    """

    def __init__(self, header: Header, groups: Sequence[TaskGroup]) -> None:
        self._stored = dict(header.storage)
        self._widths = {cut.key: cut.width for cut in header.cuts}
        self._groups = groups
        self._labels = {
            task.name: torch.from_numpy(header.source.targets[task.name].astype(np.int64))
            for group in groups
            for task in group.classified
        }
        self._classes = {
            name: int(labels.max()) + 1 if len(labels) else 0
            for name, labels in self._labels.items()
        }
        self._separate = _with_scatters(self._widths.values(), self._classes)
        self._running: dict[str, Running] = {}
        self._waiting: list[tuple[Rows, FeatureRows]] = []

    def update(self, rows: Rows, features: FeatureRows, valid: Valid) -> None:
        """Take in the features of some rows of the source; unreadable ones are left out."""
        self._waiting.append((rows[valid], {key: part[valid] for key, part in features.items()}))
        if sum(len(part) for part, _ in self._waiting) >= TOGETHER:
            self._absorb()

    def merge(self, other: StatisticsCollector) -> None:
        """Take in everything that another collection of the same things has seen."""
        self._absorb()
        other._absorb()
        for name, running in other._running.items():
            known = self._running.setdefault(name, running)
            if known is not running:
                known.merge(running)  # type: ignore[arg-type]

    def states(self) -> dict[str, State]:
        """Return every statistic by its name: ``cross/<cut>/<owner>/<split>`` and its like."""
        self._absorb()
        return {name: running.state() for name, running in sorted(self._running.items())}

    def restore(self, states: Mapping[str, State]) -> None:
        """Go on from what :meth:`states` returned."""
        self._waiting = []
        self._running = {
            name: (RunningCrossMoments if name.startswith("cross/") else RunningClassMoments)
            .from_state(state)
            for name, state in states.items()
        }  # fmt: skip

    @property
    def bytes(self) -> int:
        """Memory that everything takes once each statistic has seen a row."""
        total = 0
        for width in self._widths.values():
            for group in self._groups:
                joint = width + group.targets.shape[1]
                total += len(SPLITS) * 8 * joint * joint
                for task in group.classified:
                    count = self._classes[task.name]
                    for split in SPLITS:
                        kept = count if self._keeps_scatters(task.name, split) else 1
                        total += 8 * (count * width + kept * width * width)
        return total

    def _absorb(self) -> None:
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        rows = np.concatenate([part for part, _ in waiting])
        for key, width in self._widths.items():
            values = torch.from_numpy(
                self._as_stored(key, np.concatenate([features[key] for _, features in waiting]))
            ).double()
            for name, running, chosen, targets in self._statistics(key, width, rows):
                self._running.setdefault(name, running).update(values[chosen], targets)

    def _as_stored(self, key: str, values: Values) -> Values:
        stored = self._stored[key]
        raw = encoded(values, stored)
        if overflows(raw, values, stored):
            self._stored[key] = stored = widened()
            raw = encoded(values, stored)
        return decoded(raw, stored.type)

    def _statistics(
        self, key: str, width: int, rows: Rows
    ) -> Iterator[tuple[str, Running, Tensor, Tensor]]:
        """Yield what some rows belong to: its name, its beginning, which rows, their targets."""
        for group in self._groups:
            codes = group.codes[rows]
            for place, split in enumerate(SPLITS):
                here = np.flatnonzero(codes == place)
                if not len(here):
                    continue
                chosen, own = torch.from_numpy(here), torch.from_numpy(rows[here])
                targets = group.targets[own]
                begun: Running = RunningCrossMoments(width, targets.shape[1])
                yield cross_name(key, group.owner, split), begun, chosen, targets
                for task in group.classified:
                    kept = self._keeps_scatters(task.name, split)
                    begun = RunningClassMoments(width, self._classes[task.name], kept)
                    yield (
                        class_name(key, task.name, split),
                        begun,
                        chosen,
                        self._labels[task.name][own],
                    )

    def _keeps_scatters(self, task: str, split: Split) -> bool:
        return split == "train" and task in self._separate


def cross_name(key: str, owner: str, split: Split) -> str:
    """Return the name of a cut's moments, with the targets that divide the rows so."""
    return f"cross/{key}/{owner}/{split}"


def class_name(key: str, task: str, split: Split) -> str:
    """Return the name of a cut's moments by the classes of a task."""
    return f"classes/{key}/{task}/{split}"


def _with_scatters(widths: Iterable[int], classes: Mapping[str, int]) -> frozenset[str]:
    """Return the tasks whose classes' scatters fit into memory together, smallest first."""
    squares = sum(width * width for width in widths)
    kept, room = set(), CLASS_BYTES
    for name, count in sorted(classes.items(), key=lambda item: item[1]):
        room -= 8 * count * squares
        if room >= 0:
            kept.add(name)
    return frozenset(kept)
