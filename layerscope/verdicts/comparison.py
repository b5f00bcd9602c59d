"""The verdict: where to cut for one task, and how sure one can be.

The cut is chosen by the mean loss on the validation rows and judged on the disjoint test rows, so
that its value and its gains carry no selection bias: the test rows had no say in the choice.
Nothing is computed on training rows. Intervals and the tied set are those of
:mod:`layerscope.stats.bootstrap`: paired over the same rows, whole groups drawn together.

The rows answer for the test sample alone. Two layers that carry the same information still get
different probes, and enough test rows would call one of the two the winner; so every draw also
carries the noise of another training sample. It is measured where the results hold losses of probes
of other training rows (:mod:`layerscope.stats.training_noise`). Where they do not, it is that of
least squares: with d features on n groups of rows its excess loss is σ²χ²(d)/n, hence a standard
deviation of √(2d)/n of its loss σ², for each layer independently.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import compress
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from layerscope.errors import EstimatorError
from layerscope.results.constants import constant_of
from layerscope.results.equal_cuts import group_equal_cuts, other_names
from layerscope.results.grouping import grouped
from layerscope.results.store import Results
from layerscope.stats.bootstrap import (
    RESAMPLES,
    Resampled,
    difference,
    p_values,
    p_values_against,
    resample,
    resamples_won,
)
from layerscope.stats.bounded_interval import positive_interval, share_interval
from layerscope.stats.paired import holm, mcnemar
from layerscope.stats.training_noise import TrainingNoise, averaged, spread, training_noise
from layerscope.types import (
    TRUNK,
    Constant,
    Interval,
    Losses,
    Replicates,
    Score,
    TrainingNoiseFrom,
    Verdict,
)
from layerscope.verdicts.over_constant import gain_over_constant

_LONG_RUN = 2
DRAWS = 5
"""Draws of training rows from which on their spread is the estimate of the noise of training."""
NO_TRUNK = "No cut of the trunk has a score; the gain is over the last cut."


@dataclass(frozen=True, slots=True)
class Comparison:
    """The cuts of one checkpoint, task and estimator, with all that is needed to compare them."""

    scores: tuple[Score, ...]
    """Primary scores that are done, in depth order, one for each cut."""
    losses: tuple[Losses, ...]
    """One for each score."""
    groups: npt.NDArray[np.str_]
    """(n_test,) group of each test row."""
    note: str = ""
    """Which cuts were left out, and why."""
    constant: Constant | None = None
    """The constant answer; None where none was kept, as in older results."""
    equal_cuts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By cut: its other names, where cuts with the same features are one."""

    @property
    def first(self) -> Score:
        """The shallowest; what it says of the checkpoint, task and estimator holds for all."""
        return self.scores[0]

    @property
    def cuts(self) -> list[str]:
        """Names of the cuts."""
        return [score.cut for score in self.scores]

    @property
    def best(self) -> int:
        """Place of the cut that the validation rows prefer."""
        return lowest([losses.val for losses in self.losses])

    def picked(self, places: Iterable[int]) -> Comparison:
        """Return the comparison of some cuts only, without a note."""
        scores, losses = zip(*((self.scores[i], self.losses[i]) for i in places), strict=True)
        return Comparison(scores, losses, self.groups)

    def place(self, cut: str) -> int:
        """Return the place of a cut by any of its names."""
        names = ((it, *self.equal_cuts.get(it, ())) for it in self.cuts)
        return next(place for place, known in enumerate(names) if cut in known)

    def merged(self) -> Comparison:
        """Return the comparison in which cuts with the same features are one.

        One cut has one place in the tied set; counted twice it would be tied with itself, and would
        gain over itself by the noise of another training sample.
        """
        groups = group_equal_cuts(self.scores)
        whole = self.picked(first for first, *_ in groups)
        names = other_names(self.scores, groups)
        return replace(whole, note=self.note, constant=self.constant, equal_cuts=names)


def verdict(
    comparison: Comparison, *, level: float = 0.95, seed: int = 0, resamples: int = RESAMPLES
) -> Verdict:
    """Choose a cut on the validation rows and judge it on the test rows.

    Args:
        comparison: At least one cut.
        level: Coverage of the intervals and of the tied set.
        seed: Of the resamples.
        resamples: Number of them.

    Raises:
        EstimatorError: No cut, a cut twice, fewer than two groups, or losses of another number of
            rows.
    """
    _check(comparison)
    last_name, comparison = comparison.cuts[-1], comparison.merged()
    first, names, best = comparison.first, comparison.cuts, comparison.best
    test = resampled(comparison, resamples, seed, noise_seed=seed + 1)
    accepted = [bool(p > 1 - level) for p in p_values(test)]
    tied = tuple(cut for i, cut in enumerate(names) if accepted[i] or i == best)
    trunk, note = usual(comparison)
    read = against_constant(comparison, test, seed=seed, level=level)
    return Verdict(
        checkpoint=first.checkpoint,
        task=first.task,
        estimator=first.estimator,
        metric=first.metric,
        direction=first.direction,
        best=names[best],
        value=_value(test, best, first, len(comparison.groups), level),
        tied=tied,
        shallowest=tied[0],
        trunk=names[trunk],
        gain=interval(difference(test, trunk, best), level),
        gain_over_last=interval(difference(test, comparison.place(last_name), best), level),
        resamples_won=dict(zip(names, resamples_won(test).tolist(), strict=True)),
        level=level,
        n_test=len(comparison.groups),
        n_groups=test.groups,
        agrees=accepted[best],
        note=f"{note} {read.note}".strip(),
        pooling=comparison.scores[best].pooling,
        tied_holm=_tied_holm(test, best, names, level),
        draw=first.draw,
        folds=first.folds,
        control=first.control,
        trained=first.trained,
        mcnemar=_mcnemar(comparison, best, trunk, test.groups),
        training_noise=_noise_from(comparison),
        reads=read.reads,
        constant=read.constant,
        over_constant=read.gain,
        equal_cuts=comparison.equal_cuts,
    )


@dataclass(frozen=True, slots=True)
class AgainstConstant:
    """The best cut against a constant answer: nothing where none was kept."""

    reads: bool | None = None
    constant: float | None = None
    gain: Interval | None = None
    note: str = ""


def against_constant(
    comparison: Comparison, test: Resampled, *, seed: int, level: float
) -> AgainstConstant:
    """Compare the best cut with the constant answer, on validation and on test rows.

    Args:
        comparison: The cuts.
        test: Their mean test losses.
        seed: Of the resamples of ``test``.
        level: Coverage of the gain's interval.
    """
    if comparison.constant is None:
        return AgainstConstant()
    known, best = comparison.constant.losses, comparison.best
    if known is None:
        reason = comparison.constant.note
        return AgainstConstant(note=f"Not compared with a constant answer. {reason}")
    gain = interval(gain_over_constant(test, best, known.test, comparison.groups, seed), level)
    on_val = float(known.val.mean() - comparison.losses[best].val.mean())
    value = mean_metric(comparison.first, known.test)
    return AgainstConstant(gain.low > 0 and on_val > 0, value, gain)


def verdicts(results: Results, *, level: float = 0.95, seed: int = 0) -> list[Verdict]:
    """Return the verdict of every checkpoint, task, estimator and arrangement with a score."""
    return note_widths([(it, verdict(it, level=level, seed=seed)) for it in comparisons(results)])


def comparisons(results: Results) -> list[Comparison]:
    """Return the comparison of every checkpoint, task, estimator and arrangement with a score."""
    probes = (it for it in results.scores() if it.primary and it.kind == "probe")
    questions = grouped(probes, "checkpoint", "source", "task", "estimator", "train", "control")
    found = (comparison(results, scores) for scores in questions.values())
    return [item for item in found if item.scores]


def comparison(results: Results, scores: Sequence[Score]) -> Comparison:
    """Gather the cuts of one checkpoint, source, task, estimator and arrangement.

    Those that failed or belong to an older cache are left out. Of a cut in several poolings, the
    one that validation prefers stands for it. Of several seeds, the mean loss of every row counts.
    """
    first = scores[0]
    groups, fingerprint = results.groups(first.checkpoint, first.source, first.task)
    ordered = sorted(scores, key=lambda score: (score.index, score.seed))
    names = _labels(ordered)
    broken = [score.status == "failed" for score in ordered]
    stale = [score.fingerprint != fingerprint for score in ordered]
    newest = max(score.revision for score in ordered)
    older = [score.revision != newest for score in ordered]
    wrong = list(zip(broken, stale, older, strict=True))
    kept = [score for score, reasons in zip(ordered, wrong, strict=True) if not any(reasons)]
    layers = grouped(kept, "cut", "pooling").values()
    chosen, choice = _in_one_pooling([_over_seeds(results, layer) for layer in layers])
    left_out = [
        f"Left out, {reason}: {', '.join(compress(names, which))}."
        for reason, which in (
            ("failed", broken),
            ("from another cache", stale),
            ("of an older version; probe again", older),
        )
        if any(which)
    ]
    if first.views_of:
        left_out.append(f"The rows are augmented views: {first.source}.")
    return Comparison(
        tuple(score for score, _ in chosen),
        tuple(losses for _, losses in chosen),
        groups,
        " ".join([*left_out, *choice]),
        constant_of(results, kept) if kept else None,
    )


def _labels(scores: Sequence[Score]) -> list[str]:
    """Return the name of each score's cut, with the pooling where the cut has several."""
    counts = Counter(cut for cut, _ in {(score.cut, score.pooling) for score in scores})
    return [f"{s.cut}@{s.pooling}" if counts[s.cut] > 1 else s.cut for s in scores]


def _over_seeds(results: Results, scores: Sequence[Score]) -> tuple[Score, Losses]:
    """Return the first seed's score, with the mean over seeds of each row's loss."""
    found = [results.losses(score) for score in scores]
    val, test = (np.mean([getattr(it, rows) for it in found], axis=0) for rows in ("val", "test"))
    first = found[0]
    replicates = first.replicates if len(found) == 1 else _over_draws(found)
    merged = Losses(val, test, None, replicates, first.train_groups, first.train_share)
    return scores[0], merged


def _over_draws(found: Sequence[Losses]) -> tuple[Replicates, ...]:
    """Return how much the mean over several seeds varies from training sample to training sample.

    Seeds that draw no rows vary the start of a fit alone, and not what it is fitted to.
    """
    share = found[0].train_share
    sources = [averaged(it) for it in zip(*(it.replicates for it in found), strict=False)]
    if share < 1 and len(found) >= DRAWS:
        of_draws = spread(np.stack([it.test for it in found]), share)
        return of_draws, *(it for it in sources if it.kind == "choices")
    return tuple(sources)


def note_widths(verdicts: Sequence[tuple[Comparison, Verdict]]) -> list[Verdict]:
    """Return verdicts with a note where the width of cuts, and nothing else, might decide.

    A wide layer may win a linear probe by its width alone. Where cuts that are narrower than the
    best are rejected, a verdict at equal width tells; where there is none, how to have it is said.
    """
    equal = {_question(it): it for _, it in verdicts if it.control.equal_width}
    return [
        it
        if it.control or it.unread
        else replace(it, note=f"{it.note} {_width_note(comparison.merged(), it, equal)}".strip())
        for comparison, it in verdicts
    ]


def _question(verdict: Verdict) -> tuple[str, ...]:
    return verdict.checkpoint, verdict.task, verdict.estimator, verdict.train


def _width_note(
    comparison: Comparison, verdict: Verdict, equal: Mapping[tuple[str, ...], Verdict]
) -> str:
    width = {score.cut: score.width for score in comparison.scores}
    narrower = [cut for cut in width if width[cut] < width[verdict.best]]
    if all(cut in verdict.tied for cut in narrower):
        return ""
    other = equal.get(_question(verdict))
    if other is None:
        return (
            f"Cuts have {min(width.values())} to {max(width.values())} features; --control "
            f"width={min(width.values())} tells whether width alone decides."
        )
    if verdict.best in other.tied:
        return f"At equal width ({other.control}) the cut stands."
    return f"At equal width ({other.control}) the cut is {other.best}: width decides here."


def _in_one_pooling(
    entries: Sequence[tuple[Score, Losses]],
) -> tuple[list[tuple[Score, Losses]], list[str]]:
    """Keep of each cut the pooling of least validation loss, and say which where it had several.

    A cut is one cut however it is pooled: counted once for each pooling, it would be tied with
    itself, and the correction for having looked at many layers would be wrong.
    """
    by_cut: dict[str, list[tuple[Score, Losses]]] = defaultdict(list)
    for score, losses in entries:
        by_cut[score.cut].append((score, losses))
    kept = [group[lowest([losses.val for _, losses in group])] for group in by_cut.values()]
    several = grouped((it for it, _ in kept if len(by_cut[it.cut]) > 1), "pooling")
    named = [
        f"{pooling} at {in_runs([it.cut for it in scores], list(by_cut))}"
        for pooling, scores in several.items()
    ]
    return kept, [f"Pooling chosen on validation: {'; '.join(named)}."] if named else []


def oracle(comparison: Comparison) -> str:
    """Return the cut of least test loss: what hindsight would have chosen, never the headline.

    A maximum over the reported split is optimistic, and the more so the more cuts there are.
    """
    return comparison.scores[lowest([losses.test for losses in comparison.losses])].cut


def in_runs(cuts: Sequence[str], order: Sequence[str]) -> str:
    """Return a list of cuts in which three neighbours or more are named by their ends.

    Args:
        cuts: Names in depth order.
        order: All cuts in depth order; without them nothing is a neighbour.

    Examples:
        >>> in_runs(["a", "b", "c", "e", "f"], ["a", "b", "c", "d", "e", "f"])
        'a–c, e, f'
    """
    place = {cut: i for i, cut in enumerate(order)}
    runs: list[list[str]] = []
    for cut in cuts:
        neighbour = runs and cut in place and place.get(runs[-1][-1]) == place[cut] - 1
        runs[-1].append(cut) if neighbour else runs.append([cut])
    return ", ".join(
        f"{run[0]}–{run[-1]}" if len(run) > _LONG_RUN else ", ".join(run) for run in runs
    )


def sentence(verdict: Verdict, title: str = "") -> str:
    """Return the verdict in one plain sentence, with a title in place of the task's name.

    Examples:
        >>> sentence(Verdict(
        ...     checkpoint="simclr", task="hue", estimator="ridge", metric="mse",
        ...     direction="minimise", best="layer2.0", value=Interval(0.012, 0.010, 0.014),
        ...     tied=("layer1.1", "layer2.0"), shallowest="layer1.1", trunk="trunk",
        ...     gain=Interval(0.008, 0.006, 0.010), gain_over_last=Interval(0.1, 0.09, 0.11),
        ...     resamples_won={}, level=0.95, n_test=400, n_groups=20, agrees=True,
        ... ), "Floor hue")
        'Floor hue: cut at layer2.0 (mse 0.012 [0.01, 0.014]); tied with layer1.1; shallowest tied layer1.1; 40 % lower error than trunk [30 %, 50 %].'
    """  # noqa: E501
    worth = f"{verdict.metric} {verdict.value.estimate:.3g} {ends(verdict.value)}"
    way = f" [{verdict.way}]" if verdict.way else ""
    asked, best = f"{title or verdict.task}{way}", verdict.label(verdict.best)
    if verdict.over_constant is not None and verdict.unread:
        gain = f"{verdict.over_constant.estimate:.3g} {ends(verdict.over_constant)}"
        return (
            f"{asked}: no layer is shown to read this better than a constant ({best}, which "
            f"validation prefers, has {worth}, a constant {verdict.constant:.3g}; the gain is "
            f"{gain})."
        )
    parts = [f"{asked}: cut at {best} ({worth})", *_describe_ties(verdict), _describe_gain(verdict)]
    return "; ".join(parts) + "."


def named(verdict: Verdict, cuts: Iterable[str]) -> str:
    """Return some of a verdict's cuts, each with all its names and neighbours by their ends."""
    labels = [verdict.label(cut) for cut in cuts]
    return in_runs(labels, [verdict.label(cut) for cut in verdict.resamples_won])


def with_sentence(verdict: Verdict, title: str = "") -> dict[str, Any]:
    """Return a verdict for JSON and CSV: its sentence, then its fields."""
    return {"sentence": sentence(verdict, title), **verdict.row()}


def _check(comparison: Comparison) -> None:
    if not comparison.scores:
        raise EstimatorError(
            "There is no cut to give a verdict on.",
            hint="All cells of the task failed; see their notes in the table of scores.",
        )
    repeated, count = Counter(comparison.cuts).most_common(1)[0]
    if count > 1:
        raise EstimatorError(
            f"{repeated!r} stands in the comparison more than once.",
            hint="Give each cut in one pooling.",
        )
    for score, losses in zip(comparison.scores, comparison.losses, strict=True):
        if len(losses.test) != len(comparison.groups):
            raise EstimatorError(
                f"{score.cut!r} has {len(losses.test)} test losses for "
                f"{len(comparison.groups)} rows.",
                hint="Run the probe again with --existing replace.",
            )


def lowest(losses: Sequence[npt.NDArray[np.float64]]) -> int:
    """Return the layer of least mean loss; of equal ones the shallowest."""
    return int(np.argmin([rows.mean() for rows in losses]))


def mean_metric(score: Score, losses: npt.NDArray[np.float64]) -> float:
    """Return the metric that rows with these losses have, in the direction of a score."""
    mean = float(losses.mean())
    return mean if score.direction == "minimise" else 1 - mean


def resampled(comparison: Comparison, resamples: int, seed: int, *, noise_seed: int) -> Resampled:
    """Return the mean test loss of every cut with its draws, another training sample included."""
    rows = torch.tensor(np.stack([losses.test for losses in comparison.losses], axis=1))
    _, places = np.unique(comparison.groups, return_inverse=True)
    groups = torch.tensor(places.ravel())
    test = resample(rows, groups, resamples=resamples, seed=seed)
    return test.with_noise(_training_noise(comparison, test.estimate, groups), noise_seed)


def _training_noise(comparison: Comparison, means: Tensor, groups: Tensor) -> TrainingNoise:
    """Return how another training sample would move the mean losses of all cuts."""
    measured = _replicates(comparison)
    if measured:
        return training_noise(measured, groups)
    pairs = zip(comparison.scores, comparison.losses, strict=True)
    share = torch.tensor([_assumed_share(score, losses) for score, losses in pairs])
    return TrainingNoise.assumed(share * means.abs())


def _noise_from(comparison: Comparison) -> TrainingNoiseFrom:
    measured = _replicates(comparison)
    kind = measured[0][0].kind if measured else "assumed"
    return "refits" if kind == "choices" else kind


def _replicates(comparison: Comparison) -> list[tuple[Replicates, ...]]:
    """Return the replicates of all cuts, or none where some cut has none or others."""
    known = [it.replicates for it in comparison.losses]
    ways = {tuple((it.kind, len(it.losses)) for it in each) for each in known}
    return known if len(ways) == 1 and all(known) else []


def _assumed_share(score: Score, losses: Losses) -> float:
    """Return the share of a probe's loss by which least squares would change it."""
    count = losses.train_groups or score.n_train
    return math.sqrt(2 * min(score.width, count)) / count


def _tied_holm(test: Resampled, best: int, names: Sequence[str], level: float) -> tuple[str, ...]:
    """Return the cuts that pairwise tests against the chosen one do not reject, Holm-corrected."""
    others = [i for i in range(len(names)) if i != best]
    corrected = holm(p_values_against(test, best)[others])
    worse = {i for i, p in zip(others, corrected.tolist(), strict=True) if p <= 1 - level}
    return tuple(cut for i, cut in enumerate(names) if i not in worse)


def _mcnemar(comparison: Comparison, best: int, trunk: int, groups: int) -> float | None:
    """Return McNemar's p-value of the best cut against the usual one, where it can be had."""
    pair = torch.tensor(np.stack([comparison.losses[i].test for i in (best, trunk)]))
    right_or_wrong = bool(((pair == 0) | (pair == 1)).all())
    if best == trunk or not right_or_wrong or groups < len(comparison.groups):
        return None
    return mcnemar(pair[0], pair[1])


def usual(comparison: Comparison) -> tuple[int, str]:
    """Return the cut at the end of the trunk, and the notes, which say if another stands for it."""
    names = comparison.cuts
    if TRUNK in names:
        return names.index(TRUNK), comparison.note
    of_trunk = [i for i, score in enumerate(comparison.scores) if score.part == "trunk"]
    if of_trunk:
        note = f"There is no score of {TRUNK!r}; {names[of_trunk[-1]]!r} stands for it."
        return of_trunk[-1], f"{comparison.note} {note}".strip()
    return len(names) - 1, f"{comparison.note} {NO_TRUNK}".strip()


def _value(test: Resampled, best: int, score: Score, rows: int, level: float) -> Interval:
    """Return the metric itself: the mean loss, or one minus it where more is better."""
    mean, error = float(test.estimate[best]), float(test.standard_error()[best])
    degrees = float(test.degrees()[best])
    if score.direction == "minimise":
        return positive_interval(mean, error, degrees=degrees, level=level)
    return share_interval(
        1 - mean, error, rows=rows, groups=test.groups, degrees=degrees, level=level
    )


def interval(resampled: Resampled, level: float) -> Interval:
    """Return the interval of a single statistic."""
    low, high = resampled.interval(level)
    return Interval(float(resampled.estimate[0]), float(low[0]), float(high[0]))


def ends(found: Interval) -> str:
    """Return the ends of an interval as a sentence has them."""
    return f"[{found.low:.3g}, {found.high:.3g}]"


def by_question(comparisons: Iterable[Comparison]) -> list[list[Comparison]]:
    """Return comparisons of probes fitted as usual, by source, task, estimator and metric."""
    as_usual = (it for it in comparisons if it.first.usual)
    names = ("first.source", "first.task", "first.estimator", "first.train", "first.metric")
    return list(grouped(as_usual, *names).values())


def _describe_ties(verdict: Verdict) -> list[str]:
    others = [cut for cut in verdict.tied if cut != verdict.best]
    names = named(verdict, others)
    if not verdict.agrees:
        return [f"the test rows reject it in favour of {names}"]
    if not others:
        return ["no other cut is tied with it"]
    return [f"tied with {names}", f"shallowest tied {verdict.label(verdict.shallowest)}"]


def _describe_gain(verdict: Verdict) -> str:
    gain = verdict.gain
    if verdict.best == verdict.trunk:
        return "which is the usual cut"
    if gain.low <= 0 <= gain.high:
        tied = verdict.trunk in verdict.tied
        shown = "no cut is shown to be better than" if tied else "not told from"
        return f"{shown} {verdict.trunk}"
    scale, unit = _scale(verdict)
    size, low, high = (abs(end) * scale for end in (gain.estimate, gain.low, gain.high))
    low, high = sorted((low, high))
    better = (gain.estimate > 0) == (verdict.direction == "maximise")
    noun = "error" if verdict.direction == "minimise" else verdict.metric
    word = "higher" if better else "lower"
    than = f"{verdict.trunk} [{low:.3g} {unit}, {high:.3g} {unit}]"
    return f"{size:.3g} {unit} {word} {noun} than {than}"


def _scale(verdict: Verdict) -> tuple[float, str]:
    """Return what turns a gain into percent of the usual cut's error, or into points.

    The usual cut's own error is held fixed in the percentage; it is the best cut's plus the gain.
    """
    if verdict.direction == "maximise":
        return 100.0, "points"
    usual = verdict.value.estimate + verdict.gain.estimate
    return (100.0 / usual, "%") if usual > 0 else (1.0, verdict.metric)
