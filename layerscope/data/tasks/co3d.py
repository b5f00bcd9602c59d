"""CO3Dv2: frames of videos that walk around one object each, of 51 everyday kinds.

The folder holds ``<category>/<sequence>/images/<frame>.jpg``, and in each category
``sequence_annotations.jgz`` and ``set_lists/set_lists_fewview_dev.json``, as the downloader of
facebookresearch/co3d unpacks them; categories may be left out. The lists name every frame with its
path, so the large ``frame_annotations.jgz`` is not read.

The question is the category. The frames of one sequence show one object, so a sequence is a group
and in one split only. Of the official lists, those of the few-view task on the ``dev`` sequences
are used: their training frames train (10 % of the sequences of each category validate) and their
test frames, which are of other sequences, test. The other lists hold no usable test sequences.
``fewview_train`` tests on frames of its training sequences; the lists of the many-view task hold
one sequence each; and the target frames of the ``test`` sequences are published black, because the
challenge kept them secret. Should a list train on frames of a sequence that it also tests on, those
frames are left out, and a note says how many there are. The download of single sequences has no
such list and cannot be used.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from layerscope.data.annotations import broken_json, entry, read_json
from layerscope.data.assembly import assemble
from layerscope.data.class_task import class_task
from layerscope.data.listing import require_folder, subfolders
from layerscope.data.sources import sources, tasks
from layerscope.data.splits import carve_val
from layerscope.errors import SourceError
from layerscope.types import Source

CATEGORIES = 51
VAL_SHARE = 0.1

TASK = class_task(
    "co3d",
    "CO3D",
    "the test sequences of set_lists_fewview_dev.json test; 10 % of its training sequences "
    "validate",
    class_count=CATEGORIES,
    licence="CC BY-NC 4.0",
    citation="Reizenstein et al. (2021), Common Objects in 3D",
)
tasks.add(TASK.name, TASK)

SEQUENCES = "sequence_annotations.jgz"
FRAMES = "set_lists/set_lists_fewview_dev.json"
_LAYOUT = (
    "It holds <category>/<sequence>/images/, <category>/sequence_annotations.jgz and "
    f"<category>/{FRAMES}, as the downloader of facebookresearch/co3d unpacks the full set."
)


class _Frame(NamedTuple):
    """One line of a list."""

    sequence: str
    """Its name behind that of its category: ``apple/110_13051_23361``."""
    path: str


@dataclass(frozen=True, slots=True)
class _Category:
    """The frames of one category that are rows."""

    train: tuple[_Frame, ...]
    test: tuple[_Frame, ...]
    left_out: int
    """Training frames of sequences that also test."""


@sources.register(TASK.source)
def open_co3d(root: Path) -> Source:
    """Return the record of CO3Dv2.

    Rows come by category in alphabetical order, and in it as the list has them: what trains, then
    what tests.

    Raises:
        SourceError: A file is missing, no gzipped JSON or incomplete, or contradicts another.
    """
    require_folder(root, hint=_LAYOUT)
    names = tuple(it for it in subfolders(root) if not it.startswith("_"))  # as _in_progress
    if not names:
        raise SourceError(f"{str(root)!r} holds no category.", hint=_LAYOUT)
    found = [_category(root, name) for name in names]
    parts = [part for it in found for part in (it.train, it.test)]
    sizes = [len(part) for part in parts]
    labels = np.repeat(np.arange(len(names)).repeat(2), sizes)
    trains = np.repeat(np.arange(len(parts)) % 2 == 0, sizes)
    sequences = [it.sequence for part in parts for it in part]
    groups = np.array(sequences)
    return assemble(
        TASK.source,
        root,
        [it.path for part in parts for it in part],
        carve_val(trains, sequences, labels, share=VAL_SHARE, groups=groups),
        {replace(TASK, classes=names): labels},
        groups=groups,
        notes=tuple(_notes(names, found)),
    )


def _notes(names: Sequence[str], found: Sequence[_Category]) -> Iterator[str]:
    if len(names) != CATEGORIES:
        yield f"{len(names)} of the {CATEGORIES} categories are here."
    left_out = sum(it.left_out for it in found)
    if left_out:
        yield f"{left_out:,} training frames are left out, because their sequences also test."
    untested = [name for name, it in zip(names, found, strict=True) if not it.test]
    if untested:
        yield f"No sequence tests the categories {', '.join(untested)}."


def _category(root: Path, name: str) -> _Category:
    require_folder(root / name, SEQUENCES, FRAMES, hint=_LAYOUT)
    known = {it: f"{name}/{it}" for it in _sequences(root / name / SEQUENCES, name)}
    path = root / name / FRAMES
    contents = read_json(path)
    train, test = (_frames(contents, part, known, path) for part in ("train", "test"))
    tested = {it.sequence for it in test}
    kept = tuple(it for it in train if it.sequence not in tested)
    return _Category(kept, test, len(train) - len(kept))


def _sequences(path: Path, category: str) -> Iterator[str]:
    """Yield the names of the sequences of a category, which each must say that it is of it."""
    for place, record in enumerate(_read_gzipped(path)):
        sequence = entry(record, "sequence_name", str, path, f"sequence {place}")
        named = entry(record, "category", str, path, f"sequence {place}")
        if named != category:
            raise SourceError(
                f"{str(path)!r} says that {sequence!r} is of the category {named!r}.",
                hint="The folder of a category has its name.",
            )
        yield sequence


def _read_gzipped(path: Path) -> list[Any]:
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            contents = json.load(file)
    except json.JSONDecodeError as error:
        raise broken_json(path, error) from None
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise SourceError(f"{str(path)!r} cannot be unzipped: {error}.", hint=_LAYOUT) from error
    if not isinstance(contents, list):
        raise SourceError(f"{str(path)!r} is no list of sequences.", hint=_LAYOUT)
    return contents


def _frames(contents: Any, part: str, known: Mapping[str, str], path: Path) -> tuple[_Frame, ...]:
    lines = entry(contents, part, list, path, "at its top")
    for place, line in enumerate(lines):
        wrong = _fault_of(line, known)
        if wrong:
            raise SourceError(f"{str(path)!r}, frame {place} of {part!r}, {wrong}.", hint=_LAYOUT)
    return tuple(_Frame(known[sequence], image) for sequence, _, image in lines)


def _fault_of(line: Any, known: Mapping[str, str]) -> str:
    """Return what is wrong with one line of a list; nothing for a right one."""
    if not isinstance(line, list) or [type(it) for it in line] != [str, int, str]:
        return f"is {line!r}, not a sequence, a number and a path"
    sequence, _, image = line
    if sequence not in known:
        return f"is of the sequence {sequence!r}, which {SEQUENCES} lacks"
    if not image.startswith(f"{known[sequence]}/images/"):
        return f"has the path {image!r}, not {known[sequence]}/images/"
    return ""
