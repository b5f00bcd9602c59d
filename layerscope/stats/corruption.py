"""Corruption error: how much worse a classifier gets on corrupted images than AlexNet does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def corruption_error(errors: Sequence[float], baseline: float) -> float:
    """Return the corruption error of one corruption, 1 for a classifier as good as AlexNet.

    The sum of the top-1 errors over the severities, divided by AlexNet's (Hendrycks and Dietterich
    2019, Benchmarking Neural Network Robustness to Common Corruptions, section 4).

    Args:
        errors: One for each severity, in [0, 1].
        baseline: AlexNet's error, averaged over the severities.

    Examples:
        >>> round(corruption_error([0.2, 0.4], 0.6), 12)
        0.5
    """
    return sum(errors) / (len(errors) * baseline)


def mean_corruption_error(
    errors: Mapping[str, Sequence[float]], baseline: Mapping[str, float]
) -> float:
    """Return the mean of the corruption errors: mCE, as a fraction of 1.

    Args:
        errors: By corruption, one for each severity.
        baseline: By corruption; the mean is over these.

    Raises:
        KeyError: A corruption of the baseline is missing.
    """
    return sum(corruption_error(errors[name], it) for name, it in baseline.items()) / len(baseline)
