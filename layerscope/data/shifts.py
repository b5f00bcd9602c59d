"""Shifts: images that are no part of any training, under conditions that are told apart.

They are evaluated with probes that were fitted on other images, one condition after the other, and
their features are used at once and not kept: ImageNet-C at stage level alone would be 75 GB.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from layerscope.data.sources import open_source, sources
from layerscope.errors import UnknownNameError
from layerscope.registry import Registry
from layerscope.types import Source


@dataclass(frozen=True, slots=True)
class Condition:
    """One set of images, all shifted in the same way."""

    name: str
    """``fog-3``, or the source's name where there is only one condition."""
    family: str
    """What conditions of several strengths share: ``fog``."""
    severity: int
    """From 1; 0 where there are no strengths."""
    open: Callable[[], Source]
    """Reads what its folder holds; the rows have no splits that matter."""


@dataclass(frozen=True, slots=True)
class Shift:
    """A set of conditions, and what their errors are measured against."""

    name: str
    conditions: tuple[Condition, ...]
    baseline: Mapping[str, float] = field(default_factory=dict)
    """By family, the error of a reference network, averaged over the severities."""
    task: str = ""
    """The task whose probes answer it, where there is only one."""


shifts: Registry[Callable[[Path], Shift]] = Registry(
    "shift", package="layerscope.data.tasks", group="layerscope.shifts"
)
"""By name: the function that finds the conditions in a folder."""


def open_shift(name: str, root: Path) -> Shift:
    """Return the conditions in a folder; any image source is a shift of one condition.

    Raises:
        UnknownNameError: There is neither of this name.
        SourceError: The folder is incomplete.
    """
    if name in shifts:
        return shifts[name](root)
    if name not in sources:
        raise UnknownNameError("shift or image source", name, [*shifts, *sources])
    return Shift(name, (Condition(name, name, 0, lambda: open_source(name, root)),))
