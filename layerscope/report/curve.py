"""One line of a figure: a metric over the cut points of one checkpoint, in call order."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from layerscope.results.constants import Question
from layerscope.results.equal_cuts import group_equal_cuts, other_names
from layerscope.results.grouping import grouped
from layerscope.types import Constant, Direction, Part, Score, label

NORMAL_95 = 1.959963984540054
GREEK = {"theta": "θ", "phi": "φ"}


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """What one cut is worth on the test split; ``value`` is NaN where the cell failed."""

    cut: str
    index: int
    part: Part
    depth: float
    value: float
    stderr: float

    @property
    def low(self) -> float:
        """Lower end of the 95% interval."""
        return self.value - NORMAL_95 * self.stderr

    @property
    def high(self) -> float:
        """Upper end of the 95% interval."""
        return self.value + NORMAL_95 * self.stderr


@dataclass(frozen=True, slots=True)
class Curve:
    """A metric over depth for one checkpoint, task and estimator."""

    checkpoint: str
    source: str
    task: str
    estimator: str
    metric: str
    direction: Direction
    n_test: int
    n_groups: int
    title: str
    """What to call the task."""
    points: tuple[CurvePoint, ...]
    trained: bool = True
    """Whether the checkpoint's weights come from a training, and not from a seed."""
    constant: float = math.nan
    """What a constant answer is worth; NaN where none was kept."""
    equal_cuts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By cut: its other names, where cuts with the same features are one point."""

    @property
    def cuts(self) -> tuple[str, ...]:
        """Names of the cut points, in call order."""
        return tuple(point.cut for point in self.points)

    @property
    def labels(self) -> dict[str, str]:
        """By cut: its name in figures, with its other names."""
        return {cut: label(cut, self.equal_cuts) for cut in self.cuts}

    @property
    def heads(self) -> tuple[int, ...]:
        """Positions of the head's cut points."""
        return tuple(i for i, point in enumerate(self.points) if point.part == "head")

    @property
    def trunk_end(self) -> int | None:
        """Position of the last cut point of the trunk."""
        return max(
            (i for i, point in enumerate(self.points) if point.part == "trunk"), default=None
        )

    def removed(self) -> tuple[float, ...]:
        """Return which share of a constant answer's error each cut removes, 0 where none.

        Of accuracies and the like the error is what is missing to 1. NaN where there is no constant
        answer, or it makes no error.
        """
        values = [self.constant, *(point.value for point in self.points)]
        if self.direction == "maximise":
            values = [1 - value for value in values]
        constant, *errors = values
        if not constant > 0:
            return (math.nan,) * len(errors)
        # A comparison with NaN is false, so that a failed cut stays one.
        return tuple(0.0 if error > constant else 1 - error / constant for error in errors)

    def relative(self) -> tuple[float, ...]:
        """Return each value as a share of the curve's best, so that 1 is the best cut.

        A metric that can change sign has no meaningful ratio: there the share is that of the
        range between worst and best.
        """
        values = [point.value for point in self.points]
        known = [value for value in values if math.isfinite(value)]
        if not known:
            return tuple(values)
        best, worst = max(known), min(known)
        if self.direction == "minimise":
            best, worst = worst, best
        if min(known) > 0:
            return tuple(best / v if self.direction == "minimise" else v / best for v in values)
        return tuple((v - worst) / (best - worst) if best != worst else 1.0 + 0 * v for v in values)


def curves(
    scores: Iterable[Score],
    metric: str | None = None,
    titles: Mapping[str, str] | None = None,
    constants: Mapping[Question, Constant] | None = None,
) -> list[Curve]:
    """Return the curves of one metric over all training rows, trained checkpoints first.

    Args:
        scores: The long table.
        metric: The metric, or None for every task's primary one.
        titles: By task, what to call it; by default its name without the source's.
        constants: By checkpoint, source and task, the constant answer, where there is one.

    Examples:
        >>> curves([])
        []
    """
    wanted = [
        score
        for score in scores
        if score.usual and (score.primary if metric is None else score.metric == metric)
    ]
    cells = grouped(wanted, "checkpoint", "source", "task", "estimator", "metric")
    found = [
        _curve(rows, title(rows[0].task, rows[0].source, titles), constants or {})
        for rows in cells.values()
    ]
    return sorted(found, key=lambda curve: not curve.trained)


def failed(scores: Iterable[Score]) -> list[Score]:
    """Return the cells without a value, in the order of the table."""
    return [score for score in scores if not _worked(score)]


def title(task: str, source: str, titles: Mapping[str, str] | None = None) -> str:
    """Return a task's name as a figure shows it: its title, or its name without the source's.

    Examples:
        >>> title("objects3d-spot-theta", "objects3d")
        'Spot θ'
    """
    if titles and titles.get(task):
        return titles[task]
    words = task.removeprefix(f"{source}-").replace("_", "-").split("-")
    text = " ".join(GREEK.get(word, word) for word in words)
    return text[:1].upper() + text[1:]


def _curve(rows: Sequence[Score], heading: str, constants: Mapping[Question, Constant]) -> Curve:
    by_cut = grouped(rows, "index", "cut")
    chosen = [_of_best_pooling(by_cut[key]) or by_cut[key][:1] for key in sorted(by_cut)]
    firsts = [scores[0] for scores in chosen]
    groups = group_equal_cuts(firsts)
    points = tuple(_point(chosen[place]) for place, *_ in groups)
    first = rows[0]
    asked = (first.checkpoint, first.source, first.task, first.estimator, first.metric)
    tested = (first.direction, first.n_test, first.n_groups)
    known = constants.get((first.checkpoint, first.source, first.task), Constant())
    constant = known.values.get(first.metric, math.nan)
    equal = other_names(firsts, groups)
    return Curve(*asked, *tested, heading, points, first.trained, constant, equal)


def _point(rows: Sequence[Score]) -> CurvePoint:
    """Return a cut's point, averaged over seeds, of a cell that failed one without a value."""
    first, chosen = rows[0], [row for row in rows if _worked(row)]
    value = fmean(row.test for row in chosen) if chosen else math.nan
    stderr = fmean(row.stderr for row in chosen) if chosen else math.nan
    return CurvePoint(first.cut, first.index, first.part, first.depth, value, stderr)


def _of_best_pooling(rows: Sequence[Score]) -> list[Score]:
    poolings = grouped(filter(_worked, rows), "pooling")
    sign = 1 if rows[0].direction == "maximise" else -1
    # Of equal ones the first, as in a verdict.
    return max(poolings.values(), key=lambda group: sign * fmean(r.val for r in group), default=[])


def _worked(score: Score) -> bool:
    return score.status == "done" and math.isfinite(score.test)
