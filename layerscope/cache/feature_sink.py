"""Features of every row, kept in a cache."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from layerscope.cache.cache_file import CacheFile, started
from layerscope.cache.fingerprint import ANNOTATIONS, differences
from layerscope.cache.hdf5_offsets import Rows
from layerscope.cache.header import Header
from layerscope.cache.layout import PART, cache_name, part_of
from layerscope.cache.part import PartFile, require_free
from layerscope.cache.records import is_news, series_in
from layerscope.cache.shards import assemble, clear, clear_drafts, shard_name
from layerscope.cache.status import CacheStatus, cache_status
from layerscope.cache.writer import (
    AssignmentWriter,
    WriteAssignment,
    split_rows,
    whole_units,
)
from layerscope.types import Existing, Source

_OVERHEAD = 2**20
"""Bytes granted to everything in the file that is not a feature."""


class FeatureSink:
    """Keeps the features of every row; described by :class:`layerscope.cache.sink.Sink`."""

    file_name = staticmethod(cache_name)
    status = staticmethod(cache_status)
    writer = staticmethod(AssignmentWriter)
    finish = staticmethod(assemble)
    discard = staticmethod(clear)

    def ingredients(self, source: Source) -> dict[str, Any]:
        return {}

    def size(self, header: Header) -> int:
        return header.rows * header.row_bytes

    def size_left(self, header: Header, status: CacheStatus) -> int:
        return len(status.missing) * header.row_bytes

    def settle(self, path: Path, existing: Existing) -> None:
        clear_drafts(path)
        for part in [it.path for it in started(path) if it.path.name.endswith(PART)]:
            if existing == "replace":
                part.unlink()
            else:
                opened = PartFile(part)
                opened.settle()
                opened.close()

    def rows_due(self, header: Header, missing: Rows, unit: int) -> Rows:
        return whole_units(missing, unit, header.rows)

    def assign(
        self, path: Path, header: Header, status: CacheStatus, processes: int, unit: int
    ) -> list[WriteAssignment]:
        """Return what each process is to write.

        Parts that are there are continued where each process finds one; otherwise they are left as
        they are, and the rest is divided evenly, in the order of the rows.
        """
        missing = self.rows_due(header, status.missing, unit)
        require_free(
            path,
            repr(str(path)),
            len(missing) * header.row_bytes + _OVERHEAD,
            "Free some space, choose another disk with -o, or fewer layers with --cuts.",
        )
        if not len(missing):
            return []
        open_parts = [part for part in status.parts if not part.done.all()]
        fits = len(open_parts) == processes and not any(
            _is_outdated(part, header) for part in open_parts
        )
        held = [np.intersect1d(part.index, missing) for part in open_parts]
        if fits and sum(map(len, held)) == len(missing):
            return [
                WriteAssignment(part.path, rows, True, part.is_shard)
                for part, rows in zip(open_parts, held, strict=True)
            ]
        if processes == 1 and not status.parts:
            return [WriteAssignment(part_of(path), missing, False, is_shard=False)]
        return [
            WriteAssignment(part_of(shard_name(path, rows)), rows, False)
            for rows in split_rows(missing, processes, unit)
            if len(rows)
        ]


def _is_outdated(part: CacheFile, header: Header) -> bool:
    # A shard has no annotations that could be, and nobody asks it for settings.
    changed = differences(part.ingredients, header.ingredients)
    news = is_news(part.settings, series_in(header.settings))
    return (ANNOTATIONS in changed or news) and not part.is_shard
