"""Is a measure what its definition says, and does it keep the splits apart?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import get_args

import numpy as np

from layerscope.testing.attempts import Failure, attempt, expected_columns, faults, mishaps, unfit
from layerscope.testing.layers import HeldLayer, planted_layer
from layerscope.types import UNLABELLED, Definition, Invariance, Measure, Score, Task

LABELLED = Task("kind", "memory", "classes", "top-1", "maximise", classes=("a", "b", "c"))
UNCHANGED = 3e-5
"""Relative difference of what an invariance leaves as it is: features are of float32."""
SAME = 1e-6
"""Relative difference of numbers that should be equal."""
UNTOUCHED = 1e-9
"""The same, of numbers of which no input has changed."""


def check_measure(measure: Measure) -> Iterator[str]:
    """Yield what is wrong with a measure, one sentence each.

    Its headline has to be the metric of its definition, which is cited; the value on ``val`` has to
    be of the validation rows alone, and that on ``test`` of the test rows alone; the invariances
    that it declares have to hold, and no others; its standard error has to be over groups, not
    rows; and features that are not finite have to be refused. The layer that it is tried on has
    two views of each image.
    """
    tasks = [task for task in (UNLABELLED, LABELLED) if measure.handles(task)]
    if not tasks:
        yield "It handles neither UNLABELLED nor classes."
    for task in tasks:
        yield from (f"{task.name}: {finding}" for finding in _findings_on(measure, task))


def moved(layer: HeldLayer, how: Invariance) -> HeldLayer:
    """Return the layer after a change that a measure may not notice."""
    rng = np.random.default_rng(1)
    rows = layer.rows.astype(np.float64)
    n, d = rows.shape
    if how == "copies":
        others = layer.members + layer.members.max() + 1
        twice = layer.at(np.tile(np.arange(n), 2))
        return replace(twice, members=np.concatenate((layer.members, others)))
    if how == "rotation":
        rows = rows @ np.linalg.qr(rng.standard_normal((d, d)))[0]
    elif how == "translation":
        rows = rows + 3 * rng.standard_normal(d)
    elif how == "scale":
        rows = rows * 0.02
    elif how == "row-scale":
        rows = rows * rng.uniform(0.3, 3, (n, 1))
    return layer.with_rows(np.arange(n), rows)


def _findings_on(measure: Measure, task: Task) -> Iterator[str]:
    layer = planted_layer(views=2)
    try:
        definition = measure.definition(task)
        for what in ("metric", "convention", "citation"):
            if not getattr(definition, what):
                yield f"Its definition has no {what}."
        scores = attempt(measure, layer, task)
        wrong = list(_labels(measure, layer, task, definition, scores))
        yield from wrong
        if not wrong:
            yield from _keeps_splits_apart(measure, layer, task, scores)
            yield from _counts_groups(measure, layer, task, scores)
            yield from _invariances(measure, layer, task, definition)
    except Failure as failure:
        yield f"It fails on a sound layer: {failure}"
    yield from mishaps(measure, task, unfit(layer))


def _labels(
    measure: Measure, layer: HeldLayer, task: Task, definition: Definition, scores: list[Score]
) -> Iterator[str]:
    yield from faults(scores, definition.metric, definition.direction)
    expected = expected_columns(measure, layer, task) | {"n_train": 0}
    for score in scores:
        if score.settings.get("convention") != definition.convention:
            yield f"{score.metric} does not have the definition's convention in its settings."
        if score.losses is not None:
            yield f"{score.metric} has losses, as probes have: a measure errs on no row."
        for name, value in expected.items():
            said = getattr(score, name)
            if said != value:
                yield f"{score.metric} has the {name} {said!r}, not {value!r}."


def _keeps_splits_apart(
    measure: Measure, layer: HeldLayer, task: Task, scores: list[Score]
) -> Iterator[str]:
    """The test rows in the place of the validation rows have the value that they have on test."""
    val, test = layer.places("val"), layer.places("test")
    order = np.arange(len(layer.rows))
    order[val] = test
    swapped = replace(layer.at(order), splits=layer.splits, members=layer.members)
    before = {score.metric: score for score in scores}
    for score in attempt(measure, swapped, task):
        if not np.isclose(score.val, score.test, rtol=SAME, atol=1e-12):
            yield f"The same rows have {score.metric} {score.val:g} on val, {score.test:g} on test."
        if not np.isclose(score.test, before[score.metric].test, rtol=UNTOUCHED, atol=1e-12):
            yield f"Other validation rows change {score.metric} of test."


def _counts_groups(
    measure: Measure, layer: HeldLayer, task: Task, scores: list[Score]
) -> Iterator[str]:
    """Of larger groups there are fewer, so that the standard error is another."""
    before = {score.metric: score for score in scores}
    for score in attempt(measure, replace(layer, group_size=8), task):
        error = before[score.metric].stderr
        if error > 0 and np.isclose(score.stderr, error, rtol=SAME, atol=0):
            yield (
                f"The standard error of {score.metric} is {error:.2g} whether an image is a group "
                f"or eight are: resample groups, not rows."
            )


def _invariances(
    measure: Measure, layer: HeldLayer, task: Task, definition: Definition
) -> Iterator[str]:
    before = _headline(measure, layer, task)
    for how in get_args(Invariance):
        after = _headline(measure, moved(layer, how), task)
        holds = bool(np.isclose(after, before, rtol=UNCHANGED, atol=0))
        if holds != (how in definition.invariances):
            what = "does not declare" if holds else "declares"
            yield f"It {what} to ignore {how}, which makes {after:.6g} of {before:.6g}."


def _headline(measure: Measure, layer: HeldLayer, task: Task) -> float:
    return next(score.test for score in attempt(measure, layer, task) if score.primary)
