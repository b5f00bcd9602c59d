"""One cut with its splits and targets, held in memory."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from layerscope.testing import HeldLayer


@pytest.fixture
def view() -> Callable[..., HeldLayer]:
    def make(rows: np.ndarray, group_size: int = 1, **targets: np.ndarray) -> HeldLayer:
        return HeldLayer.of(rows, group_size, **targets)

    return make
