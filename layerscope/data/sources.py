"""Image sources and their tasks: the registries, and how a user's words select from them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from layerscope.data.images import select_missing
from layerscope.errors import SettingsError, SourceError, UnknownNameError
from layerscope.registry import Registry
from layerscope.types import SPLITS, Source, Task

Opener = Callable[..., Source]
"""Reads what a folder holds into a record, and opens no image. Called with the folder's path; what
else it needs to know are keyword-only parameters, with ``Path``, ``str`` or ``bool`` as type."""

sources: Registry[Opener] = Registry(
    "image source", package="layerscope.data.tasks", group="layerscope.sources"
)
"""By name: the function that opens a folder of that kind."""

tasks: Registry[Task] = Registry("task", package="layerscope.data.tasks", group="layerscope.tasks")
"""By name: the questions that are known before any folder is opened (so without class names)."""


def open_source(
    name: str, root: Path, /, *, allow_missing: bool = False, **options: str | bool | Path
) -> Source:
    """Return the record of the images in a folder.

    Args:
        name: A registered source, such as ``objects3d``.
        root: The folder, or file, that the user has.
        allow_missing: Whether images that annotations list may be absent; they are skipped then,
            by whoever skips unreadable ones.
        options: The source's own options, by name.

    Raises:
        UnknownNameError: No source has this name, or the source no such option.
        SourceError: The folder is missing, empty or inconsistent, or lacks an image.
    """
    opener = _opener(name)
    known = source_options(opener)
    for option in options:
        if option not in known:
            raise UnknownNameError(f"option of {name}", option, known)
    source = opener(root, **{key: known[key](value) for key, value in options.items()})
    if source.missing and not allow_missing:
        row, reason = min(source.missing.items())
        others = f", and {len(source.missing) - 1:,} more" if len(source.missing) > 1 else ""
        raise SourceError(
            f"The image {source.ids[row]!r} of {str(source.root)!r} cannot be read: "
            f"{reason}{others}.",
            hint="Restore the files, or leave them out with --skip-bad-images.",
        )
    return source


def _opener(name: str) -> Opener:
    only = {task.source for _, task in tasks.items()} - set(sources)
    if name in only:
        raise SettingsError(
            f"{name} is for evaluation: its features are not kept.",
            hint=f"Use layerscope evaluate CHECKPOINT --data {name}=PATH.",
        )
    return sources[name]


def source_options(opener: Opener) -> dict[str, Callable[[Any], Any]]:
    """Return the options that a source takes: names, and what makes their value of a word."""
    parameters = inspect.signature(opener).parameters.values()
    types: dict[str, Callable[[Any], Any]] = {"Path": Path, "bool": bool}
    return {
        it.name: types.get(_type_name(it.annotation), str)
        for it in parameters
        if it.kind is inspect.Parameter.KEYWORD_ONLY
    }


def _type_name(annotation: Any) -> str:
    """Return ``Path`` of ``Path | None``, whether the annotation is postponed or not."""
    words = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    return words.partition(" ")[0].rpartition(".")[2]


def all_tasks() -> tuple[Task, ...]:
    """Return every registered task, sorted by name."""
    return tuple(task for _, task in tasks.items())


def select_tasks(pattern: str, known: Sequence[Task]) -> tuple[Task, ...]:
    """Return the tasks that a comma list of names, prefixes and globs selects.

    A task's own name names it alone. A source's name, or a prefix that ends where a dash or a
    number follows, names all tasks under it: ``objects3d``, ``objects3d-spot`` and ``places`` (for
    ``places205`` and ``places365``) are all understood.

    Args:
        pattern: Such as ``objects3d-rotation,*hue``.
        known: The tasks to choose from; their order is kept.

    Raises:
        UnknownNameError: A member of the list selects nothing.
    """
    chosen: set[str] = set()
    for word in filter(None, (part.strip() for part in pattern.split(","))):
        exact = {task.name for task in known if task.name == word}
        names = exact or {task.name for task in known if _names(word, task)}
        if not names:
            raise UnknownNameError("task", word, (task.name for task in known))
        chosen |= names
    if not chosen:
        raise UnknownNameError("task", pattern, (task.name for task in known))
    return tuple(task for task in known if task.name in chosen)


def _names(word: str, task: Task) -> bool:
    if word == task.source or fnmatchcase(task.name, word):
        return True
    return re.match(rf"{re.escape(word)}\d*(-|$)", task.name) is not None


def thin_source(source: Source, limit: int) -> Source:
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
    picked = [
        rows[np.arange(share) * len(rows) // max(share, 1)]
        for rows, share in zip(members, shares, strict=True)
    ]
    return _subset(source, np.sort(np.concatenate(picked)))


def _shares(sizes: Sequence[int], limit: int) -> list[int]:
    shares = [0] * len(sizes)
    order = sorted(range(len(sizes)), key=lambda i: sizes[i])
    for place, i in enumerate(order):
        shares[i] = min(sizes[i], -(-limit // (len(order) - place)))
        limit -= shares[i]
    return shares


def _subset(source: Source, rows: npt.NDArray[np.int64]) -> Source:
    return replace(
        source,
        ids=tuple(source.ids[row] for row in rows),
        splits=source.splits[rows],
        groups=source.groups[rows],
        targets={name: target[rows] for name, target in source.targets.items()},
        task_splits={name: split[rows] for name, split in source.task_splits.items()},
        images=None if source.images is None else source.images.select(rows),
        missing=select_missing(source.missing, rows),
    )
