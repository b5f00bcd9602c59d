"""What the sections of a report read: scores, and what was concluded from them once for all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from layerscope.results.constants import Question, constants
from layerscope.results.store import Results
from layerscope.types import Constant, Score, ScoreKind, Verdict
from layerscope.verdicts.comparison import Comparison, comparisons, note_widths, verdict
from layerscope.verdicts.runs import TrainingRun, training_runs
from layerscope.verdicts.series import Series, every_series


@dataclass(frozen=True)
class Evidence:
    """A folder of results, with its verdicts."""

    folder: Path
    scores: tuple[Score, ...]
    verdicts: tuple[Verdict, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    """Of probes: what verdicts were reached from."""
    runs: tuple[TrainingRun, ...] = ()
    """Which checkpoints are snapshots of a training."""
    current: tuple[Score, ...] = ()
    """Of the scores those from the caches that were probed last."""
    titles: Mapping[str, str] = field(default_factory=dict)
    """By task, what to call it, where it has a title."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What the results were made with, by command."""
    constants: Mapping[Question, Constant] = field(default_factory=dict)
    """By checkpoint, source and task: what a constant answer is worth, where it was kept."""

    @property
    def seed(self) -> int:
        """Of the resamples: that of the run, so that page and terminal give the same intervals."""
        seed: int = self.settings.get("probe", {}).get("seed", 0)
        return seed

    @property
    def measures(self) -> list[Score]:
        """The scores of measures, which train no probe and have no part in a verdict."""
        return [score for score in self.scores if score.kind == "measure"]

    @cached_property
    def series(self) -> tuple[list[Series], list[str]]:
        """The layers along every training, and why there is none for others."""
        return every_series(self.comparisons, self.runs, self.measures, seed=self.seed)

    def drawn(self, kind: ScoreKind) -> list[Score]:
        """Return what figures over depth show: current scores, of a training its last snapshot."""
        passed = {name for one in self.series[0] for name in one.checkpoints[:-1]}
        return [it for it in self.current if it.kind == kind and it.checkpoint not in passed]

    @property
    def marked(self) -> list[Verdict]:
        """The verdicts whose cuts figures mark.

        They are those of probes that were fitted as usual, and of tasks that some cut reads.
        """
        return [it for it in self.verdicts if it.usual and not it.unread]


def gather(stored: Results) -> Evidence:
    """Return the evidence that a folder of results holds.

    Raises:
        LayerScopeError: The results are damaged.
    """
    scores, settings = tuple(stored.scores()), _settings(stored.folder)
    compared, current = tuple(comparisons(stored)), tuple(stored.current(scores))
    seed = settings.get("probe", {}).get("seed", 0)
    return Evidence(
        folder=stored.folder,
        scores=scores,
        verdicts=tuple(note_widths([(item, verdict(item, seed=seed)) for item in compared])),
        comparisons=compared,
        runs=tuple(training_runs(stored.settings())),
        current=current,
        titles={name: task.title for name, task in stored.tasks().items() if task.title},
        settings=settings,
        constants=constants(stored, current),
    )


def _settings(folder: Path) -> dict[str, Any]:
    path = folder / "settings.json"
    known: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return known
