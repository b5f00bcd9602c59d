"""Image sources and their tasks: the registries, and how a user's words select from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import numpy.typing as npt

from layerscope.errors import SettingsError, UnknownNameError
from layerscope.nouns import SPLITS, Source, Task
from layerscope.registry import Registry

Opener = Callable[[Path], Source]
"""Reads what a folder holds into a record; opens no image."""

sources: Registry[Opener] = Registry(
    "image source", package="layerscope.data.tasks", group="layerscope.sources"
)
"""By name: the function that opens a folder of that kind."""

tasks: Registry[Task] = Registry("task", package="layerscope.data.tasks", group="layerscope.tasks")
"""By name: the questions that are known before any folder is opened (so without class names)."""


def open_source(name: str, root: Path) -> Source:
    """Return the record of the images in a folder.

    Args:
        name: A registered source, such as ``objects3d``.
        root: The folder that the user has.

    Raises:
        UnknownNameError: No source has this name.
        SourceError: The folder is missing, empty or inconsistent.
    """
    return sources[name](root)


def all_tasks() -> tuple[Task, ...]:
    """Return every registered task, sorted by name."""
    return tuple(task for _, task in tasks.items())


def select_tasks(pattern: str, known: Sequence[Task]) -> tuple[Task, ...]:
    """Return the tasks that a comma list of names, prefixes and globs selects.

    A source's name, or a prefix that ends where a dash follows, names all tasks under it:
    ``objects3d`` and ``objects3d-spot`` are both understood.

    Args:
        pattern: Such as ``objects3d-rotation,*hue``.
        known: The tasks to choose from; their order is kept.

    Raises:
        UnknownNameError: A member of the list selects nothing.
    """
    chosen: set[str] = set()
    for word in filter(None, (part.strip() for part in pattern.split(","))):
        names = {task.name for task in known if _names(word, task)}
        if not names:
            raise UnknownNameError("task", word, (task.name for task in known))
        chosen |= names
    if not chosen:
        raise UnknownNameError("task", pattern, (task.name for task in known))
    return tuple(task for task in known if task.name in chosen)


def _names(word: str, task: Task) -> bool:
    return word == task.source or task.name.startswith(f"{word}-") or fnmatchcase(task.name, word)


def thin(source: Source, limit: int) -> Source:
    """Return the same source with at most ``limit`` rows: a smoke run's share of every split.

    Each split gives an equal number of rows (what a small split cannot give, the others do),
    evenly spaced over it, because its first rows would often show a single object. The choice
    depends on nothing but the source and the limit; the order of the rows stays.

    Raises:
        SettingsError: ``limit`` is below 1.
    """
    if limit < 1:
        raise SettingsError(
            f"A limit of {limit} rows leaves nothing to do.", hint="Give --limit 1 or more."
        )
    members = [np.flatnonzero(source.splits == split) for split in SPLITS]
    shares = _shares([len(rows) for rows in members], limit)
    picked = [_spaced(rows, share) for rows, share in zip(members, shares, strict=True)]
    return _subset(source, np.sort(np.concatenate(picked)))


def _shares(sizes: Sequence[int], limit: int) -> list[int]:
    shares = [0] * len(sizes)
    order = sorted(range(len(sizes)), key=lambda i: sizes[i])
    for place, i in enumerate(order):
        shares[i] = min(sizes[i], -(-limit // (len(order) - place)))
        limit -= shares[i]
    return shares


def _spaced(rows: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.int64]:
    return rows[np.arange(count) * len(rows) // max(count, 1)]


def _subset(source: Source, rows: npt.NDArray[np.int64]) -> Source:
    return replace(
        source,
        ids=tuple(source.ids[row] for row in rows),
        splits=source.splits[rows],
        groups=source.groups[rows],
        targets={name: target[rows] for name, target in source.targets.items()},
    )
