"""How a command declares its options: shared groups, compact forms, and headings in its help."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, get_type_hints

import typer
from typer.core import TyperCommand

from layerscope.errors import SettingsError, UnknownNameError

READ = "What to read"
NETWORK = "Which network, and which of its layers"
COMPUTE = "Where and how to compute"
KEEP = "What to keep, and where"
PRINT = "What to print"
"""Headings in the help of commands."""

FEW = 8
"""So many options need no headings."""

Json = Annotated[
    bool,
    typer.Option("--json", help="Print the result as JSON, for programs.", rich_help_panel=PRINT),
]

ResultsFolder = Annotated[
    Path,
    typer.Option(
        "--output", "-o", help="The folder for scores and fitted probes.", rich_help_panel=KEEP
    ),
]

Compact = Mapping[str, Mapping[str, str]]
"""By parameter that is written ``HEAD,key=value``: for each key the parameter that it sets."""


class OptionGroup:
    """Options that several commands share; a subclass is a dataclass with an option in each field.

    A command that is :func:`grouped` takes one by an annotated parameter, and is called with the
    object.
    """

    compact: ClassVar[Compact] = {}


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command that takes the options of its groups, and hands in each group as one object.

    Args:
        command: A function of options and of :class:`OptionGroup` objects.
    """
    parameters: list[inspect.Parameter] = []
    groups: dict[str, type[Any]] = {}
    for parameter in inspect.signature(command, eval_str=True).parameters.values():
        kind = parameter.annotation
        if inspect.isclass(kind) and issubclass(kind, OptionGroup):
            groups[parameter.name] = kind
            parameters += _options_of(kind)
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


def _options_of(group: type[Any]) -> list[inspect.Parameter]:
    assert is_dataclass(group)
    hints = get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            annotation=hints[field.name],
            default=getattr(group, field.name, inspect.Parameter.empty),
        )
        for field in fields(group)
    ]


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
        arguments = [it for it in self.get_params(ctx) if it.param_type_name == "argument"]
        options = [it for it in self.get_params(ctx) if it.param_type_name == "option"]
        _write_section(ctx, formatter, "Arguments", arguments)
        for heading, some in by_heading(options).items():
            _write_section(ctx, formatter, heading, some)


def by_heading(options: Iterable[Any]) -> dict[str, list[Any]]:
    """Return the options that help shows, under their headings; few are under one."""
    shown = [option for option in options if not option.hidden]
    if sum(option.name != "help" for option in shown) <= FEW:
        return {"Options": shown}
    found: dict[str, list[Any]] = {}
    for option in shown:
        found.setdefault(getattr(option, "rich_help_panel", None) or PRINT, []).append(option)
    return found


def _write_section(ctx: Any, formatter: Any, heading: str, parameters: Sequence[Any]) -> None:
    records = [record for it in parameters if (record := it.get_help_record(ctx)) is not None]
    if records:
        with formatter.section(heading):
            formatter.write_dl(records)


def _spread(ctx: Any, name: str, keys: Mapping[str, str]) -> None:
    """Take a compact option apart: what it says is what the parameters of its keys hold then."""
    given = ctx.params[name]
    if given is None:
        return
    option = f"--{name}"
    texts = given if isinstance(given, list | tuple) else [given]
    heads = []
    for text in texts:
        head, pairs = _parts(str(text), has_head=texts is not given)
        heads.append(head)
        for key, value in pairs:
            if key not in keys:
                raise UnknownNameError(f"key of {option}", key, keys)
            _set(ctx, keys[key], value, f"{option} {key}={value}")
    # The head of an option that may be repeated is empty: nothing of it is left.
    ctx.params[name] = None if texts is given else _number_or_text(heads[0])


def _parts(text: str, *, has_head: bool) -> tuple[str, list[tuple[str, str]]]:
    """Return the head and the pairs; a comma that no key follows belongs to what stands before."""
    words = re.split(r",(?=[\w-]+=)", text)
    head = words.pop(0) if has_head else ""
    pairs = []
    for word in words:
        key, sign, value = word.partition("=")
        if not (sign and value):
            raise SettingsError(
                f"{word!r} declares nothing.", hint="Write KEY=VALUE, such as stem=cifar."
            )
        pairs.append((key.strip().replace("-", "_"), value.strip()))
    return head, pairs


def _set(ctx: Any, name: str, text: str, said: str) -> None:
    """Set a parameter, unless the command line says something else of it."""
    (parameter,) = (it for it in ctx.command.params if it.name == name)
    try:
        value = parameter.type_cast_value(ctx, text)
    except typer.BadParameter as error:
        raise SettingsError(
            f"{said} cannot be right: {error.message}", hint="Correct it, or leave it out."
        ) from None
    source = ctx.get_parameter_source(name)
    typed = source is not None and source.name == "COMMANDLINE"
    if typed and ctx.params[name] != value:
        raise SettingsError(
            f"{parameter.opts[0]} {ctx.params[name]} and {said} contradict each other.",
            hint=f"Leave {parameter.opts[0]} out: it is the older form.",
        )
    ctx.params[name] = value


def _number_or_text(text: str) -> int | str:
    return int(text) if text.isdecimal() else text
