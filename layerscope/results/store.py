"""The results folder: the table of scores, the losses behind it, the test groups and the tasks.

::

    results/
      scores.jsonl                               one row per line; the last of a cell counts
      scores.parquet, scores.csv                 the same as a table, written anew after each run
      tasks.json                                 titles, units and encodings of the tasks
      checkpoints/<checkpoint>.json              what sets it apart in a series or a grid
      losses/<checkpoint>@<source>/groups.<task>.npz    group of every test row
      losses/<checkpoint>@<source>/constant.<task>.npz  what a constant answer is worth, and its
                                                 loss of every val and test row; with
                                                 .shuffled.seed<n> where targets are
      losses/<checkpoint>@<source>/<cut>@<pooling>.<task>.<estimator>.npz    loss of every val and
                                                 test row, and predictions where they were kept;
                                                 .<train>.<control>.seed<n> where not the usual

Losses are in place before their row is appended, and the row of a task's primary metric is its
last, so that a primary row implies all the rest of its cell. A line that a killed writer left
half-written is dropped on the next append.

The primary metric also chose what was fitted. Where an estimator was fitted to a checkpoint's task
by one metric and then by another, the cells of the last one count, and those of the others are as
if they were not there: they would be compared with cells that were chosen otherwise.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args
from urllib.parse import quote

import numpy as np
import numpy.typing as npt

from layerscope.errors import LayerScopeError
from layerscope.results.durable_files import (
    append_lines,
    complete_lines,
    damage_explained,
    replace_file,
    replace_json,
)
from layerscope.results.labelled_array import labelled
from layerscope.types import (
    UNLABELLED,
    Constant,
    Control,
    Draw,
    Losses,
    Replicates,
    ReplicatesKind,
    Score,
    Setting,
    Task,
)

if TYPE_CHECKING:
    import pandas
    import pyarrow
    import xarray

NUMBERS = ("val", "test", "stderr")
MAKE = "Make results with layerscope probe, or give the folder that it wrote."
CellKey = tuple[str | int, ...]


class Results:
    """The scores of many checkpoints, cuts and tasks, kept in one folder.

    Args:
        folder: Made on the first write; need not exist to be read as empty.
        keep_predictions: Keep what was predicted of every test row beside the losses.
    """

    def __init__(self, folder: Path, *, keep_predictions: bool = False) -> None:
        self.folder = folder
        self._keep_predictions = keep_predictions
        self._table = folder / "scores.jsonl"
        self._tasks = folder / "tasks.json"
        self._checkpoints = folder / "checkpoints"

    def scores(self) -> list[Score]:
        """Return the table without losses: of rows for the same cell and metric, the last.

        Rows beside a primary one that is missing, failed or from another cache are left out, and so
        are cells that were chosen by another metric than the last of their checkpoint, task and
        estimator.

        Raises:
            LayerScopeError: A complete line is not a score.
        """
        latest: dict[CellKey, Score] = {}
        primary: dict[CellKey, Score] = {}
        metrics: dict[CellKey, str] = {}
        for number, line in enumerate(complete_lines(self._table), start=1):
            score = _score(line, f"line {number} of {str(self._table)!r}")
            key = cell_key(score)
            latest[key] = score
            if score.primary:
                primary[key[:-1]], metrics[_question(score)] = score, score.metric
        counting = {cell: it for cell, it in primary.items() if it.metric == metrics[_question(it)]}
        whole = {cell: it.fingerprint for cell, it in counting.items() if it.status == "done"}
        return [
            it
            for (*cell, _), it in latest.items()
            if (
                counting.get(tuple(cell)) is it
                if it.primary
                else whole.get(tuple(cell)) == it.fingerprint
            )
        ]

    def current(self, scores: Sequence[Score]) -> list[Score]:
        """Return the scores from the caches that were probed last, leaving out older ones.

        A cut or pooling that is in an older cache only has a row that nothing replaced.

        Raises:
            LayerScopeError: The record of the caches is missing.
        """
        caches = {(score.checkpoint, score.source, score.task) for score in scores}
        latest = {cache: self._latest(*cache) for cache in caches}

        def is_current(it: Score) -> bool:
            recorded = latest[it.checkpoint, it.source, it.task]
            return not recorded or it.fingerprint in recorded

        return list(filter(is_current, scores))

    def to_xarray(self) -> xarray.Dataset:
        """Return the table as a dataset with an axis for each part of a cell's name.

        The axes are checkpoint, source, cut, pooling, task, estimator and metric; the variables
        ``val``, ``test``, ``stderr`` and the counts of rows and groups, NaN where a cell is missing
        or failed. Cuts are in the order of their depth.

        Raises:
            LayerScopeError: xarray is not installed, or a complete line is not a score.
        """
        return labelled(self.scores())

    def to_arrow(self) -> pyarrow.Table:
        """Return the table with one row to a cell and metric, in columns of their types.

        Settings are JSON in a column of text; a number that is missing is null.

        Raises:
            LayerScopeError: A complete line is not a score.
        """
        from layerscope.results.frame import arrow

        return arrow(self.scores())

    def to_pandas(self) -> pandas.DataFrame:
        """Return the same as a frame, in which a number that is missing is NaN.

        Raises:
            LayerScopeError: pandas is not installed, or a complete line is not a score.
        """
        from layerscope.results.frame import to_pandas

        return to_pandas(self.scores())

    def export(self) -> None:
        """Write the table anew as ``scores.parquet`` and ``scores.csv``, for other programs.

        Raises:
            DiskError: The disk is full; the old files are unharmed.
        """
        from pyarrow import csv, parquet

        table = self.to_arrow()
        replace_file(self.folder / "scores.parquet", lambda file: parquet.write_table(table, file))
        replace_file(self.folder / "scores.csv", lambda file: csv.write_csv(table, file))

    def append(self, scores: Sequence[Score]) -> None:
        """Add the rows of one cell and wait until the disk has them.

        Raises:
            DiskError: The disk is full; what was there before is unharmed.
        """
        if not scores:
            return
        for score in scores:
            if score.losses is not None:
                self._keep_losses(score, score.losses)
        rows = map(row, sorted(scores, key=lambda score: score.primary))
        lines = [json.dumps(it, ensure_ascii=False, allow_nan=False) for it in rows]
        append_lines(self._table, lines)

    def losses(self, score: Score) -> Losses:
        """Return the loss of every row under a primary score.

        Raises:
            LayerScopeError: They are missing or belong to another cache.
        """
        path = self._losses_path(score)
        with _open(path, "Run the probe again with --existing replace.") as stored:
            # Losses from before they had a metric are of the only one that there was.
            metric = str(stored["metric"]) if "metric" in stored else score.metric
            if str(stored["fingerprint"]) != score.fingerprint or metric != score.metric:
                raise LayerScopeError(
                    f"The losses in {str(path)!r} belong to another cache or metric than their "
                    "row.",
                    hint="Run the probe again with --existing replace.",
                )
            return _losses(stored)

    def keep_groups(
        self,
        checkpoint: str,
        source: str,
        task: str,
        groups: npt.NDArray[np.str_],
        fingerprint: str,
    ) -> None:
        """Keep the group of every test row that one task has in one cache."""
        path = self._groups_path(checkpoint, source, task)
        _write(path, {"test": np.asarray(groups, dtype=np.str_), "fingerprint": fingerprint})

    def groups(self, checkpoint: str, source: str, task: str) -> tuple[npt.NDArray[np.str_], str]:
        """Return the group of every test row, and the fingerprint of the cache they came from.

        Raises:
            LayerScopeError: The file is missing.
        """
        path = self._groups_path(checkpoint, source, task)
        with _open(path, "Run the probe again; it writes the groups first.") as stored:
            return stored["test"], str(stored["fingerprint"])

    def keep_constant(
        self,
        checkpoint: str,
        source: str,
        task: str,
        constant: Constant,
        fingerprint: str,
        shuffled: int | None = None,
    ) -> None:
        """Keep what a constant answer to one task is worth on one cache.

        It stands beside the table and not in it, so that it is never taken for a cut.

        Args:
            checkpoint: Of the cache.
            source: Of the cache.
            task: Whose targets made it.
            constant: What it is worth.
            fingerprint: Of the cache.
            shuffled: The seed by which targets are shuffled; None where they are as they are.
        """
        arrays = {
            "metrics": np.array(list(constant.values), dtype=np.str_),
            "values": np.array(list(constant.values.values()), dtype=np.float64),
            "note": constant.note,
            "fingerprint": fingerprint,
        }
        if constant.losses is not None:
            arrays |= {"val": constant.losses.val, "test": constant.losses.test}
        _write(self._constant_path(checkpoint, source, task, shuffled), arrays)

    def constant(
        self, checkpoint: str, source: str, task: str, shuffled: int | None = None
    ) -> tuple[Constant, str] | None:
        """Return what was kept of a constant answer, and the fingerprint of its cache.

        Results from before constants were kept have none: None.
        """
        path = self._constant_path(checkpoint, source, task, shuffled)
        if not path.is_file():
            return None
        with _open(path, MAKE) as stored:
            losses = Losses(stored["val"], stored["test"]) if "val" in stored else None
            values = zip(stored["metrics"].tolist(), stored["values"].tolist(), strict=True)
            found = Constant(dict(values), losses, str(stored["note"]))
            return found, str(stored["fingerprint"])

    def keep_settings(self, checkpoint: str, settings: Mapping[str, Setting]) -> None:
        """Keep what distinguishes a checkpoint in a series or a grid: its epoch, its settings.

        Each checkpoint has a file of its own, so that several jobs may write at a time.
        """
        record = {"checkpoint": checkpoint, "settings": dict(settings)}
        replace_json(self._checkpoints / _safe(f"{checkpoint}.json"), record)

    def settings(self) -> dict[str, dict[str, Setting]]:
        """Return by checkpoint what was kept of it, sorted by name.

        Raises:
            LayerScopeError: A file is not such a record.
        """
        return dict(sorted(map(_record, self._checkpoints.glob("*.json"))))

    def keep_tasks(self, tasks: Sequence[Task]) -> None:
        """Keep titles, units and encodings, beside those of earlier runs."""
        known = self.tasks() | {task.name: task for task in tasks}
        replace_json(self._tasks, [asdict(task) for task in known.values()])

    def tasks(self) -> dict[str, Task]:
        """Return the tasks by name."""
        if not self._tasks.is_file():
            return {}
        rows = json.loads(self._tasks.read_text(encoding="utf-8"))
        return {row["name"]: Task(**row | {"classes": tuple(row["classes"])}) for row in rows}

    def _latest(self, checkpoint: str, source: str, task: str) -> set[str]:
        """Return the fingerprint of the cache that a task was probed on last.

        What needs no labels may have no record of its own: there that of any task of the cache
        counts, and without one there is none.
        """
        if task != UNLABELLED.name or self._groups_path(checkpoint, source, task).is_file():
            return {self.groups(checkpoint, source, task)[1]}
        return set(map(_fingerprint, self._home(checkpoint, source).glob("groups.*.npz")))

    def _home(self, checkpoint: str, source: str) -> Path:
        return self.folder / "losses" / _safe(f"{checkpoint}@{source}")

    def _groups_path(self, checkpoint: str, source: str, task: str) -> Path:
        return self._home(checkpoint, source) / _safe(f"groups.{task}.npz")

    def _constant_path(self, checkpoint: str, source: str, task: str, shuffled: int | None) -> Path:
        parts = ["constant", task, *([] if shuffled is None else ["shuffled", f"seed{shuffled}"])]
        return self._home(checkpoint, source) / _safe(".".join([*parts, "npz"]))

    def _losses_path(self, score: Score) -> Path:
        parts = [f"{score.cut}@{score.pooling}", score.task, score.estimator]
        if not score.usual or score.folds > 1 or score.seed:
            parts += [score.train, str(score.control), f"seed{score.seed}"]
        name = _safe(".".join([*filter(None, parts), "npz"]))
        return self._home(score.checkpoint, score.source) / name

    def _keep_losses(self, score: Score, losses: Losses) -> None:
        arrays = {
            "val": losses.val,
            "test": losses.test,
            "fingerprint": score.fingerprint,
            "metric": score.metric,
        }
        if self._keep_predictions and losses.predicted is not None:
            arrays["predicted"] = losses.predicted
        _write(self._losses_path(score), arrays | _training(losses))


def open_results(folder: Path) -> Results:
    """Open a folder of results for reading.

    Args:
        folder: The one that ``layerscope probe`` wrote.

    Raises:
        LayerScopeError: There is no such folder.
    """
    if not folder.is_dir():
        raise LayerScopeError(f"There is no results folder {str(folder)!r}.", hint=MAKE)
    return Results(folder)


def cell_key(score: Score) -> CellKey:
    """Return what names a row of the table."""
    return (
        score.checkpoint,
        score.source,
        score.cut,
        score.pooling,
        score.task,
        score.estimator,
        score.train,
        str(score.control),
        score.seed,
        score.metric,
    )


def _question(score: Score) -> CellKey:
    """Return what names the cells that may be compared, and so have one primary metric."""
    return score.checkpoint, score.source, score.task, score.estimator


def row(score: Score) -> dict[str, Any]:
    """Return a score as JSON holds it: a number that is missing is null."""
    columns = score.row()
    known = {name: columns[name] for name in NUMBERS}
    return columns | {name: v if math.isfinite(v) else None for name, v in known.items()}


def _score(line: bytes, where: str) -> Score:
    problem = f"The table of scores is damaged: {where} is not a score."
    hint = "Delete that line and run the probe again; the other cells are kept."
    with damage_explained(problem, hint):
        columns = json.loads(line)
        missing = {name: math.nan for name in NUMBERS if columns[name] is None}
        return Score(**_facts(columns), **columns | missing)


def _facts(columns: dict[str, Any]) -> dict[str, Any]:
    """Take the columns that hold facts as text out of a row, and return the facts as fields.

    Older rows lack three of the columns, and tell the facts by settings and names.
    """
    count, _, word = str(columns.pop("train")).partition(" ")
    folds = int(count) if word == "folds" else 1
    images, _, views = columns["source"].partition(".views")
    measured = "convention" in columns["settings"]
    return {
        "draw": Draw() if folds > 1 else Draw.parse(count),
        "folds": folds,
        "control": Control.parse(columns.pop("control")),
        "kind": columns.pop("kind", "measure" if measured else "probe"),
        "trained": columns.pop("trained", not columns["checkpoint"].endswith("-random")),
        "views_of": columns.pop("views_of", images if views else ""),
        "revision": columns.pop("revision", 1),
    }


def _training(losses: Losses) -> dict[str, Any]:
    """Return what is known of the training rows as arrays."""
    known: dict[str, Any] = {
        "train_groups": losses.train_groups,
        "train_share": losses.train_share,
    }
    for it in losses.replicates:
        facts = {"factor": it.factor, "degrees": it.degrees}
        known[f"{it.kind}_losses"] = np.asarray(it.losses, dtype=np.float32)
        known |= {f"{it.kind}_{name}": value for name, value in facts.items()}
    return known


def _replicates(stored: Mapping[str, Any]) -> Iterator[Replicates]:
    for kind in get_args(ReplicatesKind):
        if f"{kind}_losses" in stored:
            facts = (float(stored[f"{kind}_{name}"]) for name in ("factor", "degrees"))
            yield Replicates(kind, stored[f"{kind}_losses"], *facts)


def _losses(stored: Mapping[str, Any]) -> Losses:
    """Return losses from arrays; older ones know nothing of other training rows."""
    return Losses(
        stored["val"],
        stored["test"],
        stored.get("predicted"),
        tuple(_replicates(stored)),
        int(stored.get("train_groups", 0)),
        float(stored.get("train_share", 1.0)),
    )


def _fingerprint(path: Path) -> str:
    with _open(path, MAKE) as stored:
        return str(stored["fingerprint"])


def _record(path: Path) -> tuple[str, dict[str, Setting]]:
    problem = f"{str(path)!r} does not say what sets a checkpoint apart."
    hint = "Delete the file and run the probe again; the cells are kept."
    with damage_explained(problem, hint):
        record = json.loads(path.read_text(encoding="utf-8"))
        return str(record["checkpoint"]), dict(record["settings"])


def _safe(name: str) -> str:
    return quote(name, safe="@#, ")


@contextmanager
def _open(path: Path, hint: str) -> Iterator[Mapping[str, Any]]:
    try:
        with np.load(path, allow_pickle=False) as stored:
            yield stored
    except FileNotFoundError:
        raise LayerScopeError(f"There is no file {str(path)!r}.", hint=hint) from None


def _write(path: Path, arrays: Mapping[str, Any]) -> None:
    replace_file(path, lambda file: np.savez_compressed(file, **arrays))


def failed(score: Score, note: str) -> Score:
    """Return the row that says that a score could not be computed, and why."""
    nan = math.nan
    return replace(score, val=nan, test=nan, stderr=nan, status="failed", note=note, losses=None)
