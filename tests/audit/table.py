"""What is audited: by name, the definition that an estimator is held against.

A definition is written again from its paper, with NumPy and SciPy in float64 and nothing of the
package. It is a function of a case and of the settings that the estimator gave with its scores, and
returns the metrics that it defines. A file of definitions adds its own with :func:`audited`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from layerscope.estimators.naming import make
from layerscope.types import UNLABELLED, Task
from tests.audit.cases import CONDITIONS, Case, cases

Values = dict[str, float]
Define = Callable[[Case, Mapping[str, Any]], Values]

KIND = Task("kind", "memory", "classes", "top-1", "maximise")
PLACE = Task("place", "memory", "latents", "mse", "minimise", encoding="raw")
TURN = Task("turn", "memory", "latents", "mse", "minimise", encoding="circular", period=1.0)
POSE = Task("pose", "memory", "latents", "mse", "minimise", encoding="quaternion")
MARKS = Task("marks", "memory", "multilabel", "mean-average-precision", "maximise",
             classes=("a", "b"))  # fmt: skip


@dataclass(frozen=True)
class Audited:
    """One estimator, or one function of the package, and its definition."""

    name: str
    task: Task
    source: str
    define: Define
    ours: Callable[[Case], tuple[Values, Mapping[str, Any]]]
    """Returns the values of the package, and settings."""
    within: float
    """The deviation that is allowed."""
    conditions: Sequence[str]
    """Of the layers that it is audited on."""

    def deviations(self, case: Case) -> Values:
        """Return by metric how far the package is from the definition, as a share of it."""
        found, settings = self.ours(case)
        wanted = self.define(case, settings)
        return {
            metric: abs(found[metric] - value) / (abs(value) or 1.0)
            for metric, value in wanted.items()
        }


AUDITED: list[Audited] = []


def audited(
    name: str,
    source: str,
    task: Task = UNLABELLED,
    ours: Callable[[Case], tuple[Values, Mapping[str, Any]]] | None = None,
    within: float = 1e-9,
    conditions: Sequence[str] = CONDITIONS,
) -> Callable[[Define], Define]:
    """Enter a definition.

    Args:
        name: The estimator, as on the command line.
        source: Where the definition is from.
        task: Of which task.
        ours: What else the definition is of, where that is no estimator.
        within: The deviation that is allowed, as a share of the value.
        conditions: Of the layers that it is audited on.
    """

    def enter(define: Define) -> Define:
        found = ours or _scored(name, task)
        AUDITED.append(Audited(name, task, source, define, found, within, conditions))
        return define

    return enter


def worst(entry: Audited) -> Values:
    """Return by metric the largest deviation over all cases."""
    found: Values = {}
    for case in (case for case in cases() if case.condition in entry.conditions):
        for metric, deviation in entry.deviations(case).items():
            found[metric] = max(found.get(metric, 0.0), deviation)
    return found


def _scored(name: str, task: Task) -> Callable[[Case], tuple[Values, Mapping[str, Any]]]:
    def ours(case: Case) -> tuple[Values, Mapping[str, Any]]:
        scores = list(make(name, 0).score(case.layer, [task]))
        return {score.metric: score.test for score in scores}, scores[0].settings

    return ours
