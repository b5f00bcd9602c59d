"""Does an image source read what is there, the same every time, and refuse what is broken?"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from layerscope.data import ReadRequest, open_source
from layerscope.data.loaders import BadImage, loaders
from layerscope.data.sources import sources, tasks
from layerscope.errors import LayerScopeError, SourceError
from layerscope.testing.findings import accepts, collect
from layerscope.types import SPLITS, Preprocessing, Source, Task

_SMALL = Preprocessing((8, 8), None, (0.0,) * 3, (1.0,) * 3)
"""Prepares images of any size, which is all that reading them needs."""


@dataclass(frozen=True)
class TaskRow:
    """What is true of one image, by code that shares nothing with the source's."""

    id: str
    split: Literal["train", "val", "test", "train or val"]
    """``train or val`` where validation rows are carved from the official training split."""
    targets: Mapping[str, Any]
    """By task: the name of the class, the names of the labels, or a sequence of latents; a task
    that leaves the row out has no entry."""


@dataclass(frozen=True)
class TaskExample:
    """A small data set in its own layout, and the truth about it."""

    write: Callable[[Path], None]
    """Writes the set into an empty folder, with real image files."""
    rows: Sequence[TaskRow]
    """Every row, in any order."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Of the source, besides its folder; a path is relative to the folder."""


def check_source(name: str, example: TaskExample) -> list[str]:
    """Return what is wrong with an image source and its tasks, one sentence each; empty if nothing.

    The example has to be read as its truth says: ids, splits, groups, targets. Its tasks have to be
    registered with their metadata; every image has to be readable; a second reading, of a copy in
    another place, has to give the same rows and manifests; and a set without its files, or with an
    image missing or cut short, has to end in a SourceError.

    Args:
        name: Of a registered source.
        example: In its layout.

    Raises:
        UnknownNameError: There is no source of that name.
    """
    sources[name]
    with tempfile.TemporaryDirectory() as folder:
        return collect(_findings(name, example, Path(folder)))


def _findings(name: str, example: TaskExample, folder: Path) -> Iterator[str]:
    root = folder / "set"
    root.mkdir()
    example.write(root)
    try:
        source = _open_example(name, root, example)
    except LayerScopeError as error:
        yield f"The example cannot be opened: {error}"
        return
    yield from _rows(source, example)
    yield from _metadata(source)
    yield from _consistency(source)
    yield from _readable(source)
    yield from _stable(name, source, example, folder / "elsewhere")
    yield from _damage(name, source, example, folder)


def _open_example(name: str, root: Path, example: TaskExample) -> Source:
    options: dict[str, Any] = {
        key: root / value if isinstance(value, Path) else value
        for key, value in example.options.items()
    }
    return open_source(name, root, **options)


def _rows(source: Source, example: TaskExample) -> Iterator[str]:
    truth = {row.id: row for row in example.rows}
    missing, strange = set(truth) - set(source.ids), set(source.ids) - set(truth)
    if missing or strange:
        one = sorted(missing or strange)[0]
        yield f"{len(missing)} rows are missing and {len(strange)} are no part of it: {one!r}."
    for row, name in enumerate(source.ids):
        if name in truth:
            yield from _row(source, row, truth[name])


def _row(source: Source, row: int, truth: TaskRow) -> Iterator[str]:
    found = str(source.splits[row])
    if found not in truth.split.split(" or "):
        yield f"{truth.id!r} is in {found}, not in {truth.split}."
    for task in source.tasks:
        own = source.task_splits.get(task.name)
        used = own is None or own[row] >= 0
        if used != (task.name in truth.targets):
            yield f"{truth.id!r} is {'a' if used else 'no'} row of {task.name}."
        elif used:
            value, expected = _value(source, task, row), truth.targets[task.name]
            if not _same(value, expected):
                yield f"The {task.name} of {truth.id!r} is {value!r}, not {expected!r}."


def _value(source: Source, task: Task, row: int) -> Any:
    target = source.targets[task.name][row]
    if task.kind == "classes":
        known = 0 <= target < len(task.classes)
        return task.classes[target] if known else int(target)
    if task.kind == "multilabel":
        return {name for name, given in zip(task.classes, target, strict=True) if given}
    return target.tolist()


def _same(value: Any, expected: Any) -> bool:
    if isinstance(value, set):
        return value == set(expected)
    if isinstance(value, list):
        return bool(np.allclose(value, expected, rtol=1e-6, atol=1e-9))
    return bool(value == expected)


def _metadata(source: Source) -> Iterator[str]:
    registered = {name for name, _ in tasks.items()}
    for task in source.tasks:
        if task.name not in registered:
            yield f"{task.name} is not registered: call tasks.add({task.name!r}, …)."
        if not task.name.startswith(task.source):
            yield f"{task.name} does not begin with its source's name, {task.source!r}."
        for what in ("title", "split", "licence", "citation"):
            if not getattr(task, what):
                yield f"{task.name} has no {what}."
        if task.kind in ("classes", "multilabel") and not task.classes:
            yield f"{task.name} does not name its classes."


def _consistency(source: Source) -> Iterator[str]:
    n = len(source.ids)
    arrays = {"splits": source.splits, "groups": source.groups, **source.targets}
    for name, values in (arrays | dict(source.task_splits)).items():
        if len(values) != n:
            yield f"{name} has {len(values)} entries for {n} rows."
            return
    if len(set(source.ids)) < n:
        yield "Two rows have the same id."
    for split in SPLITS:
        if not (source.splits == split).any():
            yield f"The {split} split is empty."
    for group in np.unique(source.groups):
        parts = np.unique(source.splits[source.groups == group])
        if len(parts) > 1:
            yield f"The group {str(group)!r} is in several splits: {', '.join(parts)}."


def _readable(source: Source) -> Iterator[str]:
    for bad in _read(source, skip_bad=True):
        yield f"{bad.id!r} cannot be read: {bad.reason}"


def _stable(name: str, source: Source, example: TaskExample, other: Path) -> Iterator[str]:
    shutil.copytree(source.root, other, symlinks=True)
    again = _open_example(name, other, example)
    if again.ids != source.ids:
        yield "A second reading gives the rows in another order."
    if (again.splits != source.splits).any():
        yield "A second reading splits the rows otherwise."
    if (again.manifest, again.annotations) != (source.manifest, source.annotations):
        yield "A copy in another folder has other manifests."


def _damage(name: str, source: Source, example: TaskExample, folder: Path) -> Iterator[str]:
    def accepted(what: str, root: Path) -> Iterator[str]:
        def act() -> None:
            opened = _open_example(name, root, example)
            if root == source.root:  # without any files it has to be refused as it is opened
                _read(opened)

        return accepts(act, SourceError, what, f"It accepts {what}.")

    (folder / "empty").mkdir()
    yield from accepted("an empty folder", folder / "empty")
    yield from accepted("a folder that is not there", folder / "none")
    if source.images is None:
        victim = source.root / source.ids[len(source.ids) // 2]
        contents = victim.read_bytes()
        victim.write_bytes(contents[: len(contents) // 3])
        yield from accepted("an image that is cut short", source.root)
        victim.unlink()
        yield from accepted("an image that is gone", source.root)


def _read(source: Source, *, skip_bad: bool = False) -> Sequence[BadImage]:
    loader = loaders["threads"](ReadRequest(source, _SMALL, 16, skip_bad=skip_bad))
    for _ in loader:
        pass
    return loader.bad
