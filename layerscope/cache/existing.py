"""What is there already, and what may be done with it: keep, go on, replace or refuse."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np

from layerscope.cache.fingerprint import ANNOTATIONS, differences
from layerscope.cache.header import Header
from layerscope.cache.layout import ATTRIBUTES, OLDER, ROW_VALID, SCHEMA, part_of
from layerscope.errors import CacheError
from layerscope.nouns import Existing

Status = Literal["new", "part", "there"]


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a cache has come."""

    status: Status
    """Nothing of use is there; the first rows are; all of it is."""
    rows_done: int = 0
    stale: bool = False
    """Whether a part without a row of use is in the way of a new one."""
    skipped: tuple[int, ...] = ()
    """Rows among them whose image could not be read."""
    outdated: bool = False
    """Whether the features are those asked for, beside other splits, groups or targets."""


@dataclass(frozen=True, slots=True)
class _Found:
    ingredients: Mapping[str, Any]
    complete: bool
    rows_done: int
    skipped: tuple[int, ...]


_Look = _Found | Literal["nothing", "unreadable", "foreign", "older"]


def standing(path: Path, header: Header, existing: Existing) -> Standing:
    """Return how far the cache at ``path`` has come, and refuse what must not be touched.

    Args:
        path: Where the finished cache belongs.
        header: What is about to be written.
        existing: What to do with a file that is there.

    Raises:
        CacheError: Something else is there, or another process is writing it.
    """
    part = part_of(path)
    started = _look(part)
    if existing == "replace":
        return Standing("new", stale=part.exists())
    if path.exists():
        return _finished(path, header)
    if existing == "keep" and part.exists():
        raise CacheError(
            f"{str(part)!r} is incomplete and was left as it is.",
            hint="Go on with --existing missing, or start again with --existing replace.",
        )
    return _started(part, header, started)


def _finished(path: Path, header: Header) -> Standing:
    found = _look(path)
    if found == "older":
        raise _older(path)
    # One that lost its mark while its annotations were rewritten has all of its rows.
    if not isinstance(found, _Found) or not (found.complete or found.rows_done == header.rows):
        raise _foreign(path)
    outdated = _require_same(path, found, header) or not found.complete
    return Standing("there", found.rows_done, skipped=found.skipped, outdated=outdated)


def _started(part: Path, header: Header, found: _Look) -> Standing:
    if found == "foreign":
        raise _foreign(part)
    if found == "older":
        raise _older(part)
    if not isinstance(found, _Found):  # a part that was killed before its first flush has no row
        return Standing("new", stale=found == "unreadable")
    outdated = _require_same(part, found, header)
    return Standing("part", found.rows_done, skipped=found.skipped, outdated=outdated)


def _foreign(path: Path) -> CacheError:
    return CacheError(
        f"{str(path)!r} is there and is not a complete LayerScope cache.",
        hint="Move it away, choose another folder with -o, or write over it with "
        "--existing replace.",
    )


def _older(path: Path) -> CacheError:
    return CacheError(
        f"{str(path)!r} was written in an older format, which cannot be continued.",
        hint="Extract it again with --existing replace, or choose another folder with -o.",
    )


def _require_same(path: Path, found: _Found, header: Header) -> bool:
    """Refuse other features; return whether only what is known about the images is another."""
    changed = differences(found.ingredients, header.ingredients)
    if set(changed) - {ANNOTATIONS}:
        raise CacheError(
            f"{str(path)!r} was made from something else; it differs in {', '.join(changed)}.",
            hint="Choose another folder with -o, write over it with --existing replace, or "
            "return to the settings that it was made with.",
        )
    return bool(changed)


def _look(path: Path) -> _Look:
    if not path.exists():
        return "nothing"
    try:
        with h5py.File(path, "r") as file:
            return _read(file)
    except BlockingIOError as error:
        raise locked(path) from error
    except OSError:
        return "unreadable"


def _read(file: h5py.File) -> _Look:
    if file.attrs.get("schema") in OLDER:
        return "older"
    if file.attrs.get("schema") != SCHEMA or any(name not in file.attrs for name in ATTRIBUTES):
        return "foreign"
    done = int(file.attrs["rows_done"])
    return _Found(
        ingredients=json.loads(file.attrs["ingredients"]),
        complete=bool(file.attrs["complete"]),
        rows_done=done,
        skipped=tuple(int(row) for row in np.flatnonzero(~file[ROW_VALID][:done])),
    )


def locked(path: Path) -> CacheError:
    """Return the error for a file that another process holds open for writing."""
    return CacheError(
        f"{str(path)!r} is being written by another process.",
        hint="Wait for it to finish, or end it, and repeat the command.",
    )
