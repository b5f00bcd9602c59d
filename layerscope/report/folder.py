"""The report's folder: figures, tables and the page, from a folder of results."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from layerscope.errors import LayerScopeError
from layerscope.report import table
from layerscope.results.measures import divided
from layerscope.results.store import MAKE, Results, open_results
from layerscope.types import Score, Verdict
from layerscope.verdicts.common_cut import CommonCut, common_cuts
from layerscope.verdicts.common_cut import sentence as across_sentence
from layerscope.verdicts.comparison import Comparison, comparisons, sentence, verdict, weighed
from layerscope.verdicts.grid import Grid, grids
from layerscope.verdicts.grid import sentence as grid_sentence
from layerscope.verdicts.runs import runs
from layerscope.verdicts.scorecard import MeasureScore, scorecard
from layerscope.verdicts.scorecard import sentences as standing_sentences
from layerscope.verdicts.series import Series, every_series
from layerscope.verdicts.series import sentence as series_sentence


@dataclass(frozen=True, slots=True)
class Report:
    """What a report was made of, and where its page lies."""

    page: Path
    scores: tuple[Score, ...]
    verdicts: tuple[Verdict, ...]
    sentences: tuple[str, ...]
    """One for each verdict."""
    across: tuple[CommonCut, ...] = ()
    """One cut for all tasks of a checkpoint, where it has several."""
    remarks: tuple[str, ...] = ()
    """One sentence for each of those, and why there is none for a checkpoint of several tasks."""
    standings: tuple[MeasureScore, ...] = ()
    """The scorecard of measures that train no probe."""
    series: tuple[Series, ...] = ()
    """Layers along runs of training, where checkpoints are snapshots of one."""
    grids: tuple[Grid, ...] = ()
    """Trunk against head, where checkpoints are runs of a grid."""
    of_measures: tuple[str, ...] = ()
    """One sentence for each measure of the scorecard."""
    of_runs: tuple[str, ...] = ()
    """One sentence for each series, and why there is none."""
    of_grids: tuple[str, ...] = ()
    """One sentence for each grid."""

    @property
    def told(self) -> tuple[str, ...]:
        """All that is said beside the verdicts."""
        return (*self.remarks, *self.of_measures, *self.of_runs, *self.of_grids)

    def document(self) -> dict[str, Any]:
        """Return what ``--json`` prints and ``verdicts.json`` holds."""
        return table.document(
            self.scores, self.verdicts, self.across, self.standings, self.series, self.grids
        )


def write_report(results: Path, output: Path) -> Report:
    """Write figures, tables and one self-contained page about a folder of results.

    Args:
        results: The folder that ``layerscope probe`` wrote.
        output: Where to put ``index.html``, ``cut-table.*``, ``verdicts.json``, ``scores.csv``,
            ``figures/`` and, where there is what they hold, ``scorecard.csv``, ``series.csv`` and
            ``grids.csv``.

    Returns:
        The verdicts, what stands beside them, and the place of the page.

    Raises:
        LayerScopeError: There are no results, or they are damaged.
    """
    stored = open_results(results)
    scores, settings = tuple(_some(stored)), _settings(results)
    # The seed of the run, so that page and terminal give the same intervals.
    seed = settings.get("probe", {}).get("seed", 0)
    items = comparisons(stored)
    titles = {name: task.title for name, task in stored.tasks().items() if task.title}
    report = _told_beside(
        _judged(output / "index.html", scores, items, titles, seed), stored, items, titles, seed
    )
    output.mkdir(parents=True, exist_ok=True)
    _write_tables(report, output)
    _write_page(report, titles, settings, stored.current(scores))
    return report


def _judged(
    page: Path,
    scores: tuple[Score, ...],
    items: Sequence[Comparison],
    titles: Mapping[str, str],
    seed: int,
) -> Report:
    found = tuple(weighed([(item, verdict(item, seed=seed)) for item in items]))
    across, reasons = common_cuts(items, seed=seed)
    sentences = tuple(sentence(item, titles.get(item.task, "")) for item in found)
    remarks = [f"{one.checkpoint}: {across_sentence(one, titles)}" for one in across]
    return Report(page, scores, found, sentences, tuple(across), (*remarks, *reasons))


def _told_beside(
    report: Report,
    stored: Results,
    items: Sequence[Comparison],
    titles: Mapping[str, str],
    seed: int,
) -> Report:
    """Add what measures, series and grids have to say; none of it touches a verdict."""
    _, measures = divided(report.scores)
    found = runs(stored.settings())
    standings = scorecard(items, measures, seed=seed)
    series, reasons = every_series(items, found, measures, seed=seed)
    compared = grids(items, found, seed=seed)
    return replace(
        report,
        standings=tuple(standings),
        series=tuple(series),
        grids=tuple(compared),
        of_measures=tuple(standing_sentences(standings, titles)),
        of_runs=(*(series_sentence(one, titles) for one in series), *reasons),
        of_grids=tuple(grid_sentence(one, titles) for one in compared),
    )


def _some(stored: Results) -> list[Score]:
    scores = stored.scores()
    if not scores:
        raise LayerScopeError(f"The folder {str(stored.folder)!r} holds no scores.", hint=MAKE)
    return scores


def _write_tables(report: Report, output: Path) -> None:
    texts = {
        "cut-table.md": table.markdown(report.verdicts),
        "cut-table.csv": table.verdicts_csv(report.verdicts),
        "verdicts.json": json.dumps(report.document(), indent=2, ensure_ascii=False) + "\n",
        "scores.csv": table.scores_csv(report.scores),
    }
    if report.standings:
        texts["scorecard.csv"] = table.scorecard_csv(report.standings)
    if report.series:
        texts["series.csv"] = table.series_csv(report.series)
    if report.grids:
        texts["grids.csv"] = table.grids_csv(report.grids)
    for name, text in texts.items():
        (output / name).write_text(text, encoding="utf-8")


def _write_page(
    report: Report,
    titles: Mapping[str, str],
    settings: Mapping[str, Any],
    current: Sequence[Score],
) -> None:
    # Here, so that reading results does not load matplotlib.
    from layerscope.report.figures import Beside, figures, write
    from layerscope.report.page import Content, page

    beside = Beside(report.standings, report.series, report.grids)
    drawn = figures(current, [it for it in report.verdicts if it.usual], titles, beside)
    paths = write(drawn, report.page.parent / "figures")
    images = {path.stem: path for path in paths if path.suffix == ".svg"}
    content = Content(
        report.scores,
        report.verdicts,
        report.sentences,
        images,
        settings,
        report.across,
        report.remarks,
        report.standings,
        report.series,
        report.grids,
        report.of_measures,
        report.of_runs,
        report.of_grids,
    )
    report.page.write_text(page(content), encoding="utf-8")


def _settings(results: Path) -> dict[str, Any]:
    path = results / "settings.json"
    known: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return known
