"""What an extraction did: of each rank by itself, and of all together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from layerscope.cache import StorageChoice
from layerscope.data import BadImage
from layerscope.errors import LayerScopeError

Status = Literal["written", "there", "annotated"]


@dataclass(frozen=True, slots=True)
class RankResult:
    """What became of the rows of one rank."""

    rows: int = 0
    seconds: float = 0.0
    shares: Mapping[str, float] = field(default_factory=dict)
    """Of the time: what each stage took from the others."""
    bad: tuple[BadImage, ...] = ()
    changed: bool = False
    """Whether the network was another one at the end."""
    error: LayerScopeError | None = None


@dataclass(frozen=True, slots=True)
class ExtractReport:
    """What an extraction did."""

    path: Path
    status: Status
    """Whether rows were computed, the same cache was complete before, or only its splits, groups,
    targets and the checkpoint's settings were written anew."""
    rows: int
    resumed_from: int
    """Rows that an earlier run had left; 0 when this run made them all."""
    seconds: float
    images_per_second: float
    """Of the rows that this run computed; 0 when there were none."""
    rank_rates: tuple[float, ...]
    """The same of each rank by itself: the job ends with the slowest."""
    waiting: float
    """Share of the time in which the network waited for images."""
    shares: Mapping[str, float]
    """Of the time: what the network, images and the disk took from each other."""
    stored: Mapping[str, StorageChoice]
    """By cut and pooling, in which type features are stored, and why if it is not the one asked."""
    bad: tuple[BadImage, ...]
    """Images that could not be read, by their row in the cache."""
    bfloat16_difference: Mapping[str, float] | None
    """By cut and pooling: norm of the difference to float32 over the norm, on the first batch."""
    fingerprint: str
