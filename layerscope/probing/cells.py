"""The sweep: every estimator on every cut of every cache, appended to the table as it goes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from layerscope.errors import CacheError, EstimatorError, SettingsError
from layerscope.estimators.naming import require_estimator
from layerscope.probing.arranged_view import DividedView
from layerscope.probing.arrangement import Arrangement, arranged
from layerscope.probing.copied_scores import CopiedScores, content_of
from layerscope.probing.facts import by_splits, keep_constants, keep_facts
from layerscope.probing.folds import joined
from layerscope.probing.held_view import held
from layerscope.probing.refits import drawn_from, with_refits
from layerscope.results.store import Results, failed
from layerscope.types import (
    REVISION,
    SPLITS,
    UNLABELLED,
    Draw,
    Estimator,
    Existing,
    FeatureCache,
    LayerView,
    Measure,
    Score,
    Task,
)

NUMERICAL = (EstimatorError, SettingsError, ArithmeticError, np.linalg.LinAlgError)
"""What may be wrong with one layer's data: the cell failed, the run goes on."""
PLAIN = (Arrangement(),)
Cell = tuple[str | int | Arrangement, ...]
"""What names one task of one estimator at one cut."""


@dataclass(frozen=True, slots=True)
class SweepReport:
    """What a sweep did."""

    results: Results
    computed: int
    """Cells that were computed: one task of one estimator at one cut."""
    copied: int
    """Cells that were copied from another cut of the same cache, whose features are the same."""
    kept: int
    """Cells that were there already, complete and of the same cache."""
    failed: tuple[Score, ...]
    """Rows without a value, each with the reason as its note."""


def sweep(
    caches: Sequence[FeatureCache],
    tasks: Sequence[Task],
    estimators: Sequence[Estimator],
    out: Path,
    *,
    arrangements: Sequence[Arrangement] = PLAIN,
    existing: Existing = "missing",
    keep_predictions: bool = False,
    progress: Callable[..., None] | None = None,
) -> SweepReport:
    """Score every cut of every cache, in each of its poolings, on every task that it knows.

    Interrupted at any moment, what was finished is kept, and the same call continues it. Cells
    that failed earlier are tried again. Measures that use no labels have one cell at every cut, of
    the task :data:`layerscope.types.UNLABELLED`, whatever tasks are asked for. Cuts with the same
    features are computed once. Beside the scores is kept what a constant answer to each task is
    worth.

    Args:
        caches: Complete feature caches.
        tasks: A cache answers those of them that it holds targets for.
        estimators: Each scores the tasks that it handles.
        out: The results folder.
        arrangements: Which rows train and how they are seen; each is a sweep of its own.
        keep_predictions: Keep what was predicted of every test row beside the losses.
        existing: ``missing`` computes what is not there, ``replace`` computes everything, and
            ``keep`` computes nothing.
        progress: Called with 1 and the cut's name after every estimator at a cut.

    Raises:
        CacheError: A cache is incomplete, or two hold the same checkpoint and source.
        SettingsError: An estimator does not derive from :class:`layerscope.types.Estimator`.
    """
    _require_distinct(caches)
    for estimator in estimators:
        require_estimator(estimator)
    results = Results(out, keep_predictions=keep_predictions)
    done = (score for score in results.scores() if score.primary and score.status == "done")
    there = set(map(_cell, done))
    computed, copied, kept, lost = 0, 0, 0, list[Score]()
    for cache in caches:
        mine, copies = _tasks_known_to(cache, tasks, estimators), CopiedScores(results)
        if existing != "keep":
            keep_facts(cache, mine, results)
            keep_constants(cache, _probed(mine, estimators), arrangements, results)
        for view, estimator, arrangement, answered in _cells(cache, estimators, mine, arrangements):
            asked = _tasks_of(estimator, arrangement, answered)
            cells = {task: _planned_cell(view, task, estimator, arrangement) for task in asked}
            if existing == "missing":
                todo = [task for task in asked if cells[task] not in there]
            else:
                todo = asked if existing == "replace" else []
            wanted = {task: _without_cut(cells[task]) for task in todo}
            content = content_of(view, estimator) if wanted else ""
            found, rest = copies.at(view.cut, wanted, content)
            made = _score_or_fail(estimator, view, rest, arrangement) if rest else ()
            scores = [_with_facts(score, cache, arrangement, content) for score in made]
            results.append([*found, *scores])
            copies.remember(wanted, content, scores)
            computed += len(rest)
            copied += len(todo) - len(rest)
            kept += sum(cells[task] in there for task in asked if task not in todo)
            lost += [score for score in scores if score.status == "failed"]
            if progress is not None:
                progress(1, note=view.cut.name)
    return SweepReport(results, computed, copied, kept, tuple(lost))


def size(
    caches: Sequence[FeatureCache],
    tasks: Sequence[Task],
    estimators: Sequence[Estimator],
    arrangements: Sequence[Arrangement] = PLAIN,
) -> int:
    """Return how often a sweep calls its ``progress``."""
    parts = (
        len(cache.cuts) * len(by_splits(cache, _tasks_known_to(cache, tasks, estimators)))
        for cache in caches
    )
    return sum(parts) * len(_pairs(estimators, arrangements))


def _require_distinct(caches: Sequence[FeatureCache]) -> None:
    names = [f"{cache.checkpoint}@{cache.source}" for cache in caches]
    for name in names:
        if names.count(name) > 1:
            raise CacheError(
                f"Two caches hold the features of {name}.",
                hint="Give one of them; their scores would overwrite each other.",
            )


def _tasks_known_to(
    cache: FeatureCache, tasks: Sequence[Task], estimators: Sequence[Estimator]
) -> list[Task]:
    """Return the tasks that a cache has targets for, and that of no labels where it is wanted."""
    if not cache.complete:
        raise CacheError(
            f"The cache {cache.checkpoint}@{cache.source} is incomplete.",
            hint="Repeat the extract command; it continues where it stopped.",
        )
    here = {task.name for task in cache.tasks}
    known = [task for task in tasks if task.name in here]
    wanted = any(estimator.handles(UNLABELLED) for estimator in estimators)
    return [*known, UNLABELLED] if wanted else known


def _tasks_of(estimator: Estimator, arrangement: Arrangement, tasks: Sequence[Task]) -> list[Task]:
    """Return the tasks that an estimator has cells for; shuffled labels change nothing for none."""
    handled = [task for task in tasks if estimator.handles(task)]
    if arrangement.control.kind == "shuffled":
        return [task for task in handled if task.kind != "none"]
    return handled


def _probed(tasks: Sequence[Task], estimators: Sequence[Estimator]) -> list[Task]:
    """Return the tasks that a probe is asked about."""
    probes = [estimator for estimator in estimators if not isinstance(estimator, Measure)]
    return [task for task in tasks if any(probe.handles(task) for probe in probes)]


def _cells(
    cache: FeatureCache,
    estimators: Sequence[Estimator],
    tasks: Sequence[Task],
    arrangements: Sequence[Arrangement],
) -> Iterator[tuple[LayerView, Estimator, Arrangement, list[Task]]]:
    """Yield what is computed together: tasks that share the rows of a cut."""
    ready = [estimator.among(cache.cuts) for estimator in estimators]
    for cut in cache.cuts:
        for owner, divided in by_splits(cache, tasks).items():
            with held(cache.view(cut.name, cut.pooling, owner)) as view:
                for estimator, arrangement in _pairs(ready, arrangements):
                    yield view, estimator, arrangement, divided


def _pairs(
    estimators: Sequence[Estimator], arrangements: Sequence[Arrangement]
) -> list[tuple[Estimator, Arrangement]]:
    """Return every estimator under every arrangement, once where no seed matters.

    A measure has no training rows, so that which of them train makes no other cell.
    """
    pairs: dict[tuple[str, Arrangement], Estimator] = {}
    for arrangement in arrangements:
        for estimator in estimators:
            made = estimator.with_seed(arrangement.seed)
            measured = isinstance(estimator, Measure)
            way = replace(arrangement, draw=Draw(), folds=1) if measured else arrangement
            # Where nothing is left to chance, every seed is the same cell.
            settled = way.plain and made is estimator
            named = replace(way, seed=0) if settled else way
            pairs.setdefault((estimator.name, named), made)
    return [(estimator, arrangement) for (_, arrangement), estimator in pairs.items()]


def _cell(score: Score) -> Cell:
    """Return what names the cell of a primary score; a cache made anew has others.

    Of a probe that is also the metric, by which it was chosen; a measure has its own.
    """
    arrangement = Arrangement(score.draw, score.folds, score.control, score.seed)
    metric = score.metric if score.kind == "probe" else ""
    place = score.checkpoint, score.source, score.fingerprint, score.cut, score.pooling
    return (*place, score.task, score.estimator, metric, score.revision, arrangement)


def _planned_cell(
    view: LayerView, task: Task, estimator: Estimator, arrangement: Arrangement
) -> Cell:
    """Return the same of a cell that is asked for."""
    metric = "" if isinstance(estimator, Measure) else task.metric
    place = view.checkpoint, view.source, view.fingerprint, view.cut.name, view.cut.pooling
    return (*place, task.name, estimator.name, metric, REVISION, arrangement)


def _without_cut(cell: Cell) -> Cell:
    """Return a cell's name without cut and pooling: what cuts with the same features share."""
    return (*cell[:3], *cell[5:])


def _with_facts(score: Score, cache: FeatureCache, arrangement: Arrangement, content: str) -> Score:
    """Return a score with the facts that its estimator could not know."""
    return replace(
        score,
        draw=arrangement.draw,
        folds=arrangement.folds,
        control=arrangement.control,
        seed=arrangement.seed,
        trained=cache.trained,
        views_of=cache.views_of,
        baseline=cache.baseline,
        baseline_of=cache.baseline_of,
        content=content,
    )


def _score_or_fail(
    estimator: Estimator, view: LayerView, tasks: Sequence[Task], arrangement: Arrangement
) -> Iterator[Score]:
    """Score the tasks together, or one by one where together they fail, to find the culprit."""
    try:
        scores = list(_scores(estimator, view, tasks, arrangement))
    except NUMERICAL as error:
        if len(tasks) == 1:
            yield _failed_score(estimator, view, tasks[0], arrangement, str(error))
            return
        for task in tasks:
            yield from _score_or_fail(estimator, view, [task], arrangement)
        return
    for score in scores:
        yield _fail_if_not_finite(score)


def _scores(
    estimator: Estimator, view: LayerView, tasks: Sequence[Task], arrangement: Arrangement
) -> Iterator[Score]:
    if arrangement.plain:
        scores = list(estimator.score(view, tasks))
        for task in tasks:
            mine = [score for score in scores if score.task == task.name]
            yield from with_refits(estimator, view, task, mine)
        return
    for task in tasks:  # which rows are drawn depends on the task's classes
        views = arranged(view, task, arrangement)
        parts = [list(estimator.score(part, [task])) for part in views]
        if arrangement.folds > 1:
            yield from joined(parts, [it.val for it in views if isinstance(it, DividedView)])
            continue
        refitted = with_refits(estimator, views[0], task, parts[0])
        yield from drawn_from(refitted, views[0], view)


def _fail_if_not_finite(score: Score) -> Score:
    """Mark a score that is not a number as failed, so that no gap passes for a value."""
    if score.status == "failed" or all(
        math.isfinite(value) for value in (score.val, score.test, score.stderr)
    ):
        return score
    return failed(score, f"{score.metric} is not defined on these rows.")


def _failed_score(
    estimator: Estimator, view: LayerView, task: Task, arrangement: Arrangement, note: str
) -> Score:
    counts = {split: len(view.groups(split)) for split in SPLITS}
    # What a measure is; of what is fitted there is no definition.
    measured = estimator.definition(task) if isinstance(estimator, Measure) else None
    return Score.at(
        view,
        task,
        estimator=estimator.name,
        metric=task.metric if measured is None else measured.metric,
        direction=task.direction if measured is None else measured.direction,
        primary=True,
        val=math.nan,
        test=math.nan,
        stderr=math.nan,
        n_train=counts["train"] if measured is None else 0,
        n_val=counts["val"],
        n_test=counts["test"],
        n_groups=len(set(view.groups("test").tolist())),
        seed=arrangement.seed,
        settings={} if measured is None else {"convention": measured.convention},
        kind="probe" if measured is None else "measure",
        status="failed",
        note=note,
    )
