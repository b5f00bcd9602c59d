"""Trunk against head over the runs of a grid: does one tell anything of the other?

Figure 5 of *Guillotine Regularization* (Bordes et al. 2023, the OpenReview version): over a grid of
hyper-parameters the trunk's accuracy is nearly stable while that of the last head layer may be
anything. One point is one run at its last snapshot. Two questions are answered with intervals:

* Do both rank the runs alike? Kendall's τ-b and Spearman's ρ. Runs are what is drawn anew, as if
  the grid were a sample of the settings that might have been tried; that some of its runs share a
  setting is not taken into account.
* Does the head vary more than the trunk? The ratio of the standard deviations over runs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from layerscope.stats.rank_correlation import independence, kendall, over_pairs, spearman
from layerscope.stats.spread import spread_ratio
from layerscope.types import Direction, Interval
from layerscope.verdicts.comparison import Comparison, by_question, in_runs, mean_metric, usual
from layerscope.verdicts.runs import TrainingRun

FEWEST = 3
"""Runs below which a scatter shows nothing."""


@dataclass(frozen=True, slots=True)
class GridPoint:
    """One run at its last snapshot."""

    run: str
    checkpoint: str
    settings: Mapping[str, str | int | float]
    trunk: str
    """The cut at the end of the trunk."""
    head: str
    """The last cut of the head."""
    at_trunk: float
    """The metric there on the test rows."""
    at_head: float
    trunk_stderr: float
    head_stderr: float


@dataclass(frozen=True, slots=True)
class Grid:
    """Trunk and head of several runs for one task and probe."""

    source: str
    task: str
    estimator: str
    metric: str
    direction: Direction
    points: tuple[GridPoint, ...]
    tau: Interval
    """Kendall's τ-b between trunk and head over the runs."""
    rho: Interval
    """Spearman's ρ."""
    p_value: float
    """Two-sided, of "the order of the runs at the trunk says nothing of that at the head"."""
    spread: Interval
    """Standard deviation over runs at the head, over that at the trunk."""
    level: float
    note: str = ""


def grids(
    comparisons: Sequence[Comparison],
    runs: Sequence[TrainingRun],
    *,
    level: float = 0.95,
    seed: int = 0,
) -> list[Grid]:
    """Return trunk against head for every task and probe with at least three runs.

    The last snapshots of runs are compared; runs without a head are left out and named.
    """
    by_last = {run.last: run for run in runs}
    known = (
        [it for it in items if it.first.checkpoint in by_last] for items in by_question(comparisons)
    )
    found = (_grid(items, by_last, level, seed) for items in known if items)
    return [grid for grid in found if len(grid.points) >= FEWEST]


def _grid(
    comparisons: Sequence[Comparison], by_last: Mapping[str, TrainingRun], level: float, seed: int
) -> Grid:
    first = comparisons[0].first
    by_checkpoint = {it.first.checkpoint: it for it in comparisons}
    made = [
        (run, _point(by_checkpoint[last], run))
        for last, run in by_last.items()
        if last in by_checkpoint
    ]
    points = tuple(point for _, point in made if point is not None)
    headless = [run.name for run, point in made if point is None]
    trunks = torch.tensor([point.at_trunk for point in points], dtype=torch.float64)
    heads = torch.tensor([point.at_head for point in points], dtype=torch.float64)
    return Grid(
        source=first.source,
        task=first.task,
        estimator=first.estimator,
        metric=first.metric,
        direction=first.direction,
        points=points,
        tau=over_pairs(trunks, heads, kendall, level=level, seed=seed),
        rho=over_pairs(trunks, heads, spearman, level=level, seed=seed),
        p_value=independence(trunks, heads, seed=seed),
        spread=spread_ratio(trunks, heads, level=level),
        level=level,
        note=f"Left out, without a head: {in_runs(headless, ())}." if headless else "",
    )


def _point(comparison: Comparison, run: TrainingRun) -> GridPoint | None:
    heads = [i for i, score in enumerate(comparison.scores) if score.part == "head"]
    if not heads or len(heads) == len(comparison.scores):
        return None
    places = (usual(comparison)[0], heads[-1])
    trunk, head = (comparison.scores[place] for place in places)
    at_trunk, at_head = (mean_metric(trunk, comparison.losses[place].test) for place in places)
    return GridPoint(
        run.name,
        trunk.checkpoint,
        run.settings,
        trunk.cut,
        head.cut,
        at_trunk,
        at_head,
        trunk.stderr,
        head.stderr,
    )


def sentence(found: Grid, titles: Mapping[str, str]) -> str:
    """Return in one plain sentence what the trunk says of the head, with titles by task."""
    runs = len(found.points)
    tau, spread = describe_interval(found.tau), describe_interval(found.spread)
    parts = [
        f"over {runs} runs Kendall's τ of trunk and head is {tau}",
        f"p = {found.p_value:.2g}" if math.isfinite(found.p_value) else "",
        f"ratio of the head's standard deviation over runs to the trunk's {spread}",
    ]
    title = titles.get(found.task, found.task)
    return f"{title}, {found.estimator}: {'; '.join(filter(None, parts))}. {found.note}".strip()


def describe_interval(found: Interval, no_interval: str = " (no interval)") -> str:
    """Return an estimate over runs with its interval, or with words for that there is none."""
    if math.isnan(found.estimate):
        return "not defined"
    if math.isnan(found.low):
        return f"{found.estimate:.2f}{no_interval}"
    return f"{found.estimate:.2f} [{found.low:.2f}, {found.high:.2f}]"
