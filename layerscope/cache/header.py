"""The header: all of a cache but its features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from layerscope.cache.fingerprint import fingerprint_of
from layerscope.cache.layout import FEATURE_BYTES
from layerscope.nouns import Checkpoint, CutPoint, Source


@dataclass(frozen=True, slots=True)
class Header:
    """What is known of a cache before its first row."""

    checkpoint: Checkpoint
    cuts: tuple[CutPoint, ...]
    source: Source
    """The rows to be written, in their order, with the targets of every task."""
    ingredients: Mapping[str, Any]
    """From :func:`layerscope.cache.ingredients`."""
    settings: Mapping[str, Any]
    """How the features will be computed, for whoever reads the file later."""

    @property
    def fingerprint(self) -> str:
        """sha256 of the ingredients."""
        return fingerprint_of(self.ingredients)

    @property
    def rows(self) -> int:
        """Number of images."""
        return len(self.source.ids)

    @property
    def row_bytes(self) -> int:
        """Bytes of the features of one image over all cuts."""
        return FEATURE_BYTES * sum(cut.width for cut in self.cuts)
