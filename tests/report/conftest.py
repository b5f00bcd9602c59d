"""Scores and verdicts that resemble the reference case, made without a network or a file."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from layerscope.report.evidence import Evidence
from layerscope.report.section import find_all
from layerscope.report.style import styled
from layerscope.types import Interval, Score, Verdict
from tests.report import planted

CUTS = (
    "stem",
    *(f"layer{stage}.{block}" for stage in range(1, 5) for block in range(2)),
    "trunk",
    *(f"head.{layer}" for layer in range(1, 4)),
)
CHECKPOINTS = (
    "simclr-objects3d",
    "rotation-objects3d",
    "simclr-objects3d-random",
    "rotation-objects3d-random",
)
# By task: the depth of the trained networks' best cut, its value, and the head's loss.
SHAPES = {
    "objects3d-rotation": (0.8, 0.45, 0.35),
    "objects3d-floor-hue": (0.25, 0.03, 0.5),
    "objects3d-spot-theta": (0.5, 0.35, 0.45),
    "objects3d-spot-phi": (0.5, 0.40, 0.45),
    "objects3d-spot-hue": (0.3, 0.15, 0.6),
    "objects3d-category": (0.75, 0.28, 0.4),
}


def curve(task: str, checkpoint: str) -> list[float]:
    """Values over depth: a valley around the task's own depth, steeper in the head."""
    best, value, slope = SHAPES[task]
    if checkpoint.startswith("rotation") and task == "objects3d-rotation":
        best, value = 1.0, 0.2
    depths = np.linspace(0, 1, len(CUTS))
    loss = value + 0.8 * (depths - best) ** 2 + slope * np.clip(depths - 0.75, 0, None) * (best < 1)
    if checkpoint.startswith("rotation"):
        loss = loss + 0.08
    if checkpoint.endswith("-random"):
        loss = (0.78 if checkpoint.startswith("rotation") else 0.72) + 0.2 * (1 - value) * depths
    return [float(v) for v in (1 - loss if task == "objects3d-category" else np.minimum(loss, 1))]


def score(checkpoint: str, task: str, index: int, value: float) -> Score:
    classes = task == "objects3d-category"
    return planted.score(
        CUTS[index],
        index,
        len(CUTS) - 1,
        checkpoint=checkpoint,
        source="objects3d",
        width=64,
        task=task,
        estimator="logistic" if classes else "ridge",
        metric="top-1" if classes else "mse",
        direction="maximise" if classes else "minimise",
        val=value,
        test=value,
        stderr=0.02,
        n_train=6000,
        n_val=1000,
        n_test=1000,
        n_groups=40,
        settings={"lambda": 0.1},
        fingerprint=f"sha256:{checkpoint}",
        trained=not checkpoint.endswith("-random"),
    )


def verdict(rows: Sequence[Score]) -> Verdict:
    """A verdict as the figures need one; how verdicts are really reached is tested elsewhere."""
    first = rows[0]
    sign = 1 if first.direction == "maximise" else -1
    done = [row for row in rows if row.status == "done"]
    best = max(done, key=lambda row: sign * row.test)
    trunk = next(row for row in rows if row.cut == "trunk")
    gain, last = sign * (best.test - trunk.test), sign * (best.test - rows[-1].test)
    tied = tuple(row.cut for row in done if sign * (best.test - row.test) < 0.02)
    return Verdict(
        checkpoint=first.checkpoint,
        task=first.task,
        estimator=first.estimator,
        metric=first.metric,
        direction=first.direction,
        best=best.cut,
        value=Interval(best.test, best.test - 0.03, best.test + 0.03),
        tied=tied,
        shallowest=tied[0],
        trunk="trunk",
        gain=Interval(gain, gain - 0.02, gain + 0.02),
        gain_over_last=Interval(last, last - 0.02, last + 0.02),
        resamples_won={cut: 1 / len(tied) for cut in tied},
        level=0.95,
        n_test=1000,
        n_groups=40,
        agrees=True,
        trained=first.trained,
    )


def series() -> Iterator[list[Score]]:
    for checkpoint in CHECKPOINTS:
        for task in SHAPES:
            values = enumerate(curve(task, checkpoint))
            yield [score(checkpoint, task, index, value) for index, value in values]


def evidence(scores: Sequence[Score], verdicts: Sequence[Verdict] = (), **more: object) -> Evidence:
    table = tuple(scores)
    return Evidence(Path("nowhere"), table, tuple(verdicts), current=table, **more)  # type: ignore[arg-type]


def figures(
    scores: Sequence[Score],
    verdicts: Sequence[Verdict],
    titles: Mapping[str, str] | None = None,
    **more: object,
) -> dict[str, Figure]:
    """Every figure that any section draws."""
    with styled():
        findings = find_all(evidence(scores, verdicts, titles=titles or {}, **more))
    return {name: it for found in findings.values() for name, it in found.figures.items()}


@pytest.fixture(scope="session")
def scores() -> list[Score]:
    primary = [row for rows in series() for row in rows]
    latents = [row for row in primary if row.metric == "mse"]
    return primary + [replace(row, metric="nmse", primary=False) for row in latents]


@pytest.fixture(scope="session")
def verdicts() -> list[Verdict]:
    return [verdict(rows) for rows in series()]


@pytest.fixture(scope="session")
def fail() -> Callable[[Score], Score]:
    def failing(row: Score) -> Score:
        nan = math.nan
        return replace(row, val=nan, test=nan, stderr=nan, status="failed", note="singular")

    return failing
