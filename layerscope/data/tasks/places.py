"""Places: scenes, in its editions of 205 and of 365 categories.

``places205`` holds ``images256/<letter>/<category>/*.jpg`` (its archive unpacks them below
``data/vision/torralba/deeplearning/``) and ``trainvalsplit_places205/``, which has
``train_places205.csv`` and ``val_places205.csv`` with lines such as ``a/abbey/gsun_0003.jpg 0``.

``places365`` has the layout that torchvision's ``Places365`` makes: ``categories_places365.txt``,
``places365_train_standard.txt`` and ``places365_val.txt`` beside ``data_256_standard/`` and
``val_256/``, or ``data_large_standard/`` and ``val_large/``. The lists are read here, so that a
wrong line can be named; the tests compare with torchvision.

``--data places=PATH`` tells the edition by what is in the folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from layerscope.data.annotations import read_lines
from layerscope.data.assembly import assemble
from layerscope.data.class_task import class_task
from layerscope.data.listing import require_folder
from layerscope.data.sources import sources, tasks
from layerscope.data.splits import carve_val
from layerscope.errors import SourceError
from layerscope.types import Source, Task

VAL_PER_CLASS = 100
_LICENCE = "Places terms of use: non-commercial research and education"


def _task(name: str, count: int, citation: str) -> Task:
    return class_task(
        name,
        f"Places{count}",
        "the official validation images test; 100 of each category of train validate",
        class_count=count,
        licence=_LICENCE,
        citation=citation,
    )


PLACES205 = _task(
    "places205", 205, "Zhou et al. (2014), Learning Deep Features for Scene Recognition"
)
PLACES365 = _task("places365", 365, "Zhou et al. (2018), Places: A 10 Million Image Database")
for _each in (PLACES205, PLACES365):
    tasks.add(_each.name, _each)

FOLDERS205 = ("images256", "data/vision/torralba/deeplearning/images256")
FOLDERS365 = (("data_256_standard", "val_256"), ("data_large_standard", "val_large"))
CATEGORIES, TRAIN, TEST = (
    "categories_places365.txt",
    "places365_train_standard.txt",
    "places365_val.txt",
)
_LAYOUT205 = "It holds images256/ and trainvalsplit_places205/, as Places205's archives gave them."
_LAYOUT365 = "It holds Places365's lists and image folders, as torchvision downloads them."

_Pair = tuple[str, int]
"""A path, and its label."""


@sources.register("places")
def open_places(root: Path) -> Source:
    """Return the record of Places, whichever edition the folder holds.

    Raises:
        SourceError: It holds neither, or a list is wrong.
    """
    if (root / CATEGORIES).exists():
        return open_places365(root)
    return open_places205(root)


@sources.register(PLACES205.source)
def open_places205(root: Path) -> Source:
    """Return the record of Places205.

    Raises:
        SourceError: A folder or list is missing, or a line is wrong.
    """
    images = next((it for it in FOLDERS205 if (root / it).is_dir()), FOLDERS205[0])
    require_folder(root, "trainvalsplit_places205", images, hint=_LAYOUT205)
    lists = [
        root / "trainvalsplit_places205" / f"{part}_places205.csv" for part in ("train", "val")
    ]
    train, test = (_pairs(path, PLACES205.class_count) for path in lists)
    names = _names([*train, *test], PLACES205.class_count, lists[0])
    return _source(PLACES205, root, _within(images, train), _within(images, test), names)


@sources.register(PLACES365.source)
def open_places365(root: Path) -> Source:
    """Return the record of Places365-Standard.

    Raises:
        SourceError: A folder or list is missing, or a line is wrong.
    """
    require_folder(root, CATEGORIES, TRAIN, TEST, hint=_LAYOUT365)
    large = not (root / FOLDERS365[0][0]).is_dir()
    require_folder(root, *FOLDERS365[large], hint=_LAYOUT365)
    of_train, of_test = FOLDERS365[large]
    names = [""] * PLACES365.class_count
    for path, label in _pairs(root / CATEGORIES, PLACES365.class_count):
        names[label] = path
    if not all(names):
        raise SourceError(
            f"{str(root / CATEGORIES)!r} names no category {names.index('')}.", hint=_LAYOUT365
        )
    train = _pairs(root / TRAIN, PLACES365.class_count)
    for path, label in train:
        if path.rpartition("/")[0] != names[label]:
            raise SourceError(
                f"{str(root / TRAIN)!r} gives {path!r} the label {label}, which is "
                f"{names[label]!r}.",
                hint=_LAYOUT365,
            )
    test = _pairs(root / TEST, PLACES365.class_count)
    return _source(PLACES365, root, _within(of_train, train), _within(of_test, test), names)


def _source(
    task: Task, root: Path, train: Sequence[_Pair], test: Sequence[_Pair], names: Sequence[str]
) -> Source:
    ids = [path for path, _ in (*train, *test)]
    labels = np.array([label for _, label in (*train, *test)], np.int64)
    of_train = np.arange(len(ids)) < len(train)
    splits = carve_val(of_train, ids, labels, per_class=VAL_PER_CLASS)
    targets = {replace(task, classes=tuple(names)): labels}
    return assemble(task.source, root, ids, splits, targets)


def _within(folder: str, pairs: Sequence[_Pair]) -> list[_Pair]:
    return [(f"{folder}/{path}", label) for path, label in pairs]


def _pairs(path: Path, count: int) -> list[_Pair]:
    """Return what a list says: a path (without a leading slash) and a label on each line."""
    pairs = []
    for number, line in read_lines(path):
        name, _, label = line.rpartition(" ")
        if not name or not label.isdecimal():
            raise SourceError(
                f"{str(path)!r}, line {number}, is {line!r}, not a path and a label.",
                hint="Download the list again.",
            )
        if int(label) >= count:
            raise SourceError(
                f"{str(path)!r}, line {number}, has the label {label}; there are {count}, from 0.",
                hint="Download the list again.",
            )
        pairs.append((name.removeprefix("/"), int(label)))
    return pairs


def _names(pairs: Sequence[_Pair], count: int, path: Path) -> list[str]:
    """Return the categories by label: the folders of the images, which the labels must follow."""
    names: dict[int, str] = {}
    for name, label in pairs:
        folder = name.rpartition("/")[0]
        if names.setdefault(label, folder) != folder:
            raise SourceError(
                f"The lists beside {str(path)!r} give the label {label} to {names[label]!r} and "
                f"to {name!r}.",
                hint="Download the lists again.",
            )
    missing = sorted(set(range(count)) - set(names))
    if missing:
        raise SourceError(
            f"The lists beside {str(path)!r} have no image with the label {missing[0]}.",
            hint="Download the lists again.",
        )
    return [names[label] for label in range(count)]
