"""The scorecard: how well measures without a probe rank the layers, and what trusting them costs.

For every checkpoint, task and probe, and for every measure of the same layers, two questions:

* **Rank.** Kendall's τ-b between the measure, turned so that more is meant to be better, and the
  probe's metric on the test rows, over the cuts that have both. The layers of one network are given
  and not a sample of layers, so the interval is over the test rows, drawn by whole groups, over
  another training sample of the probe, and over each layer's standard error of the measure.
* **Regret.** How much of the metric is lost by cutting where the measure is at its best instead of
  where the probe's validation rows choose, on the test rows, paired as in a verdict. Neither choice
  saw the test losses, so that a regret may come out negative: the measure did better.

Beside the regret stand that of the usual cut and that of a cut drawn at random: a measure that does
worse than those has nothing to say here. None of this chooses a cut: a verdict knows probes alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median

import torch

from layerscope.results.grouping import grouped
from layerscope.stats.bootstrap import RESAMPLES, Resampled, difference
from layerscope.stats.rank_correlation import FEWEST, kendall, over_rows, spearman
from layerscope.types import Direction, Interval, Score
from layerscope.verdicts.comparison import (
    Comparison,
    against_constant,
    ends,
    in_runs,
    interval,
    resampled,
    usual,
)

UNREAD = "No cut is shown to read the task better than a constant: the probe's order says nothing."


@dataclass(frozen=True, slots=True)
class MeasureScore:
    """How well one measure serves in place of one probe at the cuts of one checkpoint."""

    checkpoint: str
    source: str
    task: str
    estimator: str
    """The probe."""
    metric: str
    """The probe's, in whose unit regrets are."""
    measure: str
    measure_metric: str
    """What of the measure is compared: its primary metric."""
    labels: bool
    """Whether the measure used the task's labels."""
    direction: Direction
    """Which way of the measure is meant to be better."""
    convention: str
    cuts: int
    """Number of cuts that have both."""
    tau: Interval
    """Kendall's τ-b: 1 where the measure ranks the cuts as the probe does."""
    rho: Interval
    """Spearman's ρ."""
    cut: str
    """Where the measure is at its best."""
    best: str
    """Where the probe's validation rows choose."""
    regret: Interval
    """Metric lost at ``cut`` against ``best`` on the test rows; positive is worse."""
    regret_usual: Interval
    """The same for the end of the trunk."""
    regret_random: Interval
    """The same for a cut drawn at random among those that have both."""
    level: float
    n_test: int
    n_groups: int
    note: str = ""

    @property
    def costs(self) -> bool:
        """Whether the measure's cut is shown to be worse than the probe's own."""
        return self.regret.low > 0


@dataclass(frozen=True, slots=True)
class MeasureAtCuts:
    """A measure at the cuts of a comparison: NaN where a cut has none."""

    first: Score
    """One of its scores."""
    values: tuple[float, ...]
    errors: tuple[float, ...]
    """Standard errors."""

    @property
    def name(self) -> tuple[str, str, str]:
        """The measure, its metric and its task, which together tell it from others."""
        return self.first.estimator, self.first.metric, self.first.task

    @property
    def goodness(self) -> torch.Tensor:
        """(k,) values, turned so that more is meant to be better."""
        values = torch.tensor(self.values, dtype=torch.float64)
        return values if self.first.direction == "maximise" else -values


def scorecard(
    comparisons: Sequence[Comparison],
    measures: Sequence[Score],
    *,
    level: float = 0.95,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> list[MeasureScore]:
    """Return how well every measure serves in place of every probe that was fitted as usual.

    Measures of another cache than a comparison's are left out.
    """
    found = []
    for comparison in (it.merged() for it in comparisons):
        rows = measures_at_cuts(comparison, measures) if comparison.first.usual else []
        if rows:
            test = resampled(comparison, resamples, seed, noise_seed=seed + 1)
            read = against_constant(comparison, test, seed=seed, level=level)
            note = UNREAD if read.reads is False else ""
            found += [_measure_score(comparison, test, row, level, seed, note) for row in rows]
    return found


def measures_at_cuts(comparison: Comparison, measures: Sequence[Score]) -> list[MeasureAtCuts]:
    """Return the measures that some cut of a comparison has, in the pooling that the probe chose.

    What was measured of the images and of their views counts once, of the images; of several
    numbers of views the last that was measured counts.
    """
    first, found = comparison.first, []
    done = (it for it in measures if it.primary and it.usual and it.status == "done")
    asked = [it for it in done if _is_asked(it, first)]
    for scores in grouped(asked, "estimator", "metric", "task").values():
        by_source = grouped(scores, "source")
        chosen = by_source.get(first.source) or list(by_source.values())[-1]
        found.append(_measure_at_cuts(comparison, chosen))
    return [row for row in found if any(map(math.isfinite, row.values))]


def _is_asked(score: Score, first: Score) -> bool:
    """Return whether a measure is of the layers that were probed: of the same features, or views.

    Augmented views of the images are a source and a cache of their own.
    """
    same_layers = score.views_of == first.source or score.fingerprint == first.fingerprint
    same_task = score.task == first.task or not score.labelled
    return score.checkpoint == first.checkpoint and same_layers and same_task


def _measure_at_cuts(comparison: Comparison, scores: Sequence[Score]) -> MeasureAtCuts:
    by_cut = grouped(scores, "cut", "pooling")
    # Of several seeds the mean; the error is that of one, which is the cautious side.
    groups = [by_cut.get((score.cut, score.pooling), []) for score in comparison.scores]
    return MeasureAtCuts(
        scores[0],
        tuple(fmean(it.test for it in group) if group else math.nan for group in groups),
        tuple(fmean(it.stderr for it in group) if group else math.nan for group in groups),
    )


def _measure_score(
    comparison: Comparison,
    test: Resampled,
    measure: MeasureAtCuts,
    level: float,
    seed: int,
    note: str,
) -> MeasureScore:
    names, best = comparison.cuts, comparison.best
    known = [i for i, value in enumerate(measure.values) if math.isfinite(value)]
    goodness = measure.goodness[known]
    errors = torch.tensor(measure.errors, dtype=torch.float64)[known]
    some = Resampled(test.estimate[known], test.draws[:, known], test.groups)
    chosen = known[int(goodness.argmax())]
    trunk, _ = usual(comparison)
    first, measured = comparison.first, measure.first
    return MeasureScore(
        checkpoint=first.checkpoint,
        source=first.source,
        task=first.task,
        estimator=first.estimator,
        metric=first.metric,
        measure=measured.estimator,
        measure_metric=measured.metric,
        labels=measured.labelled,
        direction=measured.direction,
        convention=str(measured.settings.get("convention", "")),
        cuts=len(known),
        tau=over_rows(goodness, errors, some, kendall, level=level, seed=seed + 2),
        rho=over_rows(goodness, errors, some, spearman, level=level, seed=seed + 2),
        cut=names[chosen],
        best=names[best],
        regret=interval(difference(test, chosen, best), level),
        regret_usual=interval(difference(test, trunk, best), level),
        regret_random=interval(_random(test, known, best), level),
        level=level,
        n_test=len(comparison.groups),
        n_groups=test.groups,
        note=f"{_note(names, known, goodness)} {note}".strip(),
    )


def _random(test: Resampled, known: Sequence[int], best: int) -> Resampled:
    """Return the mean loss over the cuts minus that of the best."""
    return Resampled(
        (test.estimate[known].mean() - test.estimate[best])[None],
        (test.draws[:, known].mean(1) - test.draws[:, best])[:, None],
        test.groups,
    )


def _note(names: Sequence[str], known: Sequence[int], goodness: torch.Tensor) -> str:
    notes = []
    missing = [name for i, name in enumerate(names) if i not in known]
    if missing:
        notes.append(f"Left out, without the measure: {in_runs(missing, names)}.")
    if len(known) > 1 and bool((goodness == goodness[0]).all()):
        notes.append("The measure is the same at every cut: it ranks none of them.")
    if len(known) < FEWEST:
        notes.append(f"Fewer than {FEWEST} cuts: a rank correlation has no interval.")
    return " ".join(notes)


def sentences(scores: Sequence[MeasureScore], titles: Mapping[str, str]) -> list[str]:
    """Return one plain sentence about each measure, over all checkpoints, tasks and probes."""
    groups = grouped(scores, "measure", "measure_metric", "labels")
    return [_sentence(group, titles) for group in groups.values()]


def _sentence(group: Sequence[MeasureScore], titles: Mapping[str, str]) -> str:
    first, count = group[0], len(group)
    name = full_name(first)
    taus = [one.tau.estimate for one in group if math.isfinite(one.tau.estimate)]
    ranks = f"Kendall's τ with the probe {_spread(taus)}" if taus else "no order of the cuts"
    costly = [one for one in group if one.costs]
    if not costly:
        cost = "not shown to cost anything" if count == 1 else f"shown to cost in none of {count}"
        return f"{name}: {ranks}; cutting at its best is {cost}."
    worst = max(costly, key=_severity)
    shown = "shown to cost" if count == 1 else f"shown to cost in {len(costly)} of {count}, most"
    return (
        f"{name}: {ranks}; cutting at its best is {shown} {worst.regret.estimate:.3g} "
        f"{worst.metric} {ends(worst.regret)} "
        f"({worst.checkpoint}, {titles.get(worst.task, worst.task)}: {worst.cut} instead of "
        f"{worst.best}; a cut at random costs {worst.regret_random.estimate:.3g})."
    )


def _severity(score: MeasureScore) -> float:
    """Return the regret in units of a random cut's, for metrics of different units."""
    chance = score.regret_random.estimate
    return score.regret.estimate / chance if chance > 0 else math.inf


def full_name(score: MeasureScore) -> str:
    """Return a measure's name, with its metric where that is another and whether it has labels."""
    metric = score.measure_metric if score.measure_metric != score.measure else ""
    more = ", ".join(filter(None, (metric, "with labels" if score.labels else "")))
    return f"{score.measure} ({more})" if more else score.measure


def _spread(values: Sequence[float]) -> str:
    if len(values) == 1:
        return f"{values[0]:.2f}"
    return f"{median(values):.2f} in the median, {min(values):.2f} to {max(values):.2f}"
