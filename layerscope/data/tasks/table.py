"""A table of your own: images with classes, labels and measurements, and a card that explains it.

The path is a card in TOML, which lies beside a CSV, TSV or Parquet table and says what its columns
are. Nothing is guessed that it does not say:

    table = "labels.csv"      # relative to the card
    image = "path"            # the column with the paths of the images
    root = "images"           # what those are relative to; the card's own folder by default
    split = "split"           # a column of train, val and test; made up, by seed 0, without it
    group = "patient"         # a column; rows of one group are never in two splits

    [tasks.grade]             # becomes the task table-grade
    kind = "classes"          # one class a row, from the column of that name
    classes = ["low", "high"] # in this order; all that occur, sorted, by default

    [tasks.findings]
    kind = "multilabel"       # any number of labels a row
    separator = "|"           # or columns = ["edema", "mass"], each of 0 and 1
    none = "normal"           # the word for no label, where there is one

    [tasks.age]
    kind = "continuous"       # a number; several with columns = ["x", "y"]
    column = "age_years"      # where the column is not called like the task
    unit = "years"
    missing = "leave out"     # rows without a value are no rows of this task

    [tasks.heading]
    kind = "continuous"
    period = 360.0            # a full turn: 359 and 1 are neighbours
    unit = "deg"

Besides, ``name`` tells several tables apart (``name = "mine"`` makes ``mine-grade``), ``delimiter``
is what separates the cells of a CSV file that is no comma, ``framing = "whole"`` resizes images
without cropping them, for questions about where something is, and a task may have a ``title``. A
table whose split column lacks ``test`` or ``val`` is treated as a folder of images is. An empty
cell is an error unless its task leaves the row out.
"""

from __future__ import annotations

import posixpath
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from layerscope.data.assembly import assemble, require_task_splits
from layerscope.data.listing import require_folder
from layerscope.data.official import assign_splits, split_named
from layerscope.data.source_names import own_name
from layerscope.data.sources import sources
from layerscope.data.splits import codes
from layerscope.data.table_card import TableCard, TableTask, read_card
from layerscope.data.table_targets import TableTarget, read_target, words_of
from layerscope.data.tables import Table
from layerscope.data.tables import open_table as read_table
from layerscope.types import Encoding, Source, Task

NAME = "table"


@sources.register(NAME)
def open_table(path: Path) -> Source:
    """Return the record of the images in the table that a card explains.

    Rows come in the table's order.

    Raises:
        SourceError: The card or the table is missing, incomplete or contradicts itself; the message
            names the file and the line.
        UnknownNameError: The table has no column of a name that the card gives.
    """
    card = read_card(path)
    name = own_name(card.name, NAME)
    table = read_table(card.table, card.delimiter)
    require_folder(card.root, hint="The card's root is what the paths of the images start from.")
    ids = _ids(table, card)
    found = {asked: read_target(table, asked) for asked in card.tasks}
    parts, groups = _parts(table, card.split), _groups(table, card.group)
    classes = next((it.target for it in found.values() if it.target.ndim == 1), None)
    assignment = assign_splits(parts, ids, classes, card.table, groups)
    targets: dict[Task, npt.NDArray[Any]] = {}
    own: dict[str, npt.NDArray[np.int8]] = {}
    notes = list(assignment.notes)
    for asked, it in found.items():
        task = _task(name, asked, it, assignment.rule)
        targets[task] = it.target
        if not it.known.all():
            own[task.name] = codes(assignment.splits, it.known)
            gone = int((~it.known).sum())
            notes.append(f"{task.name} leaves out {gone:,} of {len(ids):,} images without a value")
    require_task_splits(card.table, own)
    return assemble(
        name,
        card.root,
        ids,
        assignment.splits,
        targets,
        groups=groups,
        framing=card.framing,
        task_splits=own,
        notes=notes,
    )


def _task(name: str, asked: TableTask, found: TableTarget, rule: str) -> Task:
    classes = asked.kind == "classes"
    encoding: Encoding = "raw" if asked.period is None else "circular"
    return Task(
        name=f"{name}-{asked.key}",
        source=name,
        kind="latents" if asked.kind == "continuous" else asked.kind,
        metric="top-1" if classes else "mse",
        direction="maximise" if classes else "minimise",
        title=asked.title,
        encoding=encoding if asked.kind == "continuous" else None,
        period=asked.period,
        unit=asked.unit,
        classes=found.classes,
        split=rule if found.known.all() else f"{rule}; images without a value are left out",
    )


def _ids(table: Table, card: TableCard) -> list[str]:
    """Return the paths of the images relative to their root, each of which is there once."""
    ids: dict[str, int] = {}
    for row, cell in enumerate(words_of(table, card.image)):
        name = _relative(cell, card.root)
        if name is None:
            what = f"has the path {cell!r}, which is not below {str(card.root)!r}"
            raise table.wrong(row, what, "Write paths relative to the card's root.")
        first = ids.setdefault(name, row)
        if first != row:
            what = f"repeats the path {cell!r} of {table.unit} {table.numbers[first]}"
            raise table.wrong(row, what, "Each image is one row; two labels cannot both be right.")
    return list(ids)


def _relative(cell: str, root: Path) -> str | None:
    path = PurePosixPath(cell)
    if not path.is_absolute():
        return posixpath.normpath(cell)
    for base in (root.absolute(), root.resolve()):
        if path.is_relative_to(base):
            return str(path.relative_to(base))
    return None


def _parts(table: Table, column: str | None) -> npt.NDArray[np.str_] | None:
    if column is None:
        return None
    words = words_of(table, column)
    splits = [split_named(word) for word in words]
    for row, split in enumerate(splits):
        if split is None:
            what = f"has the split {words[row]!r}, not train, val (or validation, valid) or test"
            raise table.wrong(
                row, what, "Write one of these words, or leave split out of the card."
            )
    return np.array(splits, np.str_)


def _groups(table: Table, column: str | None) -> npt.NDArray[np.str_] | None:
    return None if column is None else np.array(words_of(table, column), np.str_)
