"""What a table says to the tasks of its card: classes, labels and numbers, cell by cell."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from layerscope.data.splits import Mask
from layerscope.data.table_card import TableTask, TargetKind
from layerscope.data.tables import Cell, Table
from layerscope.errors import SourceError

_HINT = "Correct the table, or what its card says about the column."
_EMPTY = 'Fill the cell in, or let the task say missing = "leave out".'
_FLAGS = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "false": 0, "true": 1}
"""By word in lower case: what a column of one label says."""
_WHOLE = re.compile(r"-?[0-9]+")


@dataclass(frozen=True, slots=True)
class TableTarget:
    """What a table says to one task of its card."""

    target: npt.NDArray[Any]
    """(n,) classes, (n, k) labels or numbers; -1 or NaN where nothing is known."""
    known: Mask
    """(n,) where the table has a value."""
    classes: tuple[str, ...] = ()


def read_target(table: Table, task: TableTask) -> TableTarget:
    """Return what a table says to a task.

    Raises:
        SourceError: A cell is empty that must not be, or holds what is no answer; the message
            names the line.
        UnknownNameError: The table has no such column.
    """
    return _READERS[task.kind](table, task)


def words_of(table: Table, name: str) -> list[str]:
    """Return a column of which every cell is one word.

    Raises:
        SourceError: A cell is empty, or the column holds numbers with a point, or lists.
        UnknownNameError: The table has no such column.
    """
    cells = _single(table, name)
    for row, cell in enumerate(cells):
        if not cell:
            raise table.wrong(row, f"has no {name}", "Fill the cell in.")
    return cells


def _single(table: Table, name: str) -> list[str]:
    """Return a column of words, some of which may be empty."""
    cells, kind = table.column(name)
    if kind != "words":
        raise SourceError(
            f"The column {name!r} of {str(table.path)!r} holds {kind}, and no words.",
            hint="Write it as text or as whole numbers, or ask another question of it.",
        )
    return [cell for cell in cells if isinstance(cell, str)]


def _require_values(table: Table, task: TableTask, empty: Iterable[bool]) -> Mask:
    """Return the rows that have a value, after it is known whether all need one."""
    known = ~np.fromiter(empty, np.bool_)
    if not task.leave_out and not known.all():
        what = f"has no value in {', '.join(task.columns)}"
        raise table.wrong(int(np.flatnonzero(~known)[0]), what, _EMPTY)
    if not known.any():
        raise SourceError(
            f"{str(table.path)!r} has no value at all in {', '.join(task.columns)}.", hint=_HINT
        )
    return known


def _classes(table: Table, task: TableTask) -> TableTarget:
    words = _single(table, task.columns[0])
    known = _require_values(table, task, (not word for word in words))
    names = task.classes or _sorted({word for word in words if word})
    if len(names) < 2:
        raise SourceError(
            f"The column {task.columns[0]!r} of {str(table.path)!r} has the single class "
            f"{names[0]!r}.",
            hint="There is nothing to tell apart.",
        )
    places = {name: place for place, name in enumerate(names)}
    target = np.full(len(words), -1, np.int64)
    for row in np.flatnonzero(known).tolist():
        target[row] = _place(table, row, words[row], places, task)
    return TableTarget(target, known, names)


def _place(table: Table, row: int, word: str, places: Mapping[str, int], task: TableTask) -> int:
    if word not in places:
        names = ", ".join(places) if len(places) <= 12 else f"{len(places)} that are declared"
        what = f"has {task.columns[0]} {word!r}, which is none of {names}"
        raise table.wrong(row, what, _HINT)
    return places[word]


def _sorted(found: Iterable[str]) -> tuple[str, ...]:
    """Return names in order: as numbers where all are whole numbers, or else as text."""
    words = sorted(found)
    return tuple(sorted(words, key=int) if all(map(_WHOLE.fullmatch, words)) else words)


def _cells(
    table: Table, task: TableTask, read: Callable[[Table, int, str, Cell], float]
) -> tuple[npt.NDArray[np.float64], Mask]:
    """Return the (n, k) numbers of several columns, NaN where nothing is known."""
    columns = [table.column(name).cells for name in task.columns]
    known = _require_values(table, task, (not all(cells) for cells in zip(*columns, strict=True)))
    target = np.full((len(known), len(columns)), np.nan)
    for row in np.flatnonzero(known).tolist():
        for place, (name, cells) in enumerate(zip(task.columns, columns, strict=True)):
            target[row, place] = read(table, row, name, cells[row])
    return target, known


def _flag(table: Table, row: int, column: str, cell: Cell) -> int:
    flag = _FLAGS.get(cell.lower()) if isinstance(cell, str) else None
    if flag is None:
        raise table.wrong(row, f"has {column} {cell!r}, which is not 0 or 1", _HINT)
    return flag


def _labels(table: Table, task: TableTask) -> TableTarget:
    if not task.several:
        return _listed(table, task)
    numbers, known = _cells(table, task, _flag)
    target = np.where(known[:, None], numbers, -1).astype(np.int64)
    return TableTarget(target, known, task.columns)


def _listed(table: Table, task: TableTask) -> TableTarget:
    """Return labels from one column that lists those of a row."""
    cells, kind = table.column(task.columns[0])
    if (kind == "lists") == (task.separator is not None) or kind == "numbers with a point":
        wants = "no separator" if kind == "lists" else "a separator between labels, or columns"
        raise SourceError(
            f"The column {task.columns[0]!r} of {str(table.path)!r} holds {kind}: its task "
            f"{task.key!r} needs {wants}.",
            hint='Such as separator = "|" in the card; a list in Parquet needs none.',
        )
    empty = task.none == ""
    known = _require_values(table, task, (cell == "" and not empty for cell in cells))
    lists = [_parts_of(table, task, row, cell) for row, cell in enumerate(cells)]
    names = task.classes or _sorted({word for words in lists for word in words})
    if not names:
        raise SourceError(
            f"{str(table.path)!r} names no label at all in {task.columns[0]!r}.", hint=_HINT
        )
    places = {name: place for place, name in enumerate(names)}
    target = np.zeros((len(cells), len(names)), np.int64)
    target[~known] = -1
    for row, words in enumerate(lists):
        for word in words:
            target[row, _place(table, row, word, places, task)] = 1
    return TableTarget(target, known, names)


def _parts_of(table: Table, task: TableTask, row: int, cell: Cell) -> tuple[str, ...]:
    """Return the labels of a cell; none for the word that stands for none."""
    if cell in ("", task.none, (task.none,)):
        return ()
    if isinstance(cell, str):
        cell = tuple(word.strip() for word in cell.split(task.separator))
    if "" in cell or task.none in cell:
        what = "an empty label" if "" in cell else f"{task.none!r} beside other labels"
        raise table.wrong(row, f"has {what} in {task.columns[0]}", _HINT)
    return cell


def _numbers(table: Table, task: TableTask) -> TableTarget:
    return TableTarget(*_cells(table, task, _number))


def _number(table: Table, row: int, column: str, cell: Cell) -> float:
    # Python's own literals may have underscores; nobody else's numbers do.
    word = cell if isinstance(cell, str) and "_" not in cell else "a list or a name"
    try:
        value = float(word)
    except ValueError:
        raise table.wrong(row, f"has {column} {cell!r}, which is no number", _HINT) from None
    if not math.isfinite(value):
        raise table.wrong(row, f"has {column} {cell!r}, which is not finite", _HINT)
    return value


_READERS: dict[TargetKind, Callable[[Table, TableTask], TableTarget]] = {
    "classes": _classes,
    "multilabel": _labels,
    "continuous": _numbers,
}
