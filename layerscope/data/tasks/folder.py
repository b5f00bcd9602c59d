"""Images of your own, in one folder for each class: what torchvision calls an ``ImageFolder``.

The folder holds its splits and in them the classes, or the classes alone:

    root/train/<class>/…    root/train/<class>/…    root/train/<class>/…    root/<class>/…
    root/val/<class>/…      root/val/<class>/…      root/test/<class>/…
    root/test/<class>/…

``validation`` and ``valid`` are understood for ``val``. Without ``test`` it is ``val`` that tests;
without a split to validate on, 10 % of ``train`` do; without any split, or with ``train`` alone,
60, 20 and 20 % of all images train, validate and test, in every class's proportion. Classes are
the names of the folders, sorted, and the same in every split; folders inside a class belong to it.

A folder called ``train`` may also be a class of trains. It is a split where it holds folders, and
a class where it holds images and folders that name no split lie beside it. What could be either is
refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from layerscope.data.assembly import assemble
from layerscope.data.class_task import class_task
from layerscope.data.listing import SUFFIXES, image_files, list_folder, require_folder, subfolders
from layerscope.data.official import RULE, assign_splits, left_out_note, official_splits
from layerscope.data.source_names import own_name
from layerscope.data.sources import sources, tasks
from layerscope.data.splits import Labels
from layerscope.errors import SourceError
from layerscope.types import SPLITS, Source

TASK = class_task("folder", "Class", RULE)
tasks.add(TASK.name, TASK)

_LAYOUT = "Give a folder with train/, val/ and test/ and in them one folder for each class."
_EITHER = "A split holds one folder for each class; a class that is called so holds its images."


class _Layout(NamedTuple):
    """Where the classes of a folder lie."""

    parts: Mapping[str, str]
    """By split, the folder's name; without any, ``""`` for the root itself."""
    notes: tuple[str, ...]


class _Row(NamedTuple):
    """An image."""

    part: str
    label: int
    path: str
    size: int


@sources.register(TASK.source)
def open_folder(root: Path, *, name: str | None = None) -> Source:
    """Return the record of a folder of classes.

    Rows come as train, val and test, and in each in torchvision's order: by class, by folder
    inside the class, by file name.

    Args:
        root: The folder with the splits, or with the classes.
        name: What to call the source and its task, so that several folders can be told apart.

    Raises:
        SourceError: The layout could mean two things, a class has no image or is not in every
            split, or there is a single class.
    """
    called = own_name(name, TASK.source)
    require_folder(root, hint=_LAYOUT)
    layout = _layout(root)
    classes = _classes(root, layout.parts)
    rows = _rows(root, layout.parts, classes)
    ids = [row.path for row in rows]
    labels = np.array([row.label for row in rows], np.int64)
    parts = None if "" in layout.parts else np.array([row.part for row in rows])
    assignment = assign_splits(parts, ids, labels, root)
    task = replace(TASK, name=called, source=called, classes=classes, split=assignment.rule)
    return assemble(
        called,
        root,
        ids,
        assignment.splits,
        {task: labels},
        sizes=[row.size for row in rows],
        notes=(*assignment.notes, *layout.notes, *_rare_note(classes, labels[assignment.carved])),
    )


def _layout(root: Path) -> _Layout:
    folders = subfolders(root)
    named = official_splits(folders, root)
    others = [folder for folder in folders if folder not in named]
    holding = [folder for folder in named if list_folder(root / folder)[0]]
    notes = _stray_note(root)
    if holding and not (others and len(holding) == len(named)):
        raise SourceError(
            f"{str(root / holding[0])!r} is called like a split and holds images, not classes.",
            hint=_EITHER,
        )
    if holding or not named:
        taken = (f"{', '.join(holding)}: taken for classes, not for splits",) if holding else ()
        return _Layout({"": ""}, (*taken, *notes))
    if set(named.values()) == {"train"} and any(image_files(root / other) for other in others):
        raise SourceError(
            f"{str(root)!r} has {next(iter(named))!r} beside {others[0]!r}: split, or classes?",
            hint=_EITHER + " Move away what is no split.",
        )
    parts = {split: folder for folder, split in named.items()}
    ordered: dict[str, str] = {split: parts[split] for split in SPLITS if split in parts}
    return _Layout(ordered, (*left_out_note(others, "folders"), *notes))


def _stray_note(root: Path) -> tuple[str, ...]:
    count = len(list_folder(root)[0])
    return (f"{count} images beside the folders belong to no class and are left out",) * bool(count)


def _classes(root: Path, parts: Mapping[str, str]) -> tuple[str, ...]:
    """Return the classes, after it is known that every split has the same."""
    found = {folder: subfolders(root / folder) for folder in parts.values()}
    first, classes = next(iter(found.items()))
    for folder, names in found.items():
        odd = sorted({*classes} ^ {*names})
        if odd:
            has, lacks = (first, folder) if odd[0] in classes else (folder, first)
            raise SourceError(
                f"The class {odd[0]!r} is in {str(root / has)!r} and not in {str(root / lacks)!r}.",
                hint="Every split needs the same class folders.",
            )
    if len(classes) < 2:
        what = f"the single class {classes[0]!r}" if classes else "no class folder"
        raise SourceError(
            f"{str(root / first)!r} holds {what}.",
            hint=f"{_LAYOUT} The one that you gave may be too high up, or too deep down.",
        )
    return classes


def _rows(root: Path, parts: Mapping[str, str], classes: Sequence[str]) -> list[_Row]:
    rows = []
    for part, folder in parts.items():
        for label, name in enumerate(classes):
            path = f"{folder}/{name}" if folder else name
            images = image_files(root / path)
            if not images:
                raise SourceError(
                    f"The class folder {str(root / path)!r} holds no image.",
                    hint=f"Images end in {', '.join(SUFFIXES)}; move the folder if it is no class.",
                )
            rows += [_Row(part, label, f"{path}/{it.path}", it.size) for it in images]
    return rows


def _rare_note(classes: Sequence[str], labels: Labels) -> tuple[str, ...]:
    """Return a note on the classes with one image, where splits had to be made of them."""
    counts = np.bincount(labels, minlength=len(classes))
    names = [repr(classes[label]) for label in np.flatnonzero(counts == 1).tolist()]
    if not names:
        return ()
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return (f"a single image stays in train of: {', '.join(names[:3])}{more}",)
