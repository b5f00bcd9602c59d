"""Evaluations on shifted images: a line for each cut and condition, and what they add up to."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from layerscope.errors import LayerScopeError
from layerscope.results.line_files import append_lines, complete_lines
from layerscope.stats.corruption import mean_corruption_error


@dataclass(frozen=True, slots=True)
class Evaluation:
    """How the probe of one cut does under one condition."""

    checkpoint: str
    cut: str
    pooling: str
    task: str
    """Whose probe it is."""
    shift: str
    condition: str
    family: str
    severity: int
    top_1: float
    """Share of the images that are told right."""
    n: int
    """Images that could be read."""
    bad: int
    """Images that could not."""
    probes: str
    """Fingerprint of the cache that the probe was fitted on."""
    images: str
    """Manifest of the condition's images, and how they were read."""


@dataclass(frozen=True, slots=True)
class CutSummary:
    """What one cut is worth under a shift."""

    cut: str
    pooling: str
    clean: float
    """Top-1 on the test split of the clean cache."""
    shifted: float
    """Top-1, averaged over the conditions."""
    mce: float | None
    """Mean corruption error relative to the baseline, where every family of it is there."""
    by_family: Mapping[str, float]
    """Top-1 by family, averaged over its severities."""


class Evaluations:
    """The evaluations of one cache's probes, kept in a folder.

    Args:
        folder: Made on the first write; need not exist to be read as empty.
    """

    def __init__(self, folder: Path) -> None:
        self._table = folder / "evaluations.jsonl"

    def rows(self) -> list[Evaluation]:
        """Return every evaluation that was finished.

        Raises:
            LayerScopeError: A complete line is not an evaluation.
        """
        return [self._row(*it) for it in enumerate(complete_lines(self._table), start=1)]

    def append(self, evaluations: Sequence[Evaluation]) -> None:
        """Add the evaluations of one condition and wait until the disk has them.

        Raises:
            DiskError: The disk is full; what was there before is unharmed.
        """
        append_lines(
            self._table, [json.dumps(asdict(it), ensure_ascii=False) for it in evaluations]
        )

    def _row(self, number: int, line: bytes) -> Evaluation:
        try:
            return Evaluation(**json.loads(line))
        except (ValueError, TypeError):
            raise LayerScopeError(
                f"Line {number} of {str(self._table)!r} is not an evaluation.",
                hint="Delete that line and repeat the command; the other conditions are kept.",
            ) from None


def summary(
    evaluations: Sequence[Evaluation],
    clean: float,
    baseline: Mapping[str, float],
    severities: Collection[int],
) -> CutSummary:
    """Return what the evaluations of one cut add up to.

    Args:
        evaluations: Of one cut in one pooling, one for each condition.
        clean: Its top-1 on clean test images.
        baseline: By family, the error of the reference network.
        severities: That every family has.
    """
    by_family: dict[str, dict[int, float]] = defaultdict(dict)
    for it in evaluations:
        by_family[it.family][it.severity] = it.top_1
    errors = {
        name: [1 - values[severity] for severity in severities]
        for name, values in by_family.items()
        if set(values) >= set(severities)
    }
    whole = bool(baseline) and set(errors) >= set(baseline)
    return CutSummary(
        cut=evaluations[0].cut,
        pooling=evaluations[0].pooling,
        clean=clean,
        shifted=sum(it.top_1 for it in evaluations) / len(evaluations),
        mce=mean_corruption_error(errors, baseline) if whole else None,
        by_family={name: sum(them.values()) / len(them) for name, them in by_family.items()},
    )
