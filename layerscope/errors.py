"""Every error a user can cause: what happened, why it matters, what to do, and the exit code."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import ClassVar

DONE = 0
FINDINGS = 1
WRONG_USE = 2
CRASHED = 70
"""By an error of ours: not 1, which Python gives and which would pass for findings."""
INTERRUPTED = 130


class LayerScopeError(Exception):
    """An error that the user can act on.

    Args:
        message: One sentence: what happened, with the user's own value in it.
        hint: One sentence: what to do about it.
    """

    exit_code: ClassVar[int] = WRONG_USE

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[object, ...]:
        # Another rank gets the same error, whatever its kind is made from.
        return _new, (type(self), self.message), self.__dict__

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".rstrip()


def _new(kind: type[LayerScopeError], message: str) -> LayerScopeError:
    return kind.__new__(kind, message)


class UnknownNameError(LayerScopeError):
    """A name that no registry, file or model knows; the nearest known names are its hint.

    Args:
        kind: What was asked for, such as ``"task"`` or ``"layer"``.
        name: The name as the user typed it.
        known: Every name that would have been accepted.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        choices = sorted(set(known))
        near = difflib.get_close_matches(name, choices, n=3, cutoff=0.0) if choices else []
        hint = f"Nearest: {', '.join(near)}." if near else f"No {kind} is known here."
        super().__init__(f"There is no {kind} called {name!r}.", hint=hint)
        self.near = near


class DuplicateNameError(LayerScopeError):
    """Two definitions claim one name; neither is preferred silently."""


class CheckpointError(LayerScopeError):
    """A checkpoint that cannot be read, trusted or matched to an architecture."""


class SourceError(LayerScopeError):
    """An image source that is missing, empty, unreadable or inconsistent."""


class CacheError(LayerScopeError):
    """A feature cache that is damaged, incomplete, locked or made from something else."""


class DiskError(LayerScopeError):
    """The disk cannot take the result; what was finished is kept."""


class RenderError(LayerScopeError):
    """A renderer that is not there or failed on a scene."""


class EstimatorError(LayerScopeError):
    """An estimator that cannot be computed on the data it was given."""


class TrainingError(LayerScopeError):
    """A training run that cannot start or that diverged."""


class DeviceError(LayerScopeError):
    """A device that was asked for by name and is not there."""


class RankError(LayerScopeError):
    """One of several processes that did a job together is gone."""


class ClusterError(LayerScopeError):
    """A cluster that is not there, refuses a job, or ran one that failed."""


class SettingsError(LayerScopeError):
    """Options that contradict one another or a settings file that cannot be used."""
