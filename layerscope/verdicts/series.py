"""Layers along a run of training: where each is at its best, and whether it over-fits from there.

The early and the last layer are compared as in figures 1 and 2 of Qiang et al. (2024), "On the
Generalization and Causal Explanation in Self-Supervised Learning": the last layer's accuracy falls
late in training where the early layer's does not, and coding rate reduction is said to fall with
it.

Whether it did is asked of the layer's underlying curve and not of single snapshots: one snapshot
may be lucky, and then it is so on validation and test rows alike. A layer's **peak** is the epoch
at which the moving average of its validation loss is least, of equal ones the first. Its **fall**
is what the moving average of the metric has lost from the peak to the last epoch on the test rows.
Its interval, that of :mod:`layerscope.stats.trend`, has the noise of the test rows (paired, with
whole groups drawn), that of the snapshots, estimated from the series itself, and the luck of the
choice of the peak. A layer over-fits if the fall's interval is above nought. Fewer than
:data:`~layerscope.stats.trend.FEWEST` snapshots do not tell their noise: there is no interval then.

That the early layer does *not* over-fit does not follow from an interval that holds nought, so the
**contrast** is given too: the fall of the last layer minus that of the early one, each from its own
peak, over the same rows.

Probes of two epochs are trained on the same rows; as in a verdict each has the noise of another
training sample of its own, which is the cautious side. Seeds of the same run are not pooled: each
run has a series of its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from layerscope.errors import EstimatorError
from layerscope.stats.bootstrap import RESAMPLES, Resampled, p_values
from layerscope.stats.rank_correlation import kendall, over_rows
from layerscope.stats.training_noise import TrainingNoise
from layerscope.stats.trend import FEWEST as TREND
from layerscope.stats.trend import Run, decline, lowest_average, moving_average
from layerscope.types import Direction, Interval, Part, Score
from layerscope.verdicts.comparison import (
    Comparison,
    by_question,
    ends,
    in_runs,
    mean_metric,
    resampled,
)
from layerscope.verdicts.runs import TrainingRun
from layerscope.verdicts.scorecard import MeasureAtCuts, measures_at_cuts

FEWEST = 2
"""Snapshots below which there is no series."""


@dataclass(frozen=True, slots=True)
class LayerCurve:
    """One cut along a run."""

    cut: str
    part: Part
    depth: float
    val: tuple[float, ...]
    """The metric on the validation rows, by epoch."""
    test: tuple[float, ...]
    stderr: tuple[float, ...]
    smoothed: tuple[float, ...]
    """``test``, averaged over neighbouring snapshots."""
    noise: float
    """Standard deviation of a snapshot about the layer's curve, beyond what the rows explain; not a
    number for too few snapshots."""
    peak: float
    """The epoch at which the average over neighbours is best on the validation rows."""
    fall: Interval
    """What ``smoothed`` lost from the peak to the last epoch; positive is worse. The interval is of
    the underlying curve; its ends are no numbers for too few snapshots."""

    @property
    def falls(self) -> bool:
        """Whether the layer is shown to over-fit after its peak."""
        return self.fall.low > 0


@dataclass(frozen=True, slots=True)
class MeasureCurve:
    """A measure along a run at one cut, beside the probe there."""

    cut: str
    measure: str
    measure_metric: str
    labels: bool
    direction: Direction
    values: tuple[float, ...]
    """By epoch; not a number where a snapshot lacks the measure."""
    stderr: tuple[float, ...]
    tau: Interval
    """Kendall's τ-b with the probe's metric over the epochs."""
    tau_from_peak: Interval
    """The same over the epochs from the probe's peak on."""


@dataclass(frozen=True, slots=True)
class Series:
    """The layers of one run for one task and probe."""

    run: str
    axis: str
    settings: Mapping[str, str | int | float]
    source: str
    task: str
    estimator: str
    metric: str
    direction: Direction
    epochs: tuple[float, ...]
    """Places on the axis."""
    checkpoints: tuple[str, ...]
    curves: tuple[LayerCurve, ...]
    """In depth order."""
    early: str
    """The cut in the middle of the trunk."""
    trunk: str
    """The last cut of the trunk."""
    last: str
    plateau: tuple[float, float]
    """First and last of the epochs whose average is not told from the last cut's best."""
    contrast: Interval
    """Fall of the last cut minus fall of the early one."""
    measures: tuple[MeasureCurve, ...]
    level: float
    n_test: int
    n_groups: int
    note: str = ""

    def curve(self, cut: str) -> LayerCurve:
        """Return one cut's."""
        return next(it for it in self.curves if it.cut == cut)

    @property
    def shown(self) -> tuple[str, ...]:
        """The cuts that figures show: early, end of the trunk, last."""
        return tuple(dict.fromkeys((self.early, self.trunk, self.last)))


def every_series(
    comparisons: Sequence[Comparison],
    runs: Sequence[TrainingRun],
    measures: Sequence[Score] = (),
    *,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[list[Series], list[str]]:
    """Return the series of every run, task and probe, and why there is none for others."""
    found, reasons = [], []
    for run in runs:
        for items in by_question(comparisons):
            by_checkpoint = {item.first.checkpoint: item for item in items}
            known = [(at, by_checkpoint[it]) for at, it in run.snapshots if it in by_checkpoint]
            if len(known) < FEWEST:
                continue
            epochs, snapshots = zip(*known, strict=True)
            try:
                found.append(series(run, epochs, snapshots, measures, level=level, seed=seed))
            except EstimatorError as error:
                reasons.append(f"{run.name}: no series. {error}")
    return found, reasons


def series(
    run: TrainingRun,
    epochs: Sequence[float],
    comparisons: Sequence[Comparison],
    measures: Sequence[Score] = (),
    *,
    level: float = 0.95,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Series:
    """Follow the layers of one run for one task and probe.

    There is one comparison for each snapshot, and the epoch (or step) where it stands, in order.

    Raises:
        EstimatorError: Fewer than two snapshots, test rows that differ, or no cut that all have.
    """
    _check(run, comparisons)
    by_cut, left_out = _by_cut(comparisons)
    early, trunk, last = _shown_cuts(by_cut)
    shown = dict.fromkeys((early, trunk, last))
    whole, curves = {}, []
    for i, (cut, snapshots) in enumerate(by_cut.items()):
        drawn = resampled(snapshots, resamples, seed, noise_seed=seed + 1 + i)
        curves.append(_layer_curve(snapshots, epochs, drawn, level, seed))
        if cut in shown:
            whole[cut] = drawn
    peaks = {it.cut: epochs.index(it.peak) for it in curves}
    rows = [{it.name: it for it in measures_at_cuts(c, measures)} for c in comparisons]
    first = comparisons[0].first
    return Series(
        run=run.name,
        axis=run.axis,
        settings=run.settings,
        source=first.source,
        task=first.task,
        estimator=first.estimator,
        metric=first.metric,
        direction=first.direction,
        epochs=tuple(epochs),
        checkpoints=tuple(item.first.checkpoint for item in comparisons),
        curves=tuple(curves),
        early=early,
        trunk=trunk,
        last=last,
        plateau=_plateau(whole[last], epochs, peaks[last], level, seed),
        contrast=_difference(whole, peaks, (last, early), epochs, level, seed),
        measures=tuple(
            _measure_curve(cut, named, comparisons, rows, whole[cut], peaks[cut], level, seed)
            for cut in shown
            for named in dict.fromkeys(key for row in rows for key in row)
        ),
        level=level,
        n_test=len(comparisons[0].groups),
        n_groups=whole[last].groups,
        note=f"Left out, not in every snapshot: {in_runs(left_out, ())}." if left_out else "",
    )


def _check(run: TrainingRun, comparisons: Sequence[Comparison]) -> None:
    if len(comparisons) < FEWEST:
        raise EstimatorError(
            f"A series needs {FEWEST} snapshots, and {run.name!r} has {len(comparisons)}.",
            hint="Extract and probe more snapshots of the run.",
        )
    if any(not np.array_equal(it.groups, comparisons[0].groups) for it in comparisons):
        raise EstimatorError(
            f"The snapshots of {run.name!r} have different test rows for "
            f"{comparisons[0].first.task!r}, so that they cannot be compared row by row.",
            hint="Extract all snapshots from the same source, and probe them again.",
        )


def _by_cut(comparisons: Sequence[Comparison]) -> tuple[dict[str, Comparison], list[str]]:
    """Return the snapshots of every cut that all have, in depth order, and the other cuts."""
    names = list(dict.fromkeys(cut for it in comparisons for cut in it.cuts))
    common = [cut for cut in comparisons[-1].cuts if all(cut in it.cuts for it in comparisons)]
    if not common:
        raise EstimatorError(
            f"No cut has a score of {comparisons[0].first.task!r} in every snapshot.",
            hint="Extract the same cuts of all snapshots, and see the notes of failed cells.",
        )
    by_cut = {cut: _joined(it.picked([it.cuts.index(cut)]) for it in comparisons) for cut in common}
    return by_cut, [cut for cut in names if cut not in by_cut]


def _joined(snapshots: Iterable[Comparison]) -> Comparison:
    """Return one comparison of what is in several over the same rows."""
    items = list(snapshots)
    return Comparison(
        tuple(score for it in items for score in it.scores),
        tuple(losses for it in items for losses in it.losses),
        items[0].groups,
    )


def _shown_cuts(by_cut: Mapping[str, Comparison]) -> tuple[str, str, str]:
    """Return the cut in the middle of the trunk, the trunk's last one, and the last of all."""
    names = list(by_cut)
    of_trunk = [cut for cut in names if by_cut[cut].first.part == "trunk"] or names
    return of_trunk[(len(of_trunk) - 1) // 2], of_trunk[-1], names[-1]


def _run(drawn: Sequence[Resampled], epochs: Sequence[float]) -> Run:
    """Return layers along a run; all have the same resamples of the rows."""
    draws = torch.cat([it.draws for it in drawn], dim=1)
    groups = drawn[0].groups
    # The spread of resamples is that of a sample of G with divisor G.
    covariance = torch.cov(draws.T, correction=0) * groups / (groups - 1)
    shape = (len(drawn), len(epochs), len(drawn), len(epochs))
    losses = torch.stack([it.estimate for it in drawn])
    return Run(losses, covariance.reshape(shape), tuple(epochs), groups)


def _layer_curve(
    snapshots: Comparison, epochs: Sequence[float], drawn: Resampled, level: float, seed: int
) -> LayerCurve:
    first = snapshots.first
    run = _run([drawn], epochs)
    peak = lowest_average(torch.tensor([float(it.val.mean()) for it in snapshots.losses]))
    test = [mean_metric(first, it.test) for it in snapshots.losses]
    known = len(epochs) >= TREND
    return LayerCurve(
        cut=first.cut,
        part=first.part,
        depth=first.depth,
        val=tuple(mean_metric(first, it.val) for it in snapshots.losses),
        test=tuple(test),
        stderr=tuple(score.stderr for score in snapshots.scores),
        smoothed=tuple((moving_average(len(test)) @ torch.tensor(test).double()).tolist()),
        noise=math.sqrt(run.noise([peak]).covariance) if known else math.nan,
        peak=epochs[peak],
        fall=decline(run, [peak], level=level, seed=seed),
    )


def _difference(
    drawn: Mapping[str, Resampled],
    peaks: Mapping[str, int],
    cuts: tuple[str, str],
    epochs: Sequence[float],
    level: float,
    seed: int,
) -> Interval:
    """Return the first cut's fall minus that of the second."""
    if cuts[0] == cuts[1]:
        return Interval(0.0, 0.0, 0.0)
    run = _run([drawn[cut] for cut in cuts], epochs)
    return decline(run, [peaks[cut] for cut in cuts], level=level, seed=seed)


def _plateau(
    drawn: Resampled, epochs: Sequence[float], peak: int, level: float, seed: int
) -> tuple[float, float]:
    """Return the ends of the epochs that are tied with the best, the peak included."""
    if len(epochs) < TREND:
        return epochs[0], epochs[-1]
    bound = math.sqrt(_run([drawn], epochs).noise([peak]).bound)
    noise = TrainingNoise.assumed(torch.full((len(epochs),), bound))
    smooth = drawn.with_noise(noise, seed).combined(moving_average(len(epochs)).T)
    tied = [i for i, p in enumerate(p_values(smooth).tolist()) if p > 1 - level]
    return epochs[min([*tied, peak])], epochs[max([*tied, peak])]


def _measure_curve(
    cut: str,
    named: tuple[str, str, str],
    comparisons: Sequence[Comparison],
    rows: Sequence[Mapping[tuple[str, str, str], MeasureAtCuts]],
    drawn: Resampled,
    peak: int,
    level: float,
    seed: int,
) -> MeasureCurve:
    values, errors = [], []
    for comparison, row in zip(comparisons, rows, strict=True):
        place = comparison.cuts.index(cut)
        values.append(row[named].values[place] if named in row else math.nan)
        errors.append(row[named].errors[place] if named in row else math.nan)
    first = next(row[named].first for row in rows if named in row)
    sign = 1 if first.direction == "maximise" else -1

    def tau(start: int) -> Interval:
        known = [i for i in range(start, len(values)) if math.isfinite(values[i])]
        if len(known) < FEWEST:
            return Interval(math.nan, math.nan, math.nan)
        goodness = sign * torch.tensor([values[i] for i in known], dtype=torch.float64)
        noise = torch.tensor([errors[i] for i in known], dtype=torch.float64)
        some = Resampled(drawn.estimate[known], drawn.draws[:, known], drawn.groups)
        return over_rows(goodness, noise, some, kendall, level=level, seed=seed)

    return MeasureCurve(
        cut=cut,
        measure=first.estimator,
        measure_metric=first.metric,
        labels=first.labelled,
        direction=first.direction,
        values=tuple(values),
        stderr=tuple(errors),
        tau=tau(0),
        tau_from_peak=tau(peak),
    )


def sentence(found: Series, titles: Mapping[str, str]) -> str:
    """Return in one plain sentence whether the last layer over-fits and the early one does not."""
    last, early = found.curve(found.last), found.curve(found.early)
    parts = [_describe_layer(found, last)]
    if found.early != found.last:
        parts.append(_describe_layer(found, early))
        parts.append(_contrast(found))
    asked = f"{found.run}, {titles.get(found.task, found.task)}"
    return f"{asked}: {'; '.join(parts)}. {found.note}".strip()


def _describe_layer(found: Series, curve: LayerCurve) -> str:
    end, fall = found.epochs[-1], curve.fall
    at = f"{found.axis} {curve.peak:g}"
    if curve.peak == end:
        return f"{curve.cut} is at its best at the end, at {at} (by validation)"
    if math.isnan(fall.low):
        return (
            f"of {curve.cut} it cannot be told whether it falls after {at}: {len(found.epochs)} "
            f"snapshots do not show how much they vary by chance ({TREND} would)"
        )
    lost = f"{fall.estimate:.3g} {found.metric} {ends(fall)}"
    if curve.falls:
        tied = ""
        if curve.cut == found.last and found.plateau[0] != found.plateau[1]:
            tied = f", {found.plateau[0]:g} to {found.plateau[1]:g} not told from the best"
        return f"{curve.cut} over-fits after {at} (its best by validation{tied}): {lost} by {end:g}"
    if fall.high < 0:
        gained = Interval(-fall.estimate, -fall.high, -fall.low)
        return (
            f"{curve.cut} is better at the end than at {at}, which validation preferred: by "
            f"{gained.estimate:.3g} {found.metric} {ends(gained)}"
        )
    return f"of {curve.cut} it cannot be told whether it falls after {at} ({lost} by {end:g})"


def _contrast(found: Series) -> str:
    gap = found.contrast
    if math.isnan(gap.low):
        return "the two are not told apart"
    if gap.low > 0:
        return f"{found.last} loses {gap.estimate:.3g} more than {found.early} {ends(gap)}"
    if gap.high < 0:
        more = Interval(-gap.estimate, -gap.high, -gap.low)
        return f"{found.early} loses {more.estimate:.3g} more than {found.last} {ends(more)}"
    return f"the two are not told apart ({gap.estimate:.3g} {ends(gap)})"
