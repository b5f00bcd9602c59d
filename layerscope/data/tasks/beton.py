"""FFCV's ``.beton`` files as people have them: images and their classes.

Give one file, of which 60, 20 and 20 % then train, validate and test, or a folder:

    root/train.beton
    root/val.beton      (or validation, valid)
    root/test.beton

Without ``test.beton`` it is ``val.beton`` that tests, and 10 % of ``train.beton`` validate. The
images are those of the first ``RGBImageField``, the classes the numbers of the ``IntField`` that is
called ``label``. Files that ``layerscope pack`` wrote bring their own source along and are opened
by its name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from layerscope.data.assembly import assemble
from layerscope.data.betons.beton import Beton
from layerscope.data.betons.images import BetonImages
from layerscope.data.betons.sidecar import read_sidecar, sidecar_of
from layerscope.data.class_task import class_task
from layerscope.data.official import RULE, assign_splits, left_out_note, official_splits
from layerscope.data.source_names import own_name
from layerscope.data.sources import sources, tasks
from layerscope.data.splits import Labels
from layerscope.errors import SourceError
from layerscope.types import SPLITS, Source

TASK = class_task("beton", "Class", RULE)
tasks.add(TASK.name, TASK)

MOST_CLASSES = 1_000_000
"""A label beyond is the number of something else, a row or a checksum."""

_LAYOUT = "Give a .beton file, or a folder with train.beton and val.beton."


@sources.register(TASK.source)
def open_beton_source(
    root: Path, *, image: str | None = None, label: str = "label", name: str | None = None
) -> Source:
    """Return the record of one ``.beton`` file, or of a folder of them.

    Rows come in the order of the files: train, val, test.

    Args:
        root: The file, or the folder with ``train.beton``, ``val.beton`` and ``test.beton``.
        image: The field with the images; by default the first ``RGBImageField``.
        label: The ``IntField`` with the classes, numbered from 0.
        name: What to call the source and its task, so that several sets can be told apart.

    Raises:
        SourceError: A file is damaged or was packed by LayerScope, or a field is missing.
    """
    called = own_name(name, TASK.source)
    paths, notes = _files(root)
    betons = {split: _open(path, image) for split, path in paths.items()}
    labels = np.concatenate([_labels(beton, label) for beton in betons.values()])
    ids = [
        f"{split}/{row:08d}" if split else f"{row:08d}"
        for split, beton in betons.items()
        for row in range(beton.samples)
    ]
    lengths = [beton.samples for beton in betons.values()]
    parts = None if "" in betons else np.repeat(list(betons), lengths)
    assignment = assign_splits(parts, ids, labels, root)
    classes = tuple(map(str, range(int(labels.max()) + 1)))
    task = replace(TASK, name=called, source=called, classes=classes, split=assignment.rule)
    source = assemble(
        called,
        root,
        ids,
        assignment.splits,
        {task: labels},
        images=BetonImages.whole(*betons.values()),
        notes=(*assignment.notes, *notes),
    )
    identities = "".join(f"{beton.identity}\n" for beton in betons.values())
    return replace(source, manifest=hashlib.sha256(identities.encode()).hexdigest())


def _files(root: Path) -> tuple[Mapping[str, Path], Sequence[str]]:
    """Return the file of each split, or the only file under ``""``; and notes on the rest."""
    if not root.is_dir():
        return {"": root}, ()
    found = {path.stem: path for path in sorted(root.glob("*.beton"))}
    named = official_splits(found, root)
    if not named:
        what = f"{len(found)} .beton files and none is called train" if found else "no .beton file"
        raise SourceError(f"The folder {str(root)!r} holds {what}.", hint=_LAYOUT)
    paths: dict[str, Path] = {split: found[stem] for stem, split in named.items()}
    others = [found[stem].name for stem in found if stem not in named]
    return {it: paths[it] for it in SPLITS if it in paths}, left_out_note(others, "files")


def _open(path: Path, image: str | None) -> Beton:
    beton = Beton(path, image)
    if sidecar_of(path).exists():
        name = read_sidecar(path).source.name
        raise SourceError(
            f"{str(path)!r} is {name} as layerscope pack wrote it.",
            hint=f"Write --data {name}={path}.",
        )
    return beton


def _labels(beton: Beton, field: str) -> Labels:
    if field not in beton.integers:
        known = ", ".join(beton.integers) or "none"
        raise SourceError(
            f"{str(beton.path)!r} has no IntField called {field!r}; it has {known}.",
            hint="Name the one with the classes: --data beton=PATH,label=NAME.",
        )
    labels = beton.integer(field)
    wrong = np.flatnonzero((labels < 0) | (labels >= MOST_CLASSES))
    if len(wrong):
        row = int(wrong[0])
        raise SourceError(
            f"{str(beton.path)!r}, row {row}, has {labels[row]} as its {field!r}, which numbers no "
            "class.",
            hint="Name the field with the classes: --data beton=PATH,label=NAME.",
        )
    return labels
