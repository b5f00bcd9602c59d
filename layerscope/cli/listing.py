"""``layerscope list``: what this installation knows by name."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from importlib import import_module
from operator import attrgetter
from typing import Annotated, Any, Literal

import typer

from layerscope.cli import terminal
from layerscope.cli.options import Json

Rows = list[dict[str, str]]

_LONG = ("split", "licence", "citation")
"""Columns of tasks that only --json shows."""


Kind = Literal[
    "checkpoints",
    "families",
    "sources",
    "tasks",
    "loaders",
    "estimators",
    "renderers",
    "methods",
    "sections",
]


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
        return f"There are no {kind}."
    header = [name for name in rows[0] if kind != "tasks" or name not in _LONG]
    return terminal.table(header, [[row[name] for name in header] for row in rows])


def _checkpoints() -> Rows:
    from layerscope.models import card_names, find_card

    shown = ("name", "family", "licence", "description")
    cards = [find_card(name) for name in card_names()]
    return [{field: getattr(card, field) for field in shown} for card in cards]


def _tasks() -> Rows:
    from layerscope.data import all_tasks

    shown = ("name", "source", "kind", "class_count", "metric", "title", *_LONG)
    rows = [{field: str(getattr(task, field) or "") for field in shown} for task in all_tasks()]
    return [{"classes" if k == "class_count" else k: v for k, v in row.items()} for row in rows]


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


def _registered(module: str, registry: str, column: str) -> Rows:
    """Return each name of a registry, with a family's title or the first line of a docstring."""
    items = getattr(import_module(module), registry).items()
    tell = attrgetter("title") if registry == "families" else _first_line
    return [{"name": name, column: tell(item)} for name, item in items]


def _first_line(item: object) -> str:
    document = item.__doc__ or type(item).__doc__ or ""
    return document.strip().split("\n", 1)[0].replace("``", "")


_LISTINGS: dict[str, Callable[[], Rows]] = {
    "checkpoints": _checkpoints,
    "families": partial(_registered, "layerscope.models.families", "families", "title"),
    "sources": _sources,
    "tasks": _tasks,
    "loaders": partial(_registered, "layerscope.data.loaders", "loaders", "reads"),
    "estimators": partial(_registered, "layerscope.estimators", "estimators", "scores"),
    "renderers": partial(_registered, "layerscope.render", "renderers", "renders"),
    "methods": partial(_registered, "layerscope.training.methods", "methods", "trains"),
    "sections": partial(_registered, "layerscope.report.section", "sections", "shows"),
}
