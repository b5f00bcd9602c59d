"""Evaluations on shifted images: a line for each cut and condition, and what they add up to."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import quote

from layerscope.results.durable_files import (
    append_lines,
    complete_lines,
    damage_explained,
    replace_json,
)
from layerscope.results.grouping import grouped
from layerscope.stats.corruption import mean_corruption_error
from layerscope.types import Part

FOLDER = "evaluations"
"""In a results folder; it holds a folder for each cache whose probes were evaluated."""


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

    @property
    def key(self) -> str:
        """The cut in one of its poolings: ``blocks.3@cls``."""
        return f"{self.cut}@{self.pooling}"


@dataclass(frozen=True, slots=True)
class ShiftSummary:
    """What the cuts of one checkpoint are worth under a shift."""

    checkpoint: str
    source: str
    """Of the clean images that the probes were fitted on."""
    task: str
    shift: str
    conditions: int
    chosen: str
    """The cut and pooling that clean validation images prefer; empty where nothing tells."""
    cuts: tuple[CutSummary, ...]
    """In call order."""
    parts: tuple[Part, ...] = ()
    """Trunk or head, one for each cut; none where nothing tells."""


class Evaluations:
    """The evaluations of one cache's probes, kept in a folder.

    Args:
        folder: Made on the first write; need not exist to be read as empty.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._table = folder / "evaluations.jsonl"
        self._summaries = folder / "summaries"

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

    def keep_summary(self, found: ShiftSummary) -> None:
        """Keep what a shift adds up to, in place of an earlier summary of the same shift and task.

        Raises:
            DiskError: The disk is full; what was there before is unharmed.
        """
        name = quote(f"{found.shift}.{found.task}.json", safe="")
        replace_json(self._summaries / name, asdict(found), allow_nan=True)

    def summaries(self) -> list[ShiftSummary]:
        """Return what every shift adds up to, sorted by file.

        Evaluations from before summaries were kept do not know the clean images: their clean top-1
        is not a number, and no cut is chosen.

        Raises:
            LayerScopeError: A summary or a line of the table is damaged.
        """
        kept = [_read_summary(path) for path in sorted(self._summaries.glob("*.json"))]
        known = {(it.shift, it.task) for it in kept}
        rows = grouped(
            (it for it in self.rows() if (it.shift, it.task) not in known), "shift", "task"
        )
        source = self._folder.name.rpartition("@")[2]
        return kept + [_without_clean_images(group, source) for group in rows.values()]

    def _row(self, number: int, line: bytes) -> Evaluation:
        problem = f"Line {number} of {str(self._table)!r} is not an evaluation."
        hint = "Delete that line and repeat the command; the other conditions are kept."
        with damage_explained(problem, hint):
            return Evaluation(**json.loads(line))


def shift_summaries(results: Path) -> list[ShiftSummary]:
    """Return what every shift adds up to that was evaluated into a results folder.

    Raises:
        LayerScopeError: A summary or a line of a table is damaged.
    """
    folders = sorted(path for path in (results / FOLDER).glob("*") if path.is_dir())
    return [found for folder in folders for found in Evaluations(folder).summaries()]


def _read_summary(path: Path) -> ShiftSummary:
    problem = f"{str(path)!r} is not the summary of an evaluation."
    hint = "Delete the file and repeat layerscope evaluate; the conditions are kept."
    with damage_explained(problem, hint):
        record = json.loads(path.read_text(encoding="utf-8"))
        cuts = tuple(CutSummary(**cut) for cut in record.pop("cuts"))
        return ShiftSummary(cuts=cuts, parts=tuple(record.pop("parts")), **record)


def _without_clean_images(rows: Iterable[Evaluation], source: str) -> ShiftSummary:
    # Of a condition that was streamed twice, the later row counts.
    latest = {(row.cut, row.pooling, row.condition): row for row in rows}
    by_cut = grouped(latest.values(), "cut", "pooling")
    first = next(iter(latest.values()))
    return ShiftSummary(
        checkpoint=first.checkpoint,
        source=source,
        task=first.task,
        shift=first.shift,
        conditions=len({condition for _, _, condition in latest}),
        chosen="",
        cuts=tuple(summary(group, math.nan, {}, ()) for group in by_cut.values()),
    )


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
