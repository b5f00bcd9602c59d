"""Does an estimator learn from training rows alone, answer for each row, and refuse what is broken?

Everything is tried on small layers with a known truth. An estimator need not be good to conform:
it has to be better on a layer that knows the answer than on one of noise.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from layerscope.errors import LayerScopeError
from layerscope.estimators import estimators
from layerscope.estimators.naming import make
from layerscope.testing.attempts import Failure, attempt, expected_columns, faults, mishaps, unfit
from layerscope.testing.findings import collect, described, missing
from layerscope.testing.layers import HeldLayer, planted_layer
from layerscope.testing.measures import LABELLED, SAME, check_measure
from layerscope.types import UNLABELLED, Estimator, Losses, Measure, Score, Task

TASKS = (
    LABELLED,
    Task("place", "memory", "latents", "mse", "minimise", encoding="raw"),
    Task(
        "marks",
        "memory",
        "multilabel",
        "mean-average-precision",
        "maximise",
        classes=("striped", "round"),
    ),
)
"""One of each kind, each by its usual metric."""
SEED = 3
GROUPED = (0.85, 1.18)
"""Between which the standard error is to stay when every test row is there twice: the resamples of
a standard error vary by less, and rows that pass for independent ones would make it 0.71."""


def check_estimator(name: str) -> list[str]:
    """Return what is wrong with an estimator, one sentence each; empty if nothing.

    A probe has to say whose scores it gives; to be better on a layer that knows the answer than on
    noise; to give, with the primary metric, the loss of every row in its order, whose mean is the
    metric; to fit and choose without the test rows, and to judge each of them by itself; to give
    the same numbers from the same seed; to count whole groups, not rows; and to refuse features
    that are not finite. A measure has to be what its definition says, of which see
    :func:`~layerscope.testing.measures.check_measure`.

    Args:
        name: As on the command line.

    Raises:
        LayerScopeError: There is no such estimator, or it cannot be made.
    """
    try:
        estimator = make(name, SEED)
    except LayerScopeError as error:
        if name not in estimators:
            raise
        return [error.message]
    except Exception as error:  # noqa: BLE001  whatever it is, it is the finding
        return [f"It cannot be made from a seed: {described(error)}"]
    if isinstance(estimator, Measure):
        return collect(check_measure(estimator))
    return list(missing(estimator, Estimator)) or collect(_findings(estimator))


def _findings(estimator: Estimator) -> Iterator[str]:
    tasks = [task for task in TASKS if estimator.handles(task)]
    if not tasks:
        yield "It handles no task: neither classes by top-1, latents by mse, nor labels."
    for task in tasks:
        yield from (f"{task.name}: {finding}" for finding in _findings_on(estimator, task))
    if tasks and estimator.handles(UNLABELLED):
        yield "It handles UNLABELLED, which is for measures, and has no definition."


def _findings_on(estimator: Estimator, task: Task) -> Iterator[str]:
    layer = planted_layer()
    try:
        scores = attempt(estimator, layer, task)
        wrong = [*_labels(estimator, layer, task, scores), *_numbers(layer, task, scores)]
        yield from wrong
        if not wrong:
            primary = next(score for score in scores if score.primary)
            for trial in (_repeats, _learns, _leaks, _judges_alone, _counts_groups):
                yield from trial(estimator, layer, task, primary)
    except Failure as failure:
        yield f"It fails on a sound layer: {failure}"
    yield from mishaps(estimator, task, _broken(layer, task))


def _labels(
    estimator: Estimator, layer: HeldLayer, task: Task, scores: Sequence[Score]
) -> Iterator[str]:
    for name, value in expected_columns(estimator, layer, task).items():
        said = {getattr(score, name) for score in scores}
        if said - {value}:
            yield f"Its scores have the {name} {(said - {value}).pop()!r}, not {value!r}."
    for metric in {score.metric for score in scores}:
        if sum(score.metric == metric for score in scores) > 1:
            yield f"It gives {metric} more than once."


def _numbers(layer: HeldLayer, task: Task, scores: Sequence[Score]) -> Iterator[str]:
    yield from faults(scores, task.metric, task.direction)
    for score in scores:
        if score.kind != "probe":
            yield f"{score.metric} has a convention among its settings, as measures have."
    primary = [score for score in scores if score.primary]
    if [score.metric for score in primary] != [task.metric]:
        return
    (score,) = primary
    if score.losses is None:
        yield f"{task.metric} comes without the loss of each row, on which layers are compared."
        return
    for split, value, rows in (
        ("val", score.val, score.losses.val),
        ("test", score.test, score.losses.test),
    ):
        count = int((layer.splits == split).sum())
        if rows.shape != (count,) or not np.isfinite(rows).all():
            yield f"The losses of {split} are not {count} numbers, one for each row."
            continue
        mean = float(rows.mean())
        said = mean if task.direction == "minimise" else 1 - mean
        if not np.isclose(said, value, rtol=SAME, atol=SAME):
            yield f"By its losses {task.metric} is {said:g} on {split}, and it says {value:g}."


def _primary(estimator: Estimator, layer: HeldLayer, task: Task) -> tuple[Score, Losses]:
    for score in attempt(estimator, layer, task):
        if score.primary and score.losses is not None:
            return score, score.losses
    raise Failure(f"it gives no {task.metric} with losses.", alone=False)


def _repeats(estimator: Estimator, layer: HeldLayer, task: Task, before: Score) -> Iterator[str]:
    again, _ = _primary(estimator, layer, task)
    if not np.allclose((again.val, again.test), (before.val, before.test), rtol=SAME):
        yield (
            f"The same seed gives {task.metric} {before.test:g} once and {again.test:g} another "
            f"time."
        )
    if estimator.with_seed(SEED + 1).name != estimator.name:
        yield "Another seed gives it another name."


def _learns(estimator: Estimator, layer: HeldLayer, task: Task, knowing: Score) -> Iterator[str]:
    noise = np.random.default_rng(1).standard_normal(layer.rows.shape)
    blind, _ = _primary(estimator, layer.with_rows(np.arange(len(noise)), noise), task)
    better = knowing.test - blind.test
    if (better if task.direction == "maximise" else -better) <= 0:
        yield (
            f"On a layer that knows the answer {task.metric} is {knowing.test:g}, on noise "
            f"{blind.test:g}."
        )


def _leaks(estimator: Estimator, layer: HeldLayer, task: Task, before: Score) -> Iterator[str]:
    """The test rows may have no part in what is fitted and chosen."""
    test = layer.places("test")
    noise = 3 * np.random.default_rng(2).standard_normal((len(test), layer.rows.shape[1]))
    targets = layer.targets[task.name].copy()
    targets[test] = targets[test[::-1]]
    other = layer.with_rows(test, noise).with_targets(**{task.name: targets})
    after, losses = _primary(estimator, other, task)
    assert before.losses is not None
    if not np.allclose(losses.val, before.losses.val, rtol=1e-4, atol=1e-5):
        yield f"Other test rows change {task.metric} of val: {before.val:g} became {after.val:g}."


def _judges_alone(
    estimator: Estimator, layer: HeldLayer, task: Task, before: Score
) -> Iterator[str]:
    """A test row's loss is its own, wherever it stands and whatever stands beside it.

    Of labels it is not: the precision of a positive row is among all rows of its label.
    """
    test, rest = layer.places("test"), np.flatnonzero(layer.splits != "test")
    some = test[::-1][: len(test) // (1 if task.kind == "multilabel" else 2)]
    _, losses = _primary(estimator, layer.at(np.concatenate((rest, some))), task)
    assert before.losses is not None
    expected = before.losses.test[::-1][: len(some)]
    if not np.allclose(losses.test, expected, rtol=1e-4, atol=1e-5):
        yield "The loss of a test row depends on which others are there, or rows are out of order."


def _counts_groups(
    estimator: Estimator, layer: HeldLayer, task: Task, before: Score
) -> Iterator[str]:
    """Twice the same rows, in the same groups, are no more certain."""
    twice = np.concatenate((np.arange(len(layer.rows)), layer.places("test")))
    after, _ = _primary(estimator, layer.at(twice), task)
    if after.n_groups != before.n_groups:
        yield f"Of {before.n_groups} groups with two rows each it counts {after.n_groups}."
    if before.stderr > 0 and not GROUPED[0] < after.stderr / before.stderr < GROUPED[1]:
        yield (
            f"With every test row twice, in one group, the standard error goes from "
            f"{before.stderr:.2g} to {after.stderr:.2g}: resample groups, not rows."
        )


def _broken(layer: HeldLayer, task: Task) -> dict[str, HeldLayer]:
    targets = layer.targets[task.name]
    few = np.delete(np.arange(len(targets)), layer.places("train")[2:])
    broken = unfit(layer) | {
        "targets that are all alike": layer.with_targets(**{task.name: np.zeros_like(targets)}),
        "two training rows": layer.at(few),
    }
    if task.kind == "classes":
        for split in ("val", "train"):
            others = np.flatnonzero((layer.splits != split) | (targets > 0))
            broken[f"a class that {split} lacks"] = layer.at(others)
    return broken
