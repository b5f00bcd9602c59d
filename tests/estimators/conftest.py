"""One cut with its splits and targets, held in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from layerscope.nouns import CutPoint, Split

BOUNDS: dict[Split, tuple[float, float]] = {
    "train": (0.0, 0.6),
    "val": (0.6, 0.8),
    "test": (0.8, 1.0),
}


@dataclass
class View:
    rows: np.ndarray
    targets: Mapping[str, np.ndarray]
    group_size: int = 1
    checkpoint: str = "planted"
    source: str = "memory"
    fingerprint: str = "f00d"

    @property
    def cut(self) -> CutPoint:
        return CutPoint(0, "stem", "stem", "trunk", self.rows.shape[1], "mean", 0.0)

    def features(self, split: Split) -> np.ndarray:
        return self._part(self.rows, split)

    def target(self, task: str, split: Split) -> np.ndarray:
        return self._part(self.targets[task], split)

    def groups(self, split: Split) -> np.ndarray:
        return self._part((np.arange(len(self.rows)) // self.group_size).astype(str), split)

    def views(self, split: Split) -> np.ndarray:
        return self._part(np.zeros(len(self.rows), np.int64), split)

    def instances(self, split: Split) -> np.ndarray:
        return self._part(np.arange(len(self.rows)), split)

    @staticmethod
    def _part(rows: Any, split: Split) -> Any:
        low, high = (round(len(rows) * end) for end in BOUNDS[split])
        return rows[low:high]


@pytest.fixture
def view() -> Callable[..., View]:
    def make(rows: np.ndarray, group_size: int = 1, **targets: np.ndarray) -> View:
        return View(np.asarray(rows, dtype=np.float32), targets, group_size)

    return make
