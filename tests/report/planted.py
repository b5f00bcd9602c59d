"""Results whose truth is known by construction: right and wrong are counted, not drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from layerscope.results.store import Results
from layerscope.types import Losses, Score, ScoreKind, Task

N = 400
CUTS = ("stem", "layer1", "layer2", "layer3", "trunk", "head.1", "head.2")
TASK = Task("toy-kind", "toy", "classes", "top-1", "maximise", title="Kind")
GROUPS = np.array([f"image{i}" for i in range(N)])


def losses(accuracy: float, shift: int = 0) -> np.ndarray:
    """0 for right and 1 for wrong, with exactly that share right.

    The same rows are hard for all, as they are for neighbouring layers; ``shift`` moves which.
    """
    wrong = round((1 - accuracy) * N)
    order = np.roll(np.random.default_rng(7).permutation(N), shift)
    found = np.zeros(N)
    found[order[:wrong]] = 1
    return found


def score(cut: str, index: int, last: int, **columns: Any) -> Score:
    """A primary score at one of the cuts from 0 to ``last``; columns may be any others."""
    plain = {
        "checkpoint": "net",
        "source": "toy",
        "part": "head" if cut.startswith("head") else "trunk",
        "width": 8,
        "pooling": "mean",
        "task": TASK.name,
        "estimator": "ridge",
        "metric": "mse",
        "direction": "minimise",
        "primary": True,
        "val": 0.0,
        "test": 0.0,
        "stderr": 0.0,
        "n_train": 100_000,
        "seed": 0,
        "settings": {},
        "fingerprint": "f00d",
    }
    return Score(cut=cut, index=index, depth=index / last, **plain | columns)


def probe(
    cut: str, val: float, test: float | None = None, *, checkpoint: str = "net", shift: int = 0
) -> Score:
    reported = val if test is None else test
    return score(
        cut,
        CUTS.index(cut),
        len(CUTS) - 1,
        checkpoint=checkpoint,
        estimator="logistic",
        metric="top-1",
        direction="maximise",
        val=val,
        test=reported,
        stderr=0.02,
        n_val=N,
        n_test=N,
        n_groups=N,
        fingerprint=f"sha256:{checkpoint}",
        losses=Losses(losses(val), losses(reported, shift)),
    )


def measure(
    cut: str,
    value: float,
    *,
    checkpoint: str = "net",
    name: str = "rankme",
    metric: str = "rankme",
    direction: str = "maximise",
    task: str = "none",
    stderr: float = 0.0,
) -> Score:
    return replace(
        probe(cut, 0.0, checkpoint=checkpoint),
        task=task,
        estimator=name,
        metric=metric,
        direction=direction,
        val=value,
        test=value,
        stderr=stderr,
        settings={"convention": "paper"},
        kind="measure",
        losses=None,
    )


def of_kind(stored: Results, kind: ScoreKind) -> list[Score]:
    return [score for score in stored.scores() if score.kind == kind]


def folder(path: Path, scores: Sequence[Score], settings: Mapping[str, Mapping] | None = None):
    """Write a results folder as a sweep does, and return it."""
    stored = Results(path)
    stored.keep_tasks([TASK])
    for score in scores:
        if score.losses is not None:
            place = (score.checkpoint, score.source, score.task)
            stored.keep_groups(*place, GROUPS, score.fingerprint)
        stored.append([score])
    for checkpoint, values in (settings or {}).items():
        stored.keep_settings(checkpoint, values)
    return stored
