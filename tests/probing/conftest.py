"""Layers in memory, and scores made by hand."""

import numpy as np
import pytest

from layerscope.types import Losses, Score
from tests.estimators.conftest import view

__all__ = ["view"]


@pytest.fixture
def score():
    def make(**known) -> Score:
        usual = {
            "checkpoint": "net", "source": "memory", "cut": "stem", "index": 0, "part": "trunk",
            "width": 4, "depth": 0.0, "pooling": "mean", "task": "y", "estimator": "logistic",
            "metric": "top-1", "direction": "maximise", "primary": True, "val": 0.5, "test": 0.5,
            "stderr": 0.1, "n_train": 10, "n_val": 5, "n_test": 2, "n_groups": 2, "seed": 0,
            "settings": {}, "fingerprint": "f", "losses": Losses(np.zeros(5), np.zeros(2)),
        }  # fmt: skip
        return Score(**usual | known)

    return make
