"""A series of checkpoints: which there are, and what distinguishes each from the others.

Either a pattern of files names them (``runs/epoch_*.pth``), and a file's name may tell its epoch;
or a table does, with a line for each and a column for each of its settings.
"""

from __future__ import annotations

import csv
import glob
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from layerscope.errors import SettingsError
from layerscope.models.cards import card_names
from layerscope.models.checkpoint import LoadedModel
from layerscope.types import Baseline, Setting

CHECKPOINT, NAME, EPOCH = "checkpoint", "name", "epoch"
"""Columns of a table that are no settings, and the setting that a file's name may tell."""

_EPOCH = re.compile(r"(?<![a-z])epoch[-_=. ]?(\d+)", re.IGNORECASE)
_WHOLE = re.compile(r"[+-]?\d+")
_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_COLUMNS = (
    f"Give it the column {CHECKPOINT}, with paths or cards' names, perhaps a column {NAME}, and "
    "one for each setting."
)


@dataclass(frozen=True, slots=True)
class ListedCheckpoint:
    """One checkpoint of a series."""

    checkpoint: str
    """The name of a card, or a path, as :func:`layerscope.models.load` takes it."""
    name: str = ""
    """Under which its numbers are kept; its own where this is empty."""
    settings: Mapping[str, Setting] = field(default_factory=dict)
    """What distinguishes it: ``{"epoch": 12, "lr": 0.3}``."""

    def named(self, model: LoadedModel) -> LoadedModel:
        """Return the checkpoint's network under the name that the series has for it."""
        if not self.name:
            return model
        return replace(model, checkpoint=replace(model.checkpoint, name=self.name))


def listed_checkpoints(words: Sequence[str]) -> tuple[ListedCheckpoint, ...]:
    """Return the checkpoints that a user named, one by one or by patterns.

    Files that a pattern matches come in the order of the numbers in their names. A card beside a
    file of weights that is named as well is the same checkpoint, and counts once.

    Args:
        words: Names and paths; those with ``*``, ``?`` or ``[`` that are no file are patterns.

    Raises:
        SettingsError: A pattern matches no file.
    """
    every = list(dict.fromkeys(word for given in words for word in _match_files(given)))
    weights = {Path(word).with_suffix("") for word in every if not word.endswith(".toml")}
    once = [
        word
        for word in every
        if not (word.endswith(".toml") and Path(word).with_suffix("") in weights)
    ]
    return tuple(ListedCheckpoint(word, settings=_epoch_setting(word)) for word in once)


def read_table(path: Path) -> tuple[ListedCheckpoint, ...]:
    """Return the checkpoints of a table, in its order.

    Paths are relative to the table's folder. A cell that is empty is a setting that the checkpoint
    does not have, and the column ``epoch`` counts before what a file's name tells.

    Args:
        path: A ``.csv`` or ``.tsv`` file with the column ``checkpoint``.

    Raises:
        SettingsError: The table is missing or broken, a checkpoint is not there, or one is listed
            twice.
    """
    lines = list(_read_lines(path))
    if not lines:
        raise SettingsError(f"The table {str(path)!r} lists no checkpoint.", hint=_COLUMNS)
    _require_there(path, lines)
    found = [(number, _listed_checkpoint(path, cells)) for number, cells in lines]
    for what in (CHECKPOINT, NAME):
        _require_once(path, what, [(number, getattr(it, what)) for number, it in found])
    return tuple(member for _, member in found)


def epoch_of(name: str) -> int | None:
    """Return the epoch that a file's name tells; None where it tells none, or several.

    Examples:
        >>> epoch_of("runs/epoch_012.pth"), epoch_of("simclr-epoch-3.safetensors")
        (12, 3)
        >>> epoch_of("resnet50_100epochs.pth"), epoch_of("checkpoint_0007.pth.tar")
        (None, None)
    """
    told = {int(number) for number in _EPOCH.findall(Path(name).name)}
    return told.pop() if len(told) == 1 else None


def _epoch_setting(word: str) -> dict[str, Setting]:
    baseline, _ = Baseline.split(word)
    # A baseline has come no way in the training, whatever its checkpoint is called.
    epoch = epoch_of(word) if baseline is None else None
    return {} if epoch is None else {EPOCH: epoch}


def _match_files(word: str) -> list[str]:
    if not glob.has_magic(word) or "://" in word or Path(word).exists():
        return [word]
    # Not Path.glob, which knows no absolute patterns.
    found = sorted(glob.glob(word, recursive=True), key=_by_number)  # noqa: PTH207
    if not found:
        raise SettingsError(
            f"No file matches {word!r}.", hint="Is the path right? Patterns know *, ?, [] and **."
        )
    return found


def _by_number(name: str) -> list[tuple[int, str]]:
    """Return a key that sorts ``epoch_2`` before ``epoch_10``."""
    return [
        (int(part), "") if part.isdecimal() else (-1, part)
        for part in re.split(r"(\d+)", name)
        if part
    ]


def _read_lines(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the number of each line of a table, and its cells by column."""
    delimiter = _DELIMITERS.get(path.suffix.lower())
    if delimiter is None:
        raise SettingsError(
            f"The table {str(path)!r} is of no known kind.",
            hint=f"Save it as {' or '.join(_DELIMITERS)}.",
        )
    if not path.is_file():
        raise SettingsError(f"There is no table {str(path)!r}.", hint="Is the path right?")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, delimiter=delimiter, strict=True)
            header = [cell.strip() for cell in next(reader, [])]
            _require_header(path, header)
            for cells in reader:
                if any(cell.strip() for cell in cells):
                    yield reader.line_num, _by_column(path, reader.line_num, header, cells)
    except (UnicodeDecodeError, csv.Error) as error:
        raise SettingsError(
            f"The table {str(path)!r} cannot be read: {error}.",
            hint="Save it as UTF-8 text, and close every quotation mark.",
        ) from None


def _require_header(path: Path, header: Sequence[str]) -> None:
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise SettingsError(
            f"The table {str(path)!r} has several columns called {twice[0]!r}.",
            hint="Give each a name of its own.",
        )
    if CHECKPOINT not in header:
        raise SettingsError(
            f"The table {str(path)!r} has the columns {', '.join(header) or '(none)'}.",
            hint=_COLUMNS,
        )


def _by_column(
    path: Path, number: int, header: Sequence[str], cells: Sequence[str]
) -> dict[str, str]:
    if len(cells) != len(header):
        raise _line_error(
            path,
            number,
            f"has {len(cells)} cells for {len(header)} columns",
            "Quote cells that hold the delimiter itself.",
        )
    return {name: cell.strip() for name, cell in zip(header, cells, strict=True)}


def _require_there(path: Path, lines: Sequence[tuple[int, Mapping[str, str]]]) -> None:
    for number, cells in lines:
        if not cells[CHECKPOINT]:
            raise _line_error(path, number, f"names no {CHECKPOINT}", _COLUMNS)
    lost = [(number, it[CHECKPOINT]) for number, it in lines if not _find(path, it[CHECKPOINT])]
    if lost:
        number, word = lost[0]
        more = f"; {len(lost) - 1} more are not there" if len(lost) > 1 else ""
        raise _line_error(
            path,
            number,
            f"names {word!r}, which is neither a file nor a card{more}",
            f"Paths are relative to the table's folder, {str(path.parent)!r}.",
        )


def _find(path: Path, word: str) -> str:
    """Return what a table's cell names, as it is loaded; nothing where it is not there."""
    if "://" in word or word in card_names():
        return word
    beside = path.parent / word
    return str(beside) if beside.exists() else ""


def _listed_checkpoint(path: Path, cells: Mapping[str, str]) -> ListedCheckpoint:
    place = _find(path, cells[CHECKPOINT])
    told = {
        name: _value(cell)
        for name, cell in cells.items()
        if name and cell and name not in (CHECKPOINT, NAME)
    }
    return ListedCheckpoint(place, cells.get(NAME, ""), _epoch_setting(place) | told)


def _value(cell: str) -> Setting:
    """Return a cell as the number that it is, or as the word."""
    if _WHOLE.fullmatch(cell):
        return int(cell)
    try:
        number = float(cell)
    except ValueError:
        return cell
    return number if math.isfinite(number) and "_" not in cell else cell


def _require_once(path: Path, what: str, values: Sequence[tuple[int, str]]) -> None:
    seen: dict[str, int] = {}
    for number, value in values:
        if value and value in seen:
            raise _line_error(
                path,
                number,
                f"repeats the {what} {value!r} of line {seen[value]}",
                "Each line is a checkpoint of its own.",
            )
        seen[value] = number


def _line_error(path: Path, number: int, what: str, hint: str) -> SettingsError:
    return SettingsError(f"{str(path)!r}, line {number}, {what}.", hint=hint)
