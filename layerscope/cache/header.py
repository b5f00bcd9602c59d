"""The header: all of a cache but its features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from layerscope.cache.fingerprint import fingerprint_of
from layerscope.cache.storage import StorageChoice
from layerscope.types import Checkpoint, CutPoint, Source, Storage

_CHECKSUM_BYTES = 4


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
    stored: Mapping[str, StorageChoice] | None = None
    """By cut and pooling, how a sample said that features are stored; None: as asked."""

    @property
    def fingerprint(self) -> str:
        """sha256 of the ingredients."""
        return fingerprint_of(self.ingredients)

    @property
    def rows(self) -> int:
        """Number of images."""
        return len(self.source.ids)

    @property
    def keys(self) -> tuple[str, ...]:
        """Every cut in each of its poolings, such as ``blocks.3@cls``."""
        return tuple(cut.key for cut in self.cuts)

    @property
    def asked(self) -> Storage:
        """The type in which features are to be stored where it loses nothing."""
        return cast(Storage, self.ingredients["storage"])

    @property
    def storage(self) -> dict[str, StorageChoice]:
        """By cut and pooling, how the features are stored as far as is known."""
        return {key: (self.stored or {}).get(key, StorageChoice(self.asked)) for key in self.keys}

    @property
    def row_bytes(self) -> int:
        """Bytes of one image over all cuts: its features and their checksums."""
        kept = self.storage
        return sum(kept[cut.key].dtype.itemsize * cut.width + _CHECKSUM_BYTES for cut in self.cuts)
