"""Writes reference/cli.md from the commands' own help; ``make reference`` runs it."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any, get_args, get_type_hints

from typer.main import get_command

from layerscope.cli.checkpoint import KEYS, CheckpointOptions
from layerscope.cli.main import app
from layerscope.cli.options import by_heading

PAGE = Path(__file__).parent / "reference" / "cli.md"
INTRODUCTION = """\
# Command line

This page is made from the commands' own help by `docs/cli.py`.

Results go to stdout, talk goes to stderr. Exit codes: 0 done, 1 finished with findings, 2 wrong
use or unreadable input, 70 a bug, with its traceback, 130 interrupted with the finished work kept.
"""

KEYS_INTRODUCTION = """\
What a checkpoint's weights cannot tell about its network. Several keys are separated by commas, or
the option is repeated: `--declare stem=cifar,image_size=32 --declare branch=momentum`. A card says
the same in its table `[declared]`.
"""


def page() -> str:
    """Return the whole page as Markdown."""
    root = get_command(app)
    parts = [INTRODUCTION, _section("layerscope", root)]
    parts += [_section(f"layerscope {name}", command) for name, command in _commands(root)]
    return "\n".join([*parts, _keys()])


def _commands(root: Any, prefix: str = "") -> list[tuple[str, Any]]:
    found = []
    for name, command in root.commands.items():
        if not command.hidden:
            found.append((prefix + name, command))
            if hasattr(command, "commands"):
                found += _commands(command, f"{prefix}{name} ")
    return found


def _section(title: str, command: Any) -> str:
    lines = [f"## `{title}`", "", *_prose((command.help or "").strip())]
    arguments = [_argument(p) for p in command.params if p.param_type_name == "argument"]
    lines += ["", *arguments] if arguments else []
    options = [p for p in command.params if p.param_type_name == "option"]
    for heading, some in by_heading(options).items():
        lines += ["", f"{heading}:", ""]
        lines += [_option(p) for p in some if p.name != "help"]
    return "\n".join(lines).rstrip() + "\n"


def _keys() -> str:
    """Return what can be declared about a checkpoint, key by key."""
    lines = ["## `--declare KEY=VALUE`", "", *KEYS_INTRODUCTION.splitlines(), ""]
    hints = get_type_hints(CheckpointOptions, include_extras=True)
    for key, meaning in KEYS.items():
        type_or_none, _ = get_args(hints[key])
        values = [str(value) for part in get_args(type_or_none) for value in get_args(part)]
        lines.append(f"- `{key}`: {meaning}" + f" One of {', '.join(values)}." * bool(values))
    return "\n".join(lines) + "\n"


def _prose(text: str) -> list[str]:
    """Return the help's paragraphs, the runnable examples as a code block."""
    # A \b on a line of its own asks the terminal not to rewrap the paragraph after it.
    lines = inspect.cleandoc(text.replace("\f", "\n")).splitlines()
    lines = [line for line in lines if line.strip() != "\b"]
    out: list[str] = []
    for line in lines:
        indented = line.startswith(" ") or line.startswith("layerscope ")
        if indented and (not out or not out[-1].startswith("    ")):
            out.append("")
        out.append(f"    {line.strip()}" if indented else line)
    return out


def _argument(parameter: Any) -> str:
    return f"- `{parameter.metavar or parameter.name.upper()}`: {_sentence(parameter)}"


def _option(parameter: Any) -> str:
    names = ", ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts))
    return f"- {names}: {_sentence(parameter)}"


def _sentence(parameter: Any) -> str:
    text = (getattr(parameter, "help", None) or "").strip()
    default = parameter.default
    silent = default is None or default is False or default == () or callable(default)
    return text if silent or parameter.required else f"{text} Default: `{default}`."


def main() -> None:
    """Write the page."""
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
