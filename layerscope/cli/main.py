"""The application: every command by its name, and each error in two lines."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from layerscope.cli import (
    check,
    cka,
    cuts,
    demo,
    evaluate,
    extract,
    listing,
    merge,
    pack,
    plan,
    pretrain,
    probe,
    render,
    report,
    settings,
    submit,
    terminal,
)
from layerscope.cli.options import Command
from layerscope.errors import CRASHED, INTERRUPTED, LayerScopeError, SettingsError
from layerscope.version import __version__


class CommandLine(TyperGroup):
    """The group of all commands, in which every error becomes a sentence, a hint and a code."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the words of the command line, --plugin before or behind the command's name."""
        rest: list[str] = super().parse_args(ctx, _put_plugins_first(args))
        return rest

    def invoke(self, ctx: Any) -> Any:
        """Run the chosen command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            terminal.say("Interrupted. What was finished is kept; the same command continues it.")
            raise typer.Exit(INTERRUPTED) from None
        except (LayerScopeError, OSError) as error:
            if ctx.params.get("debug") or isinstance(error, BrokenPipeError):
                raise
            known = _as_known(error)
            terminal.explain(known.message, known.hint)
            raise typer.Exit(known.exit_code) from None


def _put_plugins_first(args: Sequence[str]) -> list[str]:
    """Return the words with each --plugin first: it decides what the command knows."""
    plugins, others = [], []
    words = iter(args)
    for word in words:
        if word == "--":
            others += [word, *words]
        elif word == "--plugin":
            path = next(words, None)
            if path is None:
                raise typer.BadParameter("--plugin needs the path of a Python file.")
            plugins += [word, path]
        else:
            (plugins if word.startswith("--plugin=") else others).append(word)
    return [*plugins, *others]


def _as_known(error: LayerScopeError | OSError) -> LayerScopeError:
    if isinstance(error, LayerScopeError):
        return error
    where = f" {error.filename!r}" if error.filename else ""
    return SettingsError(
        f"The system refused{where}: {error.strerror or error}.",
        hint="Check the path, its permissions and the free space.",
    )


app = typer.Typer(
    name="layerscope",
    cls=CommandLine,
    help="At which layer should a pretrained vision network be cut, and how sure can one be?",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
"""The application, of which :func:`main` is the console script."""

_COMMANDS: dict[str, Callable[..., None]] = {
    "demo": demo.command,
    "list": listing.command,
    "cuts": cuts.command,
    "render": render.command,
    "pretrain": pretrain.command,
    "pack": pack.command,
    "plan": plan.command,
    "extract": extract.command,
    "merge": merge.command,
    "probe": probe.command,
    "cka": cka.command,
    "report": report.command,
    "evaluate": evaluate.command,
}
for _name, _command in _COMMANDS.items():
    app.command(_name, cls=Command)(_command)
# What stands behind the name of the submitted command is that command's own.
app.command("submit", cls=Command, context_settings={"allow_interspersed_args": False})(
    submit.command
)
app.add_typer(check.app, name="check")


def _print_version(asked: bool) -> None:
    if asked:
        terminal.emit({"version": __version__}, False, lambda: f"layerscope {__version__}")
        raise typer.Exit


@app.callback()
def shared(
    context: typer.Context,
    debug: Annotated[
        bool,
        typer.Option("--debug", help="Show the traceback of an error.", envvar="LAYERSCOPE_DEBUG"),
    ] = False,
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The settings.json of an earlier run; the command line goes before it.",
        ),
    ] = None,
    plugin: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="A Python file that registers parts of your own; also behind the command's name.",
        ),
    ] = None,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """At which layer should a pretrained vision network be cut, and how sure can one be?"""
    if config is not None:
        context.default_map = settings.read(config)
    for path in plugin or ():
        from layerscope.registry import load_plugin

        load_plugin(path)


def main() -> None:
    """Run the command line; the console script."""
    try:
        app()
    except Exception:  # noqa: BLE001 (whatever it is, it is ours)
        traceback.print_exc()
        sys.exit(CRASHED)
