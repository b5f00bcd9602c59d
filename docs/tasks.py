"""Writes the sections of tasks.md from the tasks' own metadata; ``make reference`` runs it."""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path

from layerscope.data import all_tasks
from layerscope.data.shifts import shifts
from layerscope.data.sources import Opener, source_options, sources
from layerscope.types import Task

PAGE = Path(__file__).parent / "tasks.md"
BEGIN, END = "<!-- tasks: made by docs/tasks.py -->\n", "<!-- end of tasks -->\n"


def sections() -> str:
    """Return a section for each file of ``layerscope/data/tasks``, as Markdown."""
    homes: dict[str, list[tuple[str, Opener]]] = {}
    for name, opener in (*sources.items(), *shifts.items()):
        if opener.__module__.startswith("layerscope."):
            homes.setdefault(opener.__module__, []).append((name, opener))
    return "\n".join(_section(module, openers) for module, openers in sorted(homes.items()))


def _section(module: str, openers: list[tuple[str, Opener]]) -> str:
    title, _, rest = (sys.modules[module].__doc__ or "").strip().partition("\n")
    names = [name for name, _ in openers]
    tasks = [task for task in all_tasks() if task.source in names]
    lines = [f"### {', '.join(f'`{name}`' for name in names)}", "", _markdown(title)]
    lines += ["", _markdown(rest.strip())] if rest.strip() else []
    for name, opener in openers:
        lines += _options(name, opener)
    lines += ["", *_table(tasks)] if tasks else []
    return "\n".join(lines) + "\n"


def _options(name: str, opener: Opener) -> list[str]:
    if not callable(opener) or not source_options(opener):
        return []
    text = inspect.getdoc(opener) or ""
    lines = ["", f"Options, as `--data {name}=PATH,option=value`:", ""]
    for option in source_options(opener):
        found = re.search(rf"^    {option}: (.+(?:\n {{8}}.+)*)", text, flags=re.MULTILINE)
        meaning = " ".join(found.group(1).split()) if found else ""
        lines.append(f"- `{option}`: {_markdown(meaning)}")
    return lines


def _table(tasks: list[Task]) -> list[str]:
    lines = ["| task | question | targets | primary metric | split | licence | from |"]
    lines.append("|---|---|---|---|---|---|---|")
    for task in tasks:
        cells = (
            f"`{task.name}`",
            task.title,
            _targets(task),
            task.metric,
            task.split,
            task.licence,
            task.citation,
        )
        escaped = (_markdown(cell).replace("|", "\\|") for cell in cells)
        lines.append(f"| {' | '.join(escaped)} |")
    return lines


def _targets(task: Task) -> str:
    if task.kind == "classes":
        return f"{task.class_count:,} classes" if task.class_count else "classes"
    return f"{task.encoding} latents" if task.kind == "latents" else task.kind


def _markdown(text: str) -> str:
    return "\n".join(map(_line, text.replace("``", "`").split("\n")))


def _line(text: str) -> str:
    # Angle brackets are names of what stands there; within code they are shown as they are.
    if text.startswith("    "):
        return text
    parts = text.split("`")
    return "`".join(it if i % 2 else it.replace("<", "&lt;") for i, it in enumerate(parts))


def page() -> str:
    """Return the whole page with today's sections in it."""
    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n{sections()}\n{END}{rest.split(END)[1]}"


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
