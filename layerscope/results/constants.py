"""The constant answers that layers are compared with, as far as they were kept."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from layerscope.results.grouping import grouped
from layerscope.results.store import Results
from layerscope.types import Constant, Losses, Score

Question = tuple[str, str, str]
"""Checkpoint, source and task."""


def constant_of(results: Results, scores: Sequence[Score]) -> Constant | None:
    """Return the constant answer on the rows of some scores, or None where none was kept of them.

    Targets that were shuffled have a constant answer of their own for each seed; as of the cuts,
    the mean over seeds of each row's loss counts. Under all other controls, and however few rows a
    probe was trained on, the constant is that of all training rows.

    Args:
        results: Where they are.
        scores: Of one checkpoint, source, task and arrangement, and of one cache.
    """
    first = scores[0]
    shuffled = first.control.kind == "shuffled"
    seeds = sorted({score.seed for score in scores}) if shuffled else [None]
    kept = [results.constant(first.checkpoint, first.source, first.task, seed) for seed in seeds]
    found = [it[0] for it in kept if it is not None and it[1] == first.fingerprint]
    if len(found) < len(seeds):
        return None
    losses = [it.losses for it in found if it.losses is not None]
    if len(losses) < len(found):
        return next(it for it in found if it.losses is None)
    val, test = (np.mean([getattr(it, rows) for it in losses], axis=0) for rows in ("val", "test"))
    return Constant(found[0].values, Losses(val, test))


def constants(results: Results, scores: Iterable[Score]) -> Mapping[Question, Constant]:
    """Return the constant answers to what was asked with targets as they are."""
    usual = [score for score in scores if score.kind == "probe" and score.usual]
    found = {}
    for question, rows in grouped(usual, "checkpoint", "source", "task").items():
        constant = constant_of(results, rows)
        if constant is not None:
            found[question] = constant
    return found
