"""What a sweep adds to a probe's losses about its training rows, where the probe itself does not.

A closed form or a warm start makes refits cheap, and such estimators bring their own. Others that
cost little are scored again here, as a whole, without each block of training rows. Of what is too
slow for that the noise of training stays assumed.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

import numpy as np

from layerscope.errors import EstimatorError
from layerscope.estimators.refits import training_blocks
from layerscope.probing.held_view import divided
from layerscope.stats.training_noise import jackknife
from layerscope.types import Estimator, LayerView, Losses, Replicates, Score, Task


def with_refits(
    estimator: Estimator, view: LayerView, task: Task, scores: Sequence[Score]
) -> list[Score]:
    """Return the scores of one task, the primary one's losses with those of refits."""
    primary = next((it for it in scores if it.primary), None)
    losses = None if primary is None else primary.losses
    wanted = estimator.refits == "again" and losses is not None and not losses.replicates
    replicates: tuple[Replicates, ...] = ()
    if wanted:
        with suppress(EstimatorError):  # too few rows for a fit without some of them
            replicates = _refitted(estimator, view, task)
    if not replicates or losses is None:
        return list(scores)
    found = replace(losses, replicates=replicates)
    return [replace(it, losses=found) if it.primary else it for it in scores]


def drawn_from(scores: Sequence[Score], view: LayerView, whole: LayerView) -> list[Score]:
    """Return scores whose losses know which share of the training rows was drawn."""
    share = len(view.groups("train")) / len(whole.groups("train"))
    return [
        it if it.losses is None else replace(it, losses=replace(it.losses, train_share=share))
        for it in scores
    ]


def _refitted(estimator: Estimator, view: LayerView, task: Task) -> tuple[Replicates, ...]:
    blocks = training_blocks(view, task)
    if blocks is None:
        return ()
    val = len(blocks) + np.arange(len(view.groups("val")))
    found = []
    for number in range(int(blocks.max()) + 1):
        rest = divided(view, np.flatnonzero(blocks != number), val)
        losses: Losses | None = next(
            (it.losses for it in estimator.score(rest, [task]) if it.primary), None
        )
        if losses is None:
            return ()
        found.append(losses.test.astype(np.float32))
    return (jackknife(np.stack(found)),)
