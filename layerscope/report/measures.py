"""Which scores are no probe's: measures of a layer, told by the convention that they state.

A measure has no losses, so that nothing pairs it with another layer image by image; it takes part
in no verdict and stands beside the probes in figures and in the scorecard.
"""

from __future__ import annotations

from collections.abc import Iterable

from layerscope.nouns import Score

UNLABELLED = "none"
"""Task of a measure that uses no labels."""
CONVENTION = "convention"
"""Setting in which a measure says which of several published conventions it follows."""


def divided(scores: Iterable[Score]) -> tuple[list[Score], list[Score]]:
    """Return the scores of probes and those of measures, each in the order of the table.

    A cell that failed has no settings: it is a measure's where another cell of its estimator is.

    Examples:
        >>> divided([])
        ([], [])
    """
    table = list(scores)
    named = {score.estimator for score in table if CONVENTION in score.settings}
    probes: list[Score] = []
    measures: list[Score] = []
    for score in table:
        is_measure = score.task == UNLABELLED or score.estimator in named
        (measures if is_measure else probes).append(score)
    return probes, measures
