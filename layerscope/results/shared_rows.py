"""Rows that two splits share: what was found of them in each cache, kept in the results folder.

::

    results/shared-rows/<checkpoint>@<source>.json    what was found last; an empty list if nothing
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from layerscope.results.durable_files import damage_explained, replace_json
from layerscope.results.grouping import grouped
from layerscope.types import Split

LISTED = 1000
"""Pairs of ids at most that are kept; the count is of all."""
_FOLDER = "shared-rows"
_SAID = 3


@dataclass(frozen=True, slots=True)
class SharedRows:
    """Rows of one split with the very features of rows of another split."""

    checkpoint: str
    source: str
    task: str
    """Whose splits they are; empty for those of the source."""
    cut: str
    """Where the features were compared, with its pooling."""
    split: Split
    within: Split
    count: int
    """Rows of ``split`` whose features ``within`` has as well."""
    rows: int
    """All rows of ``split``."""
    ids: tuple[tuple[str, str], ...]
    """Of the first of them: the row's id, and that of the first row with its features."""


def keep_shared_rows(
    results: Path, checkpoint: str, source: str, found: Sequence[SharedRows]
) -> None:
    """Keep what was found in one cache, in place of what was found before.

    Raises:
        DiskError: The disk is full; what was there before is unharmed.
    """
    name = quote(f"{checkpoint}@{source}.json", safe="@")
    replace_json(results / _FOLDER / name, [asdict(one) for one in found])


def read_shared_rows(results: Path) -> list[SharedRows]:
    """Return what a folder of results knows of all its caches, sorted by file.

    Raises:
        LayerScopeError: A file is damaged.
    """
    return [one for path in sorted((results / _FOLDER).glob("*.json")) for one in _read(path)]


def sentences(found: Iterable[SharedRows]) -> list[str]:
    """Return one sentence for what the caches of a source say in the same way."""
    alike = grouped(found, "source", "task", "split", "within", "count", "rows", "ids")
    return [_sentence(some) for some in alike.values()]


def _sentence(some: Sequence[SharedRows]) -> str:
    one, more = some[0], len(some) - 1
    where = f"{one.cut} of {one.checkpoint}" + (f" (and {more} more)" if more else "")
    of = f"{one.source}, {one.task}" if one.task else one.source
    pairs = ", ".join(f"{mine} = {other}" for mine, other in one.ids[:_SAID])
    rest = f", +{one.count - _SAID}" if one.count > _SAID else ""
    return (
        f"{of}: {one.count} of {one.rows} {one.split} rows have the very features of {one.within} "
        f"rows, at {where}: {pairs}{rest}."
    )


def _read(path: Path) -> list[SharedRows]:
    problem = f"{str(path)!r} does not say which rows two splits share."
    hint = "Delete the file and run the probe again; the cells are kept."
    with damage_explained(problem, hint):
        return [_record(it) for it in json.loads(path.read_text(encoding="utf-8"))]


def _record(columns: dict[str, Any]) -> SharedRows:
    ids = tuple((str(mine), str(other)) for mine, other in columns.pop("ids"))
    return SharedRows(ids=ids, **columns)
