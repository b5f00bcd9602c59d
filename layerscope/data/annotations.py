"""Annotation files as people publish them: JSON, CSV and lists; what is missing is named."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from layerscope.errors import SourceError

T = TypeVar("T")

_AGAIN = "Download the annotations again, or compare them with the layout in docs/tasks.md."


def read_text(path: Path) -> str:
    """Return the text of an annotation file.

    Raises:
        SourceError: It is missing or no UTF-8 text.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise SourceError(f"There is no file {str(path)!r}.", hint=_AGAIN) from None
    except UnicodeDecodeError as error:
        raise SourceError(
            f"{str(path)!r} is not UTF-8 text: {error.reason}.", hint=_AGAIN
        ) from None


def read_lines(path: Path) -> list[tuple[int, str]]:
    """Return the lines of a list that hold something, each with its number.

    Raises:
        SourceError: The file is missing, no text, or empty.
    """
    lines = [
        (number, line.strip())
        for number, line in enumerate(read_text(path).splitlines(), start=1)
        if line.strip()
    ]
    if not lines:
        raise SourceError(f"{str(path)!r} is empty.", hint=_AGAIN)
    return lines


def csv_lines(path: Path, delimiter: str = ",") -> Iterator[tuple[int, list[str]]]:
    """Yield the cells of every line of a CSV file that is not empty, with the line's number from 1.

    Raises:
        SourceError: The file is no UTF-8 text, or a quotation mark is where none can be.
    """
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        number = 1
        try:
            for cells in reader:
                if cells:
                    yield number, cells
                number = reader.line_num + 1
        except UnicodeDecodeError as error:
            raise SourceError(
                f"{str(path)!r} is not UTF-8 text: {error.reason}.", hint="Save it as UTF-8."
            ) from None
        except csv.Error as error:
            raise SourceError(
                f"{str(path)!r}, line {number}, is broken: {error}.",
                hint="Look for a quotation mark that is not closed, or doubled where it must be.",
            ) from None


def read_json(path: Path) -> Any:
    """Return the contents of a JSON file.

    Raises:
        SourceError: It is missing or no JSON.
    """
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise broken_json(path, error) from None


def json_records(path: Path, key: str) -> Iterator[Mapping[str, Any]]:
    """Yield the objects of the list that is one field of a JSON file, never holding them all.

    A file of CLEVR's scenes is a fifth of a gigabyte as text, and several as objects.

    Raises:
        SourceError: The file is missing, no JSON, or has no such list of objects.
    """
    text, decoder = read_text(path), json.JSONDecoder()
    place = _list_behind(text, key, path)
    try:
        while text[place] != "]":
            record, place = decoder.raw_decode(text, place)
            if not isinstance(record, dict):
                raise _no_list(path, key)
            yield record
            place = _next(text, place)
    except json.JSONDecodeError as error:
        raise broken_json(path, error) from None
    except IndexError:
        raise SourceError(f"{str(path)!r} breaks off within {key!r}.", hint=_AGAIN) from None


def _list_behind(text: str, key: str, path: Path) -> int:
    start = text.find(f'"{key}"')
    place = text.find("[", start)
    if start < 0 or place < 0 or text[start + len(key) + 2 : place].strip() != ":":
        raise _no_list(path, key)
    return _skip_white(text, place + 1)


def _next(text: str, place: int) -> int:
    place = _skip_white(text, place)
    return _skip_white(text, place + 1) if text[place] == "," else place


def _skip_white(text: str, place: int) -> int:
    while place < len(text) and text[place] in " \t\r\n":
        place += 1
    return place


def broken_json(path: Path, error: json.JSONDecodeError) -> SourceError:
    """Return the error for a file that is no JSON."""
    return SourceError(
        f"{str(path)!r} is not JSON: {error.msg} in line {error.lineno}.", hint=_AGAIN
    )


def first_line(error: Exception) -> str:
    """Return the beginning of what a library complains about."""
    return str(error).split("\n", 1)[0].rstrip(".") or type(error).__name__


def _no_list(path: Path, key: str) -> SourceError:
    return SourceError(f"{str(path)!r} has no list {key!r} of objects.", hint=_AGAIN)


def entry(record: Any, key: str, kind: type[T], path: Path, where: str) -> T:
    """Return one field of an annotation.

    Args:
        record: The annotation, which should be an object.
        key: The field.
        kind: Its type; a whole number may stand for a float.
        path: The file, for the message.
        where: Which annotation, for the message: ``image 17``.

    Raises:
        SourceError: The field is missing or of another type.
    """
    value = record.get(key) if isinstance(record, Mapping) else None
    if isinstance(value, bool) and kind is not bool:
        value = None
    if kind is float and isinstance(value, int):
        return kind(value)  # type: ignore[call-arg]  # float of an int
    if not isinstance(value, kind):
        what = "has no" if value is None else f"has {value!r} as its"
        raise SourceError(f"{str(path)!r}, {where}, {what} {key!r}.", hint=_AGAIN)
    return value
