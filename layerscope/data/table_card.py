"""The card that explains a table: which column holds what, in TOML."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, cast, get_args

from layerscope.data.source_names import require_plain
from layerscope.data.tables import PARQUET, SUFFIXES
from layerscope.errors import SourceError
from layerscope.types import Framing

T = TypeVar("T")
TargetKind = Literal["classes", "multilabel", "continuous"]

_EXAMPLE = (
    'The path is a card in TOML: table = "labels.csv", image = "path", and for each task '
    '[tasks.grade] with kind = "classes", "multilabel" or "continuous"; see docs/tasks.md.'
)
_WORDS: dict[type, str] = {str: "text", float: "a number", list: "a list", dict: "a section"}
_TOP = ("table", "image", "root", "split", "group", "name", "delimiter", "framing", "tasks")
_OF_ALL = ("kind", "column", "missing", "title")
_OF_KIND: dict[str, tuple[str, ...]] = {
    "classes": (*_OF_ALL, "classes"),
    "multilabel": (*_OF_ALL, "columns", "separator", "classes", "none"),
    "continuous": (*_OF_ALL, "columns", "unit", "period"),
}


@dataclass(frozen=True, slots=True)
class TableTask:
    """One task of a card."""

    key: str
    """The name of its section: ``grade`` for ``[tasks.grade]``."""
    kind: TargetKind
    columns: tuple[str, ...]
    title: str
    several: bool = False
    """Whether the card names its columns by ``columns``."""
    classes: tuple[str, ...] = ()
    """As declared; empty for those that occur."""
    separator: str | None = None
    none: str | None = None
    """The word for no label."""
    unit: str = ""
    period: float | None = None
    leave_out: bool = False
    """Whether rows without a value are left out of the task."""


@dataclass(frozen=True, slots=True)
class TableCard:
    """What a card says, with paths as they are from here."""

    path: Path
    table: Path
    root: Path
    """What the paths of the images are relative to."""
    image: str
    split: str | None
    group: str | None
    name: str | None
    delimiter: str | None
    framing: Framing
    tasks: tuple[TableTask, ...]


class _Section:
    """A part of a card, whose values are of the type that they must be."""

    def __init__(self, values: Mapping[str, Any], title: str) -> None:
        self._values = values
        self.title = title

    def require_known(self, known: Collection[str]) -> None:
        for key in self._values:
            if key not in known:
                raise self.wrong(f"has a key {key!r}", f"Known there: {', '.join(known)}.")

    def get(self, key: str, kind: type[T]) -> T | None:
        value = self._values.get(key)
        if kind is float and type(value) is int:
            value = float(value)
        if value is not None and type(value) is not kind:
            raise self.wrong(f"has {key} = {value!r}, which is not {_WORDS[kind]}", _EXAMPLE)
        if value == "" and key != "none":
            raise self.wrong(f"has an empty {key}", "Leave the key out, or give it a value.")
        return value

    def need(self, key: str, kind: type[T]) -> T:
        value = self.get(key, kind)
        if value is None:
            raise self.wrong(f"has no {key}", _EXAMPLE)
        return value

    def one_of(self, key: str, choices: Collection[str]) -> str | None:
        value = self.get(key, str)
        if value is not None and value not in choices:
            raise self.wrong(f"has {key} = {value!r}", f"Known: {', '.join(choices)}.")
        return value

    def names(self, key: str) -> tuple[str, ...]:
        """Return a list of words, each there once; whole numbers stand for themselves."""
        values = self.get(key, list)
        if values is None:
            return ()
        words = tuple(str(it).strip() for it in values if type(it) in (str, int))
        if len(words) < len(values) or not all(words) or not words:
            raise self.wrong(
                f"has {key} = {values!r}", "List words in quotation marks, or numbers."
            )
        if len(set(words)) < len(words):
            twice = next(word for word in words if words.count(word) > 1)
            raise self.wrong(f"lists {twice!r} twice in {key}", "List each once.")
        return words

    def wrong(self, what: str, hint: str) -> SourceError:
        return SourceError(f"{self.title} {what}.", hint=hint)


def read_card(path: Path) -> TableCard:
    """Return what a card says.

    Raises:
        SourceError: It is missing, a table itself, no TOML, or says too little, too much, or
            something that contradicts itself.
    """
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "is not there"
        raise SourceError(f"The card {str(path)!r} {what}.", hint=_EXAMPLE)
    if path.suffix.lower() in SUFFIXES:
        raise SourceError(
            f"{str(path)!r} is a table and does not say what its columns are.", hint=_EXAMPLE
        )
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SourceError(f"{str(path)!r} is not TOML: {error}.", hint=_EXAMPLE) from error
    top = _Section(values, repr(str(path)))
    top.require_known(_TOP)
    table = path.parent / top.need("table", str)
    delimiter = top.get("delimiter", str)
    if delimiter is not None and (len(delimiter) > 1 or table.suffix.lower() in PARQUET):
        raise top.wrong(
            f"has delimiter = {delimiter!r}", "It is one character, and for text alone."
        )
    framing = top.one_of("framing", get_args(Framing))
    return TableCard(
        path=path,
        table=table,
        root=path.parent / (top.get("root", str) or ""),
        image=top.need("image", str),
        split=top.get("split", str),
        group=top.get("group", str),
        name=top.get("name", str),
        delimiter=delimiter,
        framing=cast("Framing", framing or "checkpoint"),
        tasks=_tasks(top),
    )


def _tasks(top: _Section) -> tuple[TableTask, ...]:
    sections = top.need("tasks", dict)
    if not sections:
        raise top.wrong("asks nothing: [tasks] is empty", _EXAMPLE)
    return tuple(
        _task(key, values, f"[tasks.{key}] of {top.title}") for key, values in sections.items()
    )


def _task(key: str, values: Any, title: str) -> TableTask:
    require_plain(key)
    if not isinstance(values, dict):
        raise SourceError(f"{title} is {values!r}, and no section.", hint=_EXAMPLE)
    section = _Section(values, title)
    kind = section.one_of("kind", _OF_KIND)
    if kind is None:
        raise section.wrong("has no kind", _EXAMPLE)
    section.require_known(_OF_KIND[kind])
    column, columns = section.get("column", str), section.names("columns")
    if column and columns:
        raise section.wrong("has column and columns", "Give one of them.")
    task = TableTask(
        key=key,
        kind=cast("TargetKind", kind),
        columns=columns or (column or key,),
        title=section.get("title", str) or key,
        several=bool(columns),
        classes=section.names("classes"),
        separator=section.get("separator", str),
        none=section.get("none", str),
        unit=section.get("unit", str) or "",
        period=section.get("period", float),
        leave_out=section.one_of("missing", ("leave out",)) is not None,
    )
    _require_sense(task, section)
    return task


def _require_sense(task: TableTask, section: _Section) -> None:
    if task.period is not None and not (0 < task.period < math.inf):
        what = f"has period = {task.period}"
        raise section.wrong(what, "It is the length of a full turn, and more than 0.")
    words = task.separator, task.none, task.classes or None
    if task.several and task.kind == "multilabel" and any(it is not None for it in words):
        raise section.wrong(
            "has columns, and what is for a single column of labels",
            "With columns, each is the label of its name; leave out separator, none and classes.",
        )
    if task.none is not None and task.none in task.classes:
        raise section.wrong(f"has none = {task.none!r} among its classes", "It is no label.")
