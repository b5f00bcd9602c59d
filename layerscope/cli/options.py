"""How a command declares its options: shared groups, compact forms, and headings in its help."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar

import typer
from typer.core import TyperCommand

from layerscope.errors import SettingsError, UnknownNameError

read_option = partial(typer.Option, rich_help_panel="What to read")
network_option = partial(typer.Option, rich_help_panel="Which network, and which of its layers")
compute_option = partial(typer.Option, rich_help_panel="Where and how to compute")
keep_option = partial(typer.Option, rich_help_panel="What to keep, and where")
print_option = partial(typer.Option, rich_help_panel="What to print")
"""Each is ``typer.Option`` under a heading; a command may have a heading of its own."""

older_option = partial(
    typer.Option, hidden=True, help="The older form of what a visible option says."
)
"""The older form of a key of a compact option; help does not show it."""

FEW = 8
"""So many options need no headings."""

Json = Annotated[bool, print_option("--json", help="Print the result as JSON, for programs.")]

ResultsFolder = Annotated[
    Path, keep_option("--output", "-o", help="The folder for scores and fitted probes.")
]

Compact = Mapping[str, Mapping[str, str]]
"""By parameter that is written ``HEAD,key=value``: for each key the parameter that it sets."""


class OptionGroup:
    """Options that several commands share; a subclass is a dataclass with an option in each field.

    A command that is :func:`grouped` takes one by an annotated parameter.
    """

    compact: ClassVar[Compact] = {}


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command that takes the options of its groups, and hands in each group's object."""
    parameters: list[inspect.Parameter] = []
    groups: dict[str, type[Any]] = {}
    for parameter in inspect.signature(command, eval_str=True).parameters.values():
        kind = parameter.annotation
        if inspect.isclass(kind) and issubclass(kind, OptionGroup):
            groups[parameter.name] = kind
            parameters += inspect.signature(kind, eval_str=True).parameters.values()
        else:
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))

    def call(**words: Any) -> None:
        for name, kind in groups.items():
            words[name] = kind(**{field.name: words.pop(field.name) for field in fields(kind)})
        command(**words)

    call.__doc__ = command.__doc__
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    call.compact = {  # type: ignore[attr-defined]
        name: keys for kind in groups.values() for name, keys in kind.compact.items()
    }
    return call


class Command(TyperCommand):
    """A command whose help has headings, and whose compact options are spread while it is parsed.

    So a value that cannot be right is refused before anything is loaded or submitted.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the words of a command."""
        rest: list[str] = super().parse_args(ctx, args)
        for name, keys in getattr(self.callback, "compact", {}).items():
            _spread(ctx, name, keys)
        return rest

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments, and the options under the headings that they are declared with."""
        parameters = self.get_params(ctx)
        arguments = [it for it in parameters if it.param_type_name == "argument"]
        options = [it for it in parameters if it.param_type_name == "option"]
        for heading, some in ({"Arguments": arguments} | by_heading(options)).items():
            if records := list(filter(None, (it.get_help_record(ctx) for it in some))):
                with formatter.section(heading):
                    formatter.write_dl(records)


def by_heading(options: Iterable[Any]) -> dict[str, list[Any]]:
    """Return the options that help shows, under their headings; few are under one."""
    shown = [option for option in options if not option.hidden]
    if sum(option.name != "help" for option in shown) <= FEW:
        return {"Options": shown}
    found: dict[str, list[Any]] = {}
    for option in shown:
        heading = getattr(option, "rich_help_panel", None) or "What to print"
        found.setdefault(heading, []).append(option)
    return found


def _spread(ctx: Any, name: str, keys: Mapping[str, str]) -> None:
    """Take a compact option apart: what it says is what the parameters of its keys hold then."""
    given = ctx.params[name]
    if given is None:
        return
    repeated = isinstance(given, list | tuple)
    texts = map(str, given if repeated else [given])
    # A comma that no key follows belongs to what stands before.
    words = [word for text in texts for word in re.split(r",(?=[\w-]+=)", text)]
    head = None if repeated else words.pop(0)
    pairs: dict[str, str] = {}
    for word in words:
        key, value = _parse_pair(word)
        if key not in keys:
            raise UnknownNameError(f"key of --{name}", key, keys)
        if pairs.setdefault(key, value) != value:
            raise SettingsError(
                f"--{name} says both {key}={pairs[key]} and {key}={value}.",
                hint="Leave one of them out.",
            )
    for key, value in pairs.items():
        _set(ctx, keys[key], value, f"--{name} {key}={value}")
    # A number stays one, for the settings that are kept beside the results.
    ctx.params[name] = int(head) if head is not None and head.isdecimal() else head


def _parse_pair(word: str) -> tuple[str, str]:
    key, sign, value = word.partition("=")
    if not (sign and value):
        raise SettingsError(f"{word!r} says nothing.", hint="Write KEY=VALUE, such as stem=cifar.")
    return key.strip().replace("-", "_"), value.strip()


def _set(ctx: Any, name: str, text: str, said: str) -> None:
    """Set a parameter, unless the command line says something else of it."""
    (parameter,) = (it for it in ctx.command.params if it.name == name)
    older = parameter.opts[0]
    try:
        value = parameter.process_value(ctx, text)
    except typer.BadParameter as error:
        reason = error.message.rstrip(".")
        raise SettingsError(f"{said} cannot be right.", hint=f"{reason}.") from None
    source = ctx.get_parameter_source(name)
    typed = source is not None and source.name == "COMMANDLINE"
    if typed and ctx.params[name] != value:
        raise SettingsError(
            f"{older} {ctx.params[name]} and {said} contradict each other.",
            hint=f"Leave {older} out: it is the older form.",
        )
    ctx.params[name] = value
