"""The verdicts: where to cut for every task, the cut table, and what every cut is worth."""

from __future__ import annotations

from collections.abc import Iterable

from matplotlib.figure import Figure

from layerscope.report.curve import curves
from layerscope.report.depth import depth_figure, latents_figure
from layerscope.report.evidence import Evidence
from layerscope.report.section import Finding, Headline, Section, Table, by_source, sections
from layerscope.report.table import bounds, csv_text, markdown, number, signed
from layerscope.types import Verdict
from layerscope.verdicts.comparison import named, sentence, with_sentence

HEADER = (
    "checkpoint",
    "task",
    "estimator",
    "metric",
    "best cut",
    "value",
    "95% interval",
    "tied cuts",
    "shallowest",
    "gain over trunk",
    "gain over last",
    "gain over a constant",
    "n test",
    "groups",
)
NUMBERS = (5, 6, 9, 10, 11, 12, 13)
NORMALISED = "nmse"
"""The metric in which different latents share an axis: 1 is what a constant answer earns."""


@sections.register("verdicts")
class Verdicts(Section):
    """Where to cut for every task and checkpoint, and the metric over depth."""

    order = 10

    def find(self, evidence: Evidence) -> Finding:
        verdicts, titles = evidence.verdicts, evidence.titles
        records = [with_sentence(it, titles.get(it.task, "")) for it in verdicts]
        return Finding(
            "Cut table",
            headlines=[_headline(it, titles.get(it.task, "")) for it in verdicts],
            tables=[cut_table(verdicts)],
            figures=_figures(evidence),
            files={
                "cut-table.md": markdown(HEADER, cells(verdicts), NUMBERS),
                "cut-table.csv": csv_text(records),
            },
            records=records,
        )


def cut_table(verdicts: Iterable[Verdict]) -> Table:
    """Return a row for every verdict."""
    return Table(HEADER, cells(verdicts), NUMBERS)


def cells(verdicts: Iterable[Verdict]) -> list[tuple[str, ...]]:
    """Return the cut table's rows as a person reads them, under :data:`HEADER`."""
    return [
        (
            it.checkpoint,
            it.task,
            f"{it.estimator} [{it.way}]" if it.way else it.estimator,
            it.metric,
            _best(it),
            number(it.value.estimate),
            bounds(it.value),
            "" if it.unread else named(it, it.tied),
            "" if it.unread else it.label(it.shallowest),
            signed(it.gain),
            signed(it.gain_over_last),
            "–" if it.over_constant is None else signed(it.over_constant),
            str(it.n_test),
            str(it.n_groups),
        )
        for it in verdicts
    ]


def _best(verdict: Verdict) -> str:
    if verdict.unread:
        return "none"
    best = verdict.label(verdict.best)
    return best if verdict.agrees else f"{best} (!)"


def _headline(verdict: Verdict, title: str) -> Headline:
    text = f"{sentence(verdict, title)} {verdict.note}".strip()
    return Headline(verdict.checkpoint, text, verdict.trained)


def _figures(evidence: Evidence) -> dict[str, Figure]:
    probes, marked = evidence.drawn("probe"), evidence.marked
    primary, normalised = (
        curves(probes, metric, evidence.titles, evidence.constants) for metric in (None, NORMALISED)
    )
    return by_source("depth", primary, lambda some: depth_figure(some, marked)) | by_source(
        "latents", normalised, lambda some: latents_figure(some, marked)
    )
