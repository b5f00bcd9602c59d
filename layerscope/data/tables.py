"""Tables as people keep them: CSV, TSV and Parquet, read column by column into words.

A cell is the word that a CSV file would have for it, whatever it came from, so that one code checks
both kinds of file and names the line (of text) or the row (of Parquet) where something is wrong.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from layerscope.data.annotations import csv_lines, first_line
from layerscope.errors import SourceError, UnknownNameError

DELIMITERS = {".csv": ",", ".tsv": "\t", ".tab": "\t"}
"""By suffix, of tables that are text."""
PARQUET = (".parquet", ".pq")
SUFFIXES = (*DELIMITERS, *PARQUET)

_RAGGED = "Quote cells that hold the delimiter itself, or say another in the card's delimiter."

Cell = str | tuple[str, ...]
"""A word, or several where Parquet has lists; ``""`` where there is nothing."""


class Column(NamedTuple):
    """The cells of one column."""

    cells: Sequence[Cell]
    """(n,) without white space at either end."""
    kind: Literal["words", "numbers with a point", "lists"]
    """What the file holds them as; a text file holds words alone."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table whose columns are read when they are asked for."""

    path: Path
    columns: tuple[str, ...]
    """Their names, in the file's order."""
    numbers: Sequence[int]
    """(n,) of the lines or rows, from 1; a text file's header is its first line."""
    unit: Literal["line", "row"]
    """What the numbers count."""
    read: Callable[[str], Column]
    """Returns the column of a name that is there."""

    def column(self, name: str) -> Column:
        """Return a column by its name.

        Raises:
            UnknownNameError: There is none of this name.
            SourceError: It holds what no word stands for.
        """
        if name not in self.columns:
            raise UnknownNameError("column", name, self.columns)
        return self.read(name)

    def wrong(self, row: int, what: str, hint: str) -> SourceError:
        """Return the error for a row, from 0; ``what`` ends its sentence: ``has no split``."""
        return SourceError(
            f"{str(self.path)!r}, {self.unit} {self.numbers[row]}, {what}.", hint=hint
        )


def open_table(path: Path, delimiter: str | None = None) -> Table:
    """Return a table, whose kind its suffix tells, and by default the delimiter of its cells.

    Raises:
        SourceError: The file is missing, of no known kind, broken, empty, or has a column twice.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise SourceError(
            f"{str(path)!r} is no table of a known kind.", hint=f"Known: {', '.join(SUFFIXES)}."
        )
    if not path.is_file():
        raise SourceError(f"There is no file {str(path)!r}.", hint="Is the path in the card right?")
    own = DELIMITERS.get(suffix, "")
    table = _parquet(path) if suffix in PARQUET else _text(path, delimiter or own)
    if not table.numbers:
        raise SourceError(f"{str(path)!r} lists no image.", hint="It holds one row for each.")
    return table


def _text(path: Path, delimiter: str) -> Table:
    lines: list[list[str]] = []
    numbers: list[int] = []
    for number, cells in csv_lines(path, delimiter):
        lines.append([cell.strip() for cell in cells])
        numbers.append(number)
    header = tuple(lines[0]) if lines else ()
    places = {name: place for place, name in enumerate(header)}

    def read(name: str) -> Column:
        place = places[name]
        return Column([line[place] for line in lines], "words")

    table = Table(path, header, numbers[1:], "line", read)
    _require_header(table)
    del lines[0]
    for row, line in enumerate(lines):
        if len(line) != len(header):
            what = f"has {len(line)} cells for {len(header)} columns"
            raise table.wrong(row, what, _RAGGED)
    return table


def _require_header(table: Table) -> None:
    if not table.columns:
        raise SourceError(
            f"{str(table.path)!r} is empty.", hint="Its first line holds the names of its columns."
        )
    name, count = Counter(filter(None, table.columns)).most_common(1)[0]
    if count > 1:
        raise SourceError(
            f"{str(table.path)!r} has {count} columns called {name!r}.", hint="Rename all but one."
        )


def _parquet(path: Path) -> Table:
    # Here, so that a table of text does not load it.
    import pyarrow
    from pyarrow import parquet

    def read(name: str) -> Column:
        with parquet.ParquetFile(path) as file:
            return _words(path, name, file.read(columns=[name]).column(name), pyarrow.types)

    try:
        with parquet.ParquetFile(path) as file:
            columns, rows = tuple(file.schema_arrow.names), file.metadata.num_rows
    except (pyarrow.ArrowException, OSError) as error:
        raise SourceError(
            f"{str(path)!r} is no Parquet file: {first_line(error)}.",
            hint="Write the table again.",
        ) from error
    table = Table(path, columns, range(1, rows + 1), "row", read)
    _require_header(table)
    return table


def _words(path: Path, name: str, column: Any, types: Any) -> Column:
    """Return the words of a Parquet column; of a dictionary's, what its codes stand for."""
    kind = column.type
    if types.is_dictionary(kind):
        return _words(path, name, column.cast(kind.value_type), types)
    if types.is_list(kind) or types.is_large_list(kind):
        cells = column.to_pylist()
        word = _word_of(path, name, kind.value_type, types)
        return Column([_list(it, word) for it in cells], "lists")
    word = _word_of(path, name, kind, types)
    cells = ["" if it is None else word(it) for it in column.to_pylist()]
    return Column(cells, "numbers with a point" if types.is_floating(kind) else "words")


def _list(cell: Iterable[Any] | None, word: Callable[[Any], str]) -> Cell:
    return "" if cell is None else tuple("" if it is None else word(it) for it in cell)


def _word_of(path: Path, name: str, kind: Any, types: Any) -> Callable[[Any], str]:
    if types.is_dictionary(kind):
        kind = kind.value_type
    if types.is_floating(kind):
        return lambda value: repr(float(value))
    if types.is_integer(kind) or types.is_boolean(kind) or types.is_null(kind):
        return str
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        return str.strip
    raise SourceError(
        f"The column {name!r} of {str(path)!r} is of the type {kind}.",
        hint="Text, numbers, booleans and lists of them can be read; write the column as one.",
    )
