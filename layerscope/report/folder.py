"""The report's folder: figures, tables and the page, from a folder of results."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from layerscope.errors import LayerScopeError
from layerscope.nouns import Score, Verdict
from layerscope.report import table
from layerscope.report.across import Across, every_across
from layerscope.report.across import sentence as across_sentence
from layerscope.report.results import MAKE, Results, open_results
from layerscope.report.verdict import contests, sentence, verdict, weighed


@dataclass(frozen=True, slots=True)
class Report:
    """What a report was made of, and where its page lies."""

    page: Path
    scores: tuple[Score, ...]
    verdicts: tuple[Verdict, ...]
    sentences: tuple[str, ...]
    """One for each verdict."""
    across: tuple[Across, ...] = ()
    """One cut for all tasks of a checkpoint, where it has several."""
    remarks: tuple[str, ...] = ()
    """One sentence for each of those, and why there is none for a checkpoint of several tasks."""


def write_report(results: Path, output: Path) -> Report:
    """Write figures, tables and one self-contained page about a folder of results.

    Args:
        results: The folder that ``layerscope probe`` wrote.
        output: Where to put ``index.html``, ``cut-table.*``, ``verdicts.json``, ``scores.csv`` and
            ``figures/``.

    Returns:
        The verdicts and the place of the page.

    Raises:
        LayerScopeError: There are no results, or they are damaged.
    """
    stored = open_results(results)
    scores, settings = tuple(_some(stored)), _settings(results)
    # The seed of the run, so that page and terminal give the same intervals.
    seed = settings.get("probe", {}).get("seed", 0)
    items = contests(stored)
    found = tuple(weighed([(item, verdict(item, seed=seed)) for item in items]))
    across, reasons = every_across(items, seed=seed)
    titles = {name: task.title for name, task in stored.tasks().items() if task.title}
    sentences = tuple(sentence(item, titles.get(item.task, "")) for item in found)
    remarks = [f"{one.checkpoint}: {across_sentence(one, titles)}" for one in across]
    report = Report(
        output / "index.html", scores, found, sentences, tuple(across), (*remarks, *reasons)
    )
    output.mkdir(parents=True, exist_ok=True)
    _write_tables(report, output)
    _write_page(report, titles, settings, stored.current(scores))
    return report


def _some(stored: Results) -> list[Score]:
    scores = stored.scores()
    if not scores:
        raise LayerScopeError(f"The folder {str(stored.folder)!r} holds no scores.", hint=MAKE)
    return scores


def _write_tables(report: Report, output: Path) -> None:
    document = table.document(report.scores, report.verdicts, report.across)
    texts = {
        "cut-table.md": table.markdown(report.verdicts),
        "cut-table.csv": table.verdicts_csv(report.verdicts),
        "verdicts.json": json.dumps(document, indent=2, ensure_ascii=False) + "\n",
        "scores.csv": table.scores_csv(report.scores),
    }
    for name, text in texts.items():
        (output / name).write_text(text, encoding="utf-8")


def _write_page(
    report: Report,
    titles: Mapping[str, str],
    settings: Mapping[str, Any],
    current: Sequence[Score],
) -> None:
    # Here, so that reading results does not load matplotlib.
    from layerscope.report.figures import figures, write
    from layerscope.report.page import Content, page

    drawn = figures(current, [it for it in report.verdicts if it.usual], titles)
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
    )
    report.page.write_text(page(content), encoding="utf-8")


def _settings(results: Path) -> dict[str, Any]:
    path = results / "settings.json"
    known: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return known
