"""Cuts of one cache with the same features are computed once, and their scores copied.

An estimator sees a cut's features and not its name, so that equal features have equal scores,
whichever rows train and however they are seen. Equal are features whose digests are: of all three
splits for a probe, and for a measure of those that it reads.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from layerscope.probing.held_view import HeldView
from layerscope.results.store import Results
from layerscope.types import SPLITS, CutPoint, Estimator, LayerView, Measure, Score, Split, Task

MEASURED: tuple[Split, ...] = ("val", "test")
"""The rows of which a measure is."""


def content_of(view: LayerView, estimator: Estimator) -> str:
    """Return the digest of what an estimator sees of a cut; empty of one that is not in memory.

    To know that of a streamed cut would take one more pass over the cache.
    """
    if not isinstance(view, HeldView):
        return ""
    return view.content(MEASURED if isinstance(estimator, Measure) else SPLITS)


@dataclass(frozen=True)
class CopiedScores:
    """What a sweep has computed, by what it was computed of.

    Losses are read back when they are wanted, because those of a whole sweep may fill the memory.
    """

    results: Results
    known: dict[Hashable, list[tuple[Score, bool]]] = field(default_factory=dict)
    """Scores, each with whether its losses were kept, by cell and content."""

    def remember(
        self, cells: Mapping[Task, Hashable], content: str, scores: Sequence[Score]
    ) -> None:
        """Remember the scores of the cells of a cut with this content, where they have a value."""
        for task, cell in cells.items():
            of_task = [score for score in scores if score.task == task.name]
            if content and any(score.primary and score.status == "done" for score in of_task):
                kept = [(replace(it, losses=None), it.losses is not None) for it in of_task]
                self.known[cell, content] = kept

    def at(
        self, cut: CutPoint, cells: Mapping[Task, Hashable], content: str
    ) -> tuple[list[Score], list[Task]]:
        """Return the scores of cells at a cut with this content, and the tasks without any."""
        known = {task: self.known.get((cell, content), []) for task, cell in cells.items()}
        found = [
            replace(
                score,
                cut=cut.name,
                index=cut.index,
                part=cut.part,
                depth=cut.depth,
                pooling=cut.pooling,
                losses=self.results.losses(score) if has_losses else None,
            )
            for scores in known.values()
            for score, has_losses in scores
        ]
        return found, [task for task, scores in known.items() if not scores]
