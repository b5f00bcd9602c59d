"""ImageNet-1k and its subsets: SimCLR's lists of 1 % and 10 %, and random sets of 250 classes.

The folder holds ``train/<wnid>/*.JPEG`` and ``val/<wnid>/*.JPEG`` for the same 1,000 WordNet ids
(the archive of validation images is flat; torchvision's or Soumith Chintala's script sorts it).
Classes are the ids, sorted, as everywhere.

The subsets are tasks of the same images. ``in1k-1p`` and ``in1k-10p`` train on the images that a
list names (google-research/simclr, ``imagenet_subsets/1percent.txt`` and ``10percent.txt``, 12,811
and 128,116 lines) and are judged on all validation images. ``in250-s0`` to ``in250-s6`` are 250
classes each, drawn independently with the seeds 0 to 6, so two of them share 62.5 classes on
average; ``in250-d1`` to ``in250-d3`` share none with ``in250-s0`` nor with each other. *Guillotine
Regularization* has such sets; its seeds are not published.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from layerscope.data.annotations import read_lines
from layerscope.data.assembly import assemble
from layerscope.data.class_task import class_task
from layerscope.data.listing import ImageFile, image_files, require_folder, subfolders
from layerscope.data.sources import sources, tasks
from layerscope.data.splits import Labels, carve_val, codes, hash_order
from layerscope.errors import SourceError
from layerscope.types import SPLITS, Source, Task

CLASSES, SUBSET = 1000, 250
VAL_PER_CLASS = 10
COUNTS = {"train": 1_281_167, "val": 50_000}
"""Images of the official set, by folder."""
LISTED = {"in1k-1p": 12_811, "in1k-10p": 128_116}
"""Lines of SimCLR's lists."""
SEEDS = range(7)

_LICENCE = "ImageNet terms of access: non-commercial research and education"
_CITATION = "Russakovsky et al. (2015), ImageNet Large Scale Visual Recognition Challenge"
_SIMCLR = "Chen et al. (2020), A Simple Framework for Contrastive Learning; " + _CITATION
_SUBSETS = "Bordes et al. (2023), Guillotine Regularization; " + _CITATION
_SPLIT = "the official validation images test; 10 images of each class of train validate"
_LAYOUT = (
    "It holds train/ and val/ with a folder for each of 1,000 WordNet ids; sort a flat val/ with "
    "a valprep script, and give other sets as --data folder=PATH."
)


def _task(name: str, title: str, split: str, count: int, citation: str) -> Task:
    return class_task(
        name, title, split, source="in1k", class_count=count, licence=_LICENCE, citation=citation
    )


WHOLE = _task("in1k", "ImageNet", _SPLIT, CLASSES, _CITATION)
SHARES = {
    name: _task(
        name,
        f"ImageNet, {percent} %",
        f"trained on the {LISTED[name]:,} images of SimCLR's list; otherwise as in1k",
        CLASSES,
        _SIMCLR,
    )
    for name, percent in (("in1k-1p", 1), ("in1k-10p", 10))
}
DRAWN = {
    name: _task(
        name, f"ImageNet-250, {title}", f"250 classes, {rule}; otherwise as in1k", SUBSET, _SUBSETS
    )
    for name, title, rule in (
        *((f"in250-s{k}", f"split {k}", f"drawn with seed {k}") for k in SEEDS),
        *(
            (f"in250-d{k}", f"disjoint {k}", f"part {k} of the order of seed 0, disjoint from s0")
            for k in (1, 2, 3)
        ),
    )
}
for _each in (WHOLE, *SHARES.values(), *DRAWN.values()):
    tasks.add(_each.name, _each)


@sources.register(WHOLE.source)
def open_in1k(root: Path, *, list_1p: Path | None = None, list_10p: Path | None = None) -> Source:
    """Return the record of ImageNet-1k.

    Rows come class by class, first those of ``train``, then those of ``val``.

    Args:
        root: The folder with ``train/`` and ``val/``.
        list_1p: SimCLR's list of 1 % of the training images; the task ``in1k-1p`` needs it.
        list_10p: The same of 10 %, for ``in1k-10p``.

    Raises:
        SourceError: A folder is missing, there are other than 1,000 classes, or a list names an
            image that is not there.
    """
    require_folder(root, *COUNTS, hint=_LAYOUT)
    classes = _classes(root)
    found = {part: _images(root / part, classes) for part in COUNTS}
    ids = [f"{part}/{it.path}" for part, images in found.items() for it in images]
    sizes = [it.size for images in found.values() for it in images]
    places = {wnid: place for place, wnid in enumerate(classes)}
    labels = np.array([places[name.split("/")[1]] for name in ids], np.int64)
    train = np.arange(len(ids)) < len(found["train"])
    splits = carve_val(train, ids, labels, per_class=VAL_PER_CLASS)
    lists = {"in1k-1p": list_1p, "in1k-10p": list_10p}
    listed = {
        name: _list_splits(path, ids, splits) for name, path in lists.items() if path is not None
    }
    whole = (WHOLE, *(SHARES[name] for name in listed))
    targets = {replace(task, classes=classes): labels for task in whole}
    task_splits = dict(listed)
    for name, task in DRAWN.items():
        own = _subset(classes, name)
        targets[replace(task, classes=tuple(classes[it] for it in own))] = _relabel(labels, own)
        task_splits[name] = codes(splits, np.isin(labels, own))
    return assemble(
        WHOLE.source,
        root,
        ids,
        splits,
        targets,
        sizes=sizes,
        task_splits=task_splits,
        notes=[*_count_notes(found), *_list_notes(listed), _SEED_NOTE],
    )


_SEED_NOTE = (
    f"in250-s{SEEDS[0]} to in250-s{SEEDS[-1]} are drawn with seeds {SEEDS[0]} to {SEEDS[-1]}; "
    "in250-d1 to in250-d3 share no class with in250-s0."
)


def _classes(root: Path) -> tuple[str, ...]:
    classes, of_val = subfolders(root / "train"), subfolders(root / "val")
    if not of_val:
        raise SourceError(f"{str(root / 'val')!r} is not sorted into classes.", hint=_LAYOUT)
    odd = sorted(set(classes) ^ set(of_val))
    if odd:
        raise SourceError(f"Only one of train and val has the class {odd[0]!r}.", hint=_LAYOUT)
    strange = [name for name in classes if not re.fullmatch(r"n\d{8}", name)]
    if strange:
        raise SourceError(f"{str(root)!r} has the class {strange[0]!r}, no wnid.", hint=_LAYOUT)
    if len(classes) != CLASSES:
        raise SourceError(
            f"{str(root)!r} has {len(classes)} classes, and ImageNet-1k has {CLASSES}.",
            hint=_LAYOUT,
        )
    return classes


def _images(folder: Path, classes: Sequence[str]) -> list[ImageFile]:
    found = image_files(folder)
    empty = set(classes) - {it.path.partition("/")[0] for it in found}
    if empty:
        raise SourceError(f"The class {str(folder / min(empty))!r} has no image.", hint=_LAYOUT)
    loose = [it.path for it in found if it.path.count("/") != 1]
    if loose:
        raise SourceError(f"{str(folder / loose[0])!r} lies in no class.", hint=_LAYOUT)
    return found


def _list_splits(
    path: Path, ids: Sequence[str], splits: npt.NDArray[np.str_]
) -> npt.NDArray[np.int8]:
    """Return the splits of a task that trains on the images of a list and is judged as usual."""
    places = {name.rpartition("/")[2]: row for row, name in enumerate(ids)}
    own = codes(splits, splits != "train")
    seen: set[int] = set()
    for number, name in read_lines(path):
        row = places.get(name)
        if row is None or splits[row] == "test":
            raise SourceError(
                f"{str(path)!r}, line {number}, names {name!r}, which is no image of train.",
                hint="Give SimCLR's imagenet_subsets/1percent.txt or 10percent.txt.",
            )
        if row in seen:
            raise SourceError(
                f"{str(path)!r}, line {number}, names {name!r} once more.",
                hint="Each image is one line of the list.",
            )
        seen.add(row)
        own[row] = SPLITS.index("train")
    return own


def _subset(classes: Sequence[str], name: str) -> list[int]:
    """Return the places of the 250 classes of a task, sorted."""
    kind, number = name[-2], int(name[-1])
    seed, part = (number, 0) if kind == "s" else (SEEDS[0], number)
    order = hash_order(classes, seed)[SUBSET * part : SUBSET * (part + 1)]
    return sorted(order.tolist())


def _relabel(labels: Labels, own: Sequence[int]) -> Labels:
    """Return labels from 0 to 249 for the rows of the subset, 0 for others."""
    table = np.zeros(CLASSES, np.int64)
    table[list(own)] = np.arange(len(own))
    return table[labels]


def _count_notes(found: Mapping[str, Sequence[ImageFile]]) -> list[str]:
    return [
        f"{part} has {len(images):,} images; the official set has {COUNTS[part]:,}."
        for part, images in found.items()
        if len(images) != COUNTS[part]
    ]


def _list_notes(listed: Mapping[str, npt.NDArray[np.int8]]) -> list[str]:
    counts = {name: int((own == SPLITS.index("train")).sum()) for name, own in listed.items()}
    return [
        f"the list of {name} has {count:,} lines; SimCLR's has {LISTED[name]:,}."
        for name, count in counts.items()
        if count != LISTED[name]
    ]
