"""Nouns to JSON and back, as they are stored in a cache's attributes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from layerscope.types import Checkpoint, CutPoint, Preprocessing, Setting, Task

_SERIES = "series"
"""What distinguishes a checkpoint in a series, in the record of how its features were computed. It
is no part of the fingerprint: features depend on the weights alone, so a cache can be told later.
"""


def plain(value: Any) -> Any:
    """Return the value in JSON's own types.

    Raises:
        TypeError: A part of it has no JSON form.
    """
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Path):
        return value.name  # a cache is passed on; where its maker kept a file is nobody's business
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise TypeError(f"{value!r} has no JSON form")


def to_json(value: Any) -> str:
    """Return canonical JSON: equal values give equal text."""
    return json.dumps(plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def cut_from(record: Mapping[str, Any]) -> CutPoint:
    """Return the cut point that was stored."""
    return CutPoint(**record)


def task_from(record: Mapping[str, Any]) -> Task:
    """Return the task that was stored."""
    return Task(**{**record, "classes": tuple(record["classes"])})


def checkpoint_from(record: Mapping[str, Any]) -> Checkpoint:
    """Return the card that was stored; of the weights' path only the file's name is left."""
    weights, known = record["weights"], record["preprocessing"]
    lists = {key: tuple(item) for key, item in known.items() if isinstance(item, list)}
    read = {
        "weights": None if weights is None else Path(weights),
        "preprocessing": Preprocessing(**{**known, **lists}),
    }
    return Checkpoint(**{**record, **read})


def series_in(computation: Mapping[str, Any]) -> dict[str, Setting]:
    """Return the settings of the checkpoint in a cache's record; none where none were told."""
    return dict(computation.get(_SERIES, {}))


def with_series(computation: Mapping[str, Any], told: Mapping[str, Setting]) -> dict[str, Any]:
    """Return a cache's record with settings told now, beside those that were told before.

    Examples:
        >>> with_series({"device": "cpu", "series": {"epoch": 3}}, {"lr": 0.1})
        {'device': 'cpu', 'series': {'epoch': 3, 'lr': 0.1}}
        >>> with_series({"device": "cpu"}, {})
        {'device': 'cpu'}
    """
    together = series_in(computation) | dict(told)
    return {**computation, _SERIES: together} if together else dict(computation)


def is_news(computation: Mapping[str, Any], told: Mapping[str, Setting]) -> bool:
    """Return whether settings told now are not in a cache's record yet."""
    return bool(told.items() - series_in(computation).items())
