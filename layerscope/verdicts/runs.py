"""Which checkpoints are snapshots of one run of training, and which are runs of one grid.

A checkpoint's settings say what sets it apart. Those that agree in all but the epoch (or the step)
are snapshots of one run. Where two of them stand at the same epoch, their names without the epoch
tell the runs apart, as in ``simclr/epoch_010`` and ``vicreg/epoch_010``.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

AXES = ("epoch", "step")
"""Settings along which training goes on; the first that a checkpoint has counts."""

Settings = Mapping[str, str | int | float]
Snapshot = tuple[float, str]
"""Where on the axis a checkpoint stands, and its name."""


@dataclass(frozen=True, slots=True)
class TrainingRun:
    """The snapshots of one run of training, in order, or the one checkpoint that is left of it."""

    name: str
    """Its settings, where they set it apart from other runs; else what its snapshots share."""
    axis: str
    """``epoch``, ``step``, or nothing for a checkpoint without either."""
    settings: Settings
    """Without the axis."""
    snapshots: tuple[Snapshot, ...]

    @property
    def last(self) -> str:
        """Name of the last snapshot."""
        return self.snapshots[-1][1]


def training_runs(settings: Mapping[str, Settings]) -> list[TrainingRun]:
    """Return the runs that checkpoints belong to by their settings; without any they have none.

    Examples:
        >>> [run.name for run in training_runs({"a-1": {"epoch": 1}, "a-2": {"epoch": 2}, "b": {}})]
        ['a']
    """
    alike: dict[tuple[str, frozenset[tuple[str, object]]], list[Snapshot]] = defaultdict(list)
    others = {name: _without_axis(values) for name, values in settings.items()}
    for name, values in settings.items():
        axis = _axis(values)
        if values:
            place = float(values[axis]) if axis else 0.0
            alike[axis, frozenset(others[name].items())].append((place, name))
    found = [
        (axis, part) for (axis, _), group in alike.items() for part in _without_repeats(axis, group)
    ]
    varying = _varying([others[part[0][1]] for _, part in found])
    labels = [_label(others[part[0][1]], varying) for _, part in found]
    runs = []
    for label, (axis, part) in zip(labels, found, strict=True):
        alone = label and labels.count(label) == 1
        name = label if alone else ", ".join(filter(None, (label, _shared_name(axis, part))))
        runs.append(TrainingRun(name, axis, others[part[0][1]], tuple(part)))
    return runs


def numeric(value: object) -> bool:
    """Return whether a setting is a number."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _axis(values: Settings) -> str:
    return next((axis for axis in AXES if numeric(values.get(axis))), "")


def _without_axis(values: Settings) -> dict[str, str | int | float]:
    return {key: value for key, value in values.items() if key not in AXES}


def _without_repeats(axis: str, group: Sequence[Snapshot]) -> Iterable[list[Snapshot]]:
    """Divide snapshots that agree in their settings, so that no place is taken twice."""
    ordered = sorted(group)
    if axis and _distinct(ordered):
        return [ordered]
    by_name: dict[str, list[Snapshot]] = defaultdict(list)
    for place, name in ordered:
        by_name[_without_place(name, place) if axis else name].append((place, name))
    # What even their names do not tell apart are runs of one snapshot each.
    return [
        part
        for same in by_name.values()
        for part in ([same] if _distinct(same) else [[one] for one in same])
    ]


def _distinct(snapshots: Sequence[Snapshot]) -> bool:
    return len({place for place, _ in snapshots}) == len(snapshots)


def _varying(settings: Sequence[Settings]) -> list[str]:
    keys = dict.fromkeys(key for values in settings for key in values)
    return [key for key in keys if len({values.get(key) for values in settings}) > 1]


def _label(settings: Settings, varying: Sequence[str]) -> str:
    return ", ".join(f"{key} {settings[key]}" for key in varying if key in settings)


def _shared_name(axis: str, snapshots: Sequence[Snapshot]) -> str:
    place, name = snapshots[0]
    return _without_place(name, place) if axis and len(snapshots) > 1 else name


def _without_place(name: str, place: float) -> str:
    """Return a checkpoint's name without its place on the axis and the word for it."""
    shorter = re.sub(rf"(?<!\d)0*{place:.0f}(?!\d)", "", name)
    return re.sub(r"(?i)[\W_]*(epoch|ep|step)?[\W_]*$", "", shorter) or name
