"""Classes that are normal clouds around a point each, for whatever classifies."""

from __future__ import annotations

import numpy as np
import pytest

N = 500

UNFIT = pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows, labels: (rows, labels * 0), "a single class"),
        (lambda rows, labels: (rows * 0 + 0.1, labels), "constant"),
        (lambda rows, labels: (np.where(rows > 2, np.nan, rows), labels), "not finite"),
    ],
)
"""What no classifier can be computed on, and what is said of it."""


def blobs(classes: int, spread: float = 1.0, width: int = 6):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes, N)
    centres = rng.standard_normal((classes, width))
    rows = centres[labels] + spread * rng.standard_normal((N, width))
    return rows.astype(np.float32), labels
