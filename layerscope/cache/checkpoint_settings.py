"""What distinguishes a checkpoint in a series, in the record of how its features were computed.

It is no part of the fingerprint: the features do not depend on what a training run was given, only
on the weights that came out of it. So a cache can be told later.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from layerscope.types import Setting

SERIES = "series"


def series_in(computation: Mapping[str, Any]) -> dict[str, Setting]:
    """Return the settings of the checkpoint in a cache's record; none where none were told."""
    return dict(computation.get(SERIES, {}))


def with_series(computation: Mapping[str, Any], told: Mapping[str, Setting]) -> dict[str, Any]:
    """Return a cache's record with settings told now, beside those that were told before.

    Examples:
        >>> with_series({"device": "cpu", "series": {"epoch": 3}}, {"lr": 0.1})
        {'device': 'cpu', 'series': {'epoch': 3, 'lr': 0.1}}
        >>> with_series({"device": "cpu"}, {})
        {'device': 'cpu'}
    """
    together = series_in(computation) | dict(told)
    return {**computation, SERIES: together} if together else dict(computation)


def is_news(computation: Mapping[str, Any], told: Mapping[str, Setting]) -> bool:
    """Return whether settings told now are not in a cache's record yet."""
    return bool(told.items() - series_in(computation).items())
