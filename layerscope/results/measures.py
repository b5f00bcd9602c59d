"""Scores of probes and of measures, apart.

A measure has no losses, so that nothing pairs it with another layer image by image; it takes part
in no verdict and stands beside the probes in figures and in the scorecard.
"""

from __future__ import annotations

from collections.abc import Iterable

from layerscope.types import Score


def divided(scores: Iterable[Score]) -> tuple[list[Score], list[Score]]:
    """Return the scores of probes and those of measures, each in the order of the table.

    Examples:
        >>> divided([])
        ([], [])
    """
    table = list(scores)
    return [it for it in table if it.kind == "probe"], [it for it in table if it.kind == "measure"]
