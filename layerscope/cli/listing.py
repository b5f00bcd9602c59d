"""``layerscope list``: what this installation knows by name."""

from __future__ import annotations

import sys
from collections.abc import Callable
from enum import StrEnum
from typing import Annotated, Any

import typer

from layerscope.cli import terminal
from layerscope.cli.options import Json

Rows = list[dict[str, str]]

_LONG = {"split", "licence", "citation"}
"""Columns of tasks that only --json shows."""


class Kind(StrEnum):
    """What can be listed."""

    checkpoints = "checkpoints"
    families = "families"
    sources = "sources"
    tasks = "tasks"
    loaders = "loaders"
    estimators = "estimators"
    renderers = "renderers"
    methods = "methods"
    sections = "sections"


def command(
    kind: Annotated[Kind, typer.Argument(help="The kind of things to list.")], as_json: Json = False
) -> None:
    """List checkpoints, families, sources, tasks, loaders and other pieces by name.

    The table of tasks shows what fits on a line; --json adds split, licence and citation.

    \b
    Examples:
      layerscope list checkpoints
      layerscope list tasks
      layerscope list tasks --json
    """
    rows = _LISTINGS[kind]()
    terminal.emit(rows, as_json, lambda: _format(kind, rows))


def _format(kind: Kind, rows: Rows) -> str:
    if not rows:
        return f"There are no {kind.value}."
    hidden = _LONG if kind is Kind.tasks else set()
    header = [name for name in rows[0] if name not in hidden]
    return terminal.table(header, [[row[name] for name in header] for row in rows])


def _checkpoints() -> Rows:
    from layerscope.models import card_names, find_card

    cards = [find_card(name) for name in card_names()]
    return [
        {"name": c.name, "family": c.family, "licence": c.licence, "description": c.description}
        for c in cards
    ]


def _families() -> Rows:
    from layerscope.models.families import families

    return [{"name": name, "title": family.title} for name, family in families.items()]


def _tasks() -> Rows:
    from layerscope.data import all_tasks

    return [
        {
            "name": t.name,
            "source": t.source,
            "kind": t.kind,
            "classes": str(t.class_count or ""),
            "metric": t.metric,
            "title": t.title,
            "split": t.split,
            "licence": t.licence,
            "citation": t.citation,
        }
        for t in all_tasks()
    ]


def _sources() -> Rows:
    from layerscope.data.shifts import shifts
    from layerscope.data.sources import source_options, sources

    openers: dict[str, Callable[..., Any]] = dict(sources.items()) | dict(shifts.items())
    return [
        {
            "name": name,
            "options": ", ".join(source_options(opener)),
            "holds": _first_line(sys.modules.get(opener.__module__, opener)),
        }
        for name, opener in sorted(openers.items())
    ]


def _loaders() -> Rows:
    from layerscope.data.loaders import loaders

    return [{"name": name, "reads": _first_line(item)} for name, item in loaders.items()]


def _estimators() -> Rows:
    from layerscope.estimators import estimators

    return [{"name": name, "scores": _first_line(item)} for name, item in estimators.items()]


def _renderers() -> Rows:
    from layerscope.render import renderers

    return [{"name": name, "renders": _first_line(item)} for name, item in renderers.items()]


def _methods() -> Rows:
    from layerscope.training.methods import methods

    return [{"name": name, "trains": _first_line(item)} for name, item in methods.items()]


def _sections() -> Rows:
    from layerscope.report.section import sections

    return [{"name": name, "shows": _first_line(item)} for name, item in sections.items()]


def _first_line(item: object) -> str:
    document = item.__doc__ or type(item).__doc__ or ""
    return document.strip().split("\n", 1)[0].replace("``", "")


_LISTINGS: dict[Kind, Callable[[], Rows]] = {
    Kind.checkpoints: _checkpoints,
    Kind.families: _families,
    Kind.sources: _sources,
    Kind.tasks: _tasks,
    Kind.loaders: _loaders,
    Kind.estimators: _estimators,
    Kind.renderers: _renderers,
    Kind.methods: _methods,
    Kind.sections: _sections,
}
