"""Cuts whose features are the same numbers: one cut with several names.

The last block of a ResNet, averaged over positions, and the end of its trunk are such cuts. They
are known by the digest of their features that probing keeps with each score, and not by their
names.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from layerscope.results.grouping import grouped
from layerscope.types import TRUNK, Score


def group_equal_cuts(scores: Sequence[Score]) -> list[list[int]]:
    """Return the places of scores of one checkpoint, one for each cut, in groups of one cut each.

    Groups come in the order of their first members. The first place in a group is that of the
    member whose name stands for all: the end of the trunk, or else the first.

    Args:
        scores: In depth order.
    """
    groups: dict[tuple[str, int], list[int]] = {}
    for place, score in enumerate(scores):
        alone = -1 if score.content else place  # what is not known is equal to nothing
        groups.setdefault((score.content, alone), []).append(place)
    return [
        sorted(group, key=lambda place: scores[place].cut != TRUNK) for group in groups.values()
    ]


def other_names(
    scores: Sequence[Score], groups: Iterable[Sequence[int]]
) -> dict[str, tuple[str, ...]]:
    """Return by the name that stands for a group of equal cuts its other names, if any."""
    return {
        scores[first].cut: tuple(scores[place].cut for place in others)
        for first, *others in groups
        if others
    }


def without_repeats(scores: Sequence[Score]) -> list[Score]:
    """Return the scores of one cut among those with the same features, and all other scores."""
    leads: dict[tuple[str, str, str], str] = {}
    for key, rows in grouped(scores, "checkpoint", "source", "content").items():
        names = [score.cut for score in sorted(rows, key=lambda score: score.index)]
        leads[key] = TRUNK if TRUNK in names else names[0]
    return [
        score
        for score in scores
        if not score.content or leads[score.checkpoint, score.source, score.content] == score.cut
    ]
