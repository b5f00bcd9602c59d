"""What a sweep keeps of a cache beside its scores: groups, tasks, settings and constant answers."""

from __future__ import annotations

from collections.abc import Sequence

from layerscope.errors import EstimatorError
from layerscope.estimators.constant import constant_answer
from layerscope.probing.arrangement import Arrangement
from layerscope.probing.control import controlled
from layerscope.results.store import Results
from layerscope.types import Constant, FeatureCache, LayerView, Task


def keep_facts(cache: FeatureCache, tasks: Sequence[Task], results: Results) -> None:
    """Keep the groups of the test rows, the tasks, and what sets the checkpoint apart."""
    for owner, divided in by_splits(cache, tasks).items():
        groups = _any_cut(cache, owner).groups("test")
        for task in divided:
            results.keep_groups(
                cache.checkpoint, cache.source, task.name, groups, cache.fingerprint
            )
    results.keep_tasks(tasks)
    if cache.settings:
        results.keep_settings(cache.checkpoint, cache.settings)


def keep_constants(
    cache: FeatureCache,
    tasks: Sequence[Task],
    arrangements: Sequence[Arrangement],
    results: Results,
) -> None:
    """Keep what a constant answer is worth, with targets as they are and as they are shuffled.

    It is made from all training rows, for draws of them and for folds too.
    """
    shuffled = {it.seed: it.control for it in arrangements if it.control.kind == "shuffled"}
    for owner, divided in by_splits(cache, tasks).items():
        plain = _any_cut(cache, owner)
        ways = {seed: controlled(plain, control, seed) for seed, control in shuffled.items()}
        for task in divided:
            for seed, view in ((None, plain), *ways.items()):
                place = (cache.checkpoint, cache.source, task.name)
                constant = _constant_or_reason(view, task)
                results.keep_constant(*place, constant, cache.fingerprint, seed)


def by_splits(cache: FeatureCache, tasks: Sequence[Task]) -> dict[str | None, list[Task]]:
    """Return the tasks by whose splits they use: the source's (None), or their own."""
    divided: dict[str | None, list[Task]] = {}
    for task in tasks:
        divided.setdefault(task.name if task.name in cache.own_splits else None, []).append(task)
    return divided


def _any_cut(cache: FeatureCache, task: str | None) -> LayerView:
    """Return a view for its rows, which are those of every cut."""
    first = cache.cuts[0]
    return cache.view(first.name, first.pooling, task)


def _constant_or_reason(view: LayerView, task: Task) -> Constant:
    try:
        return constant_answer(view, task)
    except EstimatorError as error:  # the verdict's note says it, if there is a verdict
        return Constant(note=str(error))
