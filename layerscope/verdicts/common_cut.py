"""One cut for all tasks of a checkpoint, and what each task gives up for it.

A task's regret at a cut is the loss there minus the loss at the task's own best cut. Losses of
different tasks have different units, so each regret is divided by its task's validation loss at an
average cut: the mean over the cuts that all tasks have. The loss at the trunk alone would not do; a
task that is nearly solved there would outweigh all others. The cut is the one of least mean regret
on the validation rows, every task counting once; of equal ones the shallowest. What is reported
comes from the test rows, which chose neither the cut nor any task's own best, so that a regret may
come out negative.

Intervals are those of :mod:`layerscope.verdicts.comparison`, another training sample included.
Tasks that share their test rows share their resamples, so that the mean's interval knows that they
are not independent; each task's probes have training noise of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import torch

from layerscope.errors import EstimatorError
from layerscope.results.equal_cuts import group_equal_cuts, other_names
from layerscope.results.grouping import grouped
from layerscope.stats.bootstrap import RESAMPLES, Resampled, difference
from layerscope.stats.training_noise import mean_of_independent
from layerscope.types import Interval, Score, label
from layerscope.verdicts.comparison import Comparison, in_runs, interval, resampled, usual

FEWEST = 2
"""Tasks below which one cut for all of them is no question."""


@dataclass(frozen=True, slots=True)
class Regret:
    """What one task gives up for a cut that serves all tasks, on its test rows."""

    task: str
    estimator: str
    own: str
    """The task's own best cut, chosen on its validation rows among all that it has."""
    regret: Interval
    """Loss of the one cut minus loss of ``own``, in units of an average cut's validation loss."""
    gain: Interval
    """Loss of the trunk minus loss of the one cut, in the same units: positive is better."""


@dataclass(frozen=True, slots=True)
class CommonCut:
    """One cut for all tasks of a checkpoint."""

    checkpoint: str
    cut: str
    """Of least mean regret on validation, among the cuts that have a score in every task."""
    trunk: str
    """The usual cut, with which it is compared."""
    regret: Interval
    """Mean over tasks, on test."""
    gain: Interval
    """Over the trunk: mean over tasks, on test."""
    tasks: tuple[Regret, ...]
    left_out: tuple[str, ...]
    """Cuts that lack a score in some task."""
    level: float
    note: str = ""
    equal_cuts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By cut: the other names of it, which are cuts whose features are the same numbers."""

    def label(self, cut: str) -> str:
        """Return a cut's name with its other names."""
        return label(cut, self.equal_cuts)


def find_common_cut(
    comparisons: Sequence[Comparison],
    *,
    level: float = 0.95,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> CommonCut:
    """Choose one cut for several tasks on their validation rows and judge it on their test rows.

    Args:
        comparisons: One for each task of one checkpoint, or several that differ in the estimator;
            of those the estimator counts whose best cut has the least validation loss.
        level: Coverage of the intervals.
        seed: Of the resamples.
        resamples: Number of them.

    Raises:
        EstimatorError: Fewer than two tasks, no cut that has a score in all of them, fewer than two
            groups, or a task without any validation loss to measure regrets by.
    """
    chosen = _one_per_task(comparisons)
    if len(chosen) < FEWEST:
        raise EstimatorError(
            f"One cut for all tasks needs {FEWEST} tasks, and there are {len(chosen)}.",
            hint="Probe more tasks of the same checkpoint.",
        )
    common, left_out, equal = _common(chosen)
    place, note = usual(chosen[0].picked(chosen[0].cuts.index(cut) for cut in common))
    trunk = common[place]
    scales = [_scale(comparison, common) for comparison in chosen]
    cut = common[int(np.argmin(_regrets(chosen, common, scales)))]
    chosen = [comparison.merged() for comparison in chosen]
    drawn = _resample_tasks(chosen, seed, resamples)
    regrets, gains = [], []
    for comparison, draws, scale in zip(chosen, drawn, scales, strict=True):
        here, there = (comparison.place(it) for it in (cut, trunk))
        regrets.append(_scaled_difference(draws, here, comparison.best, scale))
        gains.append(_scaled_difference(draws, there, here, scale))
    return CommonCut(
        checkpoint=chosen[0].first.checkpoint,
        cut=cut,
        trunk=trunk,
        regret=interval(_mean_over_tasks(regrets), level),
        gain=interval(_mean_over_tasks(gains), level),
        tasks=tuple(
            Regret(
                comparison.first.task,
                comparison.first.estimator,
                comparison.cuts[comparison.best],
                interval(regret, level),
                interval(gain, level),
            )
            for comparison, regret, gain in zip(chosen, regrets, gains, strict=True)
        ),
        left_out=left_out,
        level=level,
        note=note,
        equal_cuts=equal,
    )


def common_cuts(
    comparisons: Sequence[Comparison], *, level: float = 0.95, seed: int = 0
) -> tuple[list[CommonCut], list[str]]:
    """Return one cut for every checkpoint of several tasks, and why there is none for others."""
    as_usual = (comparison for comparison in comparisons if comparison.first.usual)
    found, reasons = [], []
    for checkpoint, items in grouped(as_usual, "first.checkpoint").items():
        if len({item.first.task for item in items}) < FEWEST:
            continue
        try:
            found.append(find_common_cut(items, level=level, seed=seed))
        except EstimatorError as error:
            reasons.append(f"{checkpoint}: no cut for all tasks. {error}")
    return found, reasons


def sentence(found: CommonCut, titles: Mapping[str, str]) -> str:
    """Return the one cut and its cost in one plain sentence, with titles by task.

    Examples:
        >>> none = Interval(0.0, 0.0, 0.0)
        >>> sentence(CommonCut(
        ...     "simclr", "layer3.0", "trunk", Interval(0.02, 0.01, 0.03), Interval(0.3, 0.2, 0.4),
        ...     (Regret("hue", "ridge", "layer2.0", Interval(0.04, 0.02, 0.06), none),
        ...      Regret("pose", "ridge", "layer3.0", none, none)), (), 0.95), {"hue": "Floor hue"})
        "One cut for all 2 tasks: layer3.0; against each task's own best it costs 2 % [1 %, 3 %] of an average cut's error, most for Floor hue (4 %); better than trunk by 30 % [20 %, 40 %] of it."
    """  # noqa: E501
    worst = max(found.tasks, key=lambda one: one.regret.estimate)
    regret = found.regret
    parts = [
        f"One cut for all {len(found.tasks)} tasks: {found.label(found.cut)}",
        f"against each task's own best it costs {_percent(regret.estimate)} "
        f"{_bounds(regret.low, regret.high)} of an average cut's error, most for "
        f"{titles.get(worst.task, worst.task)} ({_percent(worst.regret.estimate)})",
        _against_trunk(found),
    ]
    if found.left_out:
        parts.append(f"left out, without a score in every task: {in_runs(found.left_out, ())}")
    return f"{'; '.join(parts)}. {found.note}".strip()


def _against_trunk(found: CommonCut) -> str:
    gain = found.gain
    if found.cut == found.trunk:
        return "it is the usual cut"
    if gain.low <= 0 <= gain.high:
        return f"not told from {found.trunk} on average"
    word, ends = "better", (gain.low, gain.high)
    if gain.estimate < 0:
        word, ends = "worse", (-gain.high, -gain.low)
    return f"{word} than {found.trunk} by {_percent(abs(gain.estimate))} {_bounds(*ends)} of it"


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _bounds(low: float, high: float) -> str:
    return f"[{_percent(low)}, {_percent(high)}]"


def _one_per_task(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Return one comparison for each task, so that no task counts twice."""

    def loss(comparison: Comparison) -> float:
        return float(comparison.losses[comparison.best].val.mean())

    by_task = grouped(comparisons, "first.task").values()
    # Losses of two metrics say nothing of which estimator is better.
    alike = ([it for it in group if it.first.metric == group[0].first.metric] for group in by_task)
    return [min(group, key=loss) for group in alike]


def _common(
    comparisons: Sequence[Comparison],
) -> tuple[list[str], tuple[str, ...], dict[str, tuple[str, ...]]]:
    """Return the cuts that every task has, those that some lack, and the former's other names.

    Cuts with the same features in every task are one. All are in depth order.
    """
    scores = sorted(
        (s for comparison in comparisons for s in comparison.scores), key=lambda s: s.index
    )
    names = list(dict.fromkeys(score.cut for score in scores))
    known = [cut for cut in names if all(cut in comparison.cuts for comparison in comparisons)]
    if not known:
        raise EstimatorError(
            "No cut has a score in every task.",
            hint="Extract the same cuts for all sources, and see the notes of failed cells.",
        )
    whole = [_with_all_contents(comparisons, cut) for cut in known]
    groups = group_equal_cuts(whole)
    common = [known[first] for first, *_ in groups]
    return common, tuple(cut for cut in names if cut not in known), other_names(whole, groups)


def _with_all_contents(comparisons: Sequence[Comparison], cut: str) -> Score:
    """Return a cut's score whose content is that of its features in all tasks, if known."""
    scores = [comparison.scores[comparison.cuts.index(cut)] for comparison in comparisons]
    contents = [score.content for score in scores]
    return replace(scores[0], content=" ".join(contents) if all(contents) else "")


def _scale(comparison: Comparison, cuts: Sequence[str]) -> float:
    """Return the validation loss at an average cut."""
    loss = float(np.mean(_validation_losses(comparison, cuts)))
    if loss <= 0:
        raise EstimatorError(
            f"{comparison.first.task!r} is solved without any error at every cut, so that no "
            "regret can be measured by it.",
            hint="Leave the task out with --tasks.",
        )
    return loss


def _validation_losses(comparison: Comparison, cuts: Sequence[str]) -> list[float]:
    places = map(comparison.cuts.index, cuts)
    return [float(comparison.losses[place].val.mean()) for place in places]


def _regrets(
    comparisons: Sequence[Comparison], cuts: Sequence[str], scales: Sequence[float]
) -> npt.NDArray[np.float64]:
    """Return the (cuts,) mean regret over tasks on the validation rows."""
    regrets = np.zeros(len(cuts))
    for comparison, scale in zip(comparisons, scales, strict=True):
        own = comparison.losses[comparison.best].val.mean()
        losses = np.array(_validation_losses(comparison, cuts))
        regrets += (losses - own) / scale / len(comparisons)
    return regrets


def _resample_tasks(
    comparisons: Sequence[Comparison], seed: int, resamples: int
) -> list[Resampled]:
    """Resample every task, with the same weights where the test rows are the same."""
    rows = [(comparison.first.source, comparison.groups.tobytes()) for comparison in comparisons]
    known = list(dict.fromkeys(rows))
    return [
        resampled(
            comparison,
            resamples,
            seed + known.index(which),
            noise_seed=seed + len(comparisons) + number,
        )
        for number, (comparison, which) in enumerate(zip(comparisons, rows, strict=True))
    ]


def _scaled_difference(draws: Resampled, first: int, second: int, scale: float) -> Resampled:
    gap = difference(draws, first, second)
    return gap.combined(torch.tensor([[1 / scale]], dtype=torch.float64))


def _mean_over_tasks(tasks: Sequence[Resampled]) -> Resampled:
    return Resampled(
        torch.stack([task.estimate for task in tasks]).mean(0),
        torch.stack([task.draws for task in tasks]).mean(0),
        min(task.groups for task in tasks),
        mean_of_independent([task.training for task in tasks if task.training is not None]),
    )
