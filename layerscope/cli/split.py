"""A command as one job, or as one for each of its checkpoints and image sources."""

from __future__ import annotations

import copy
import glob
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from layerscope.cli import sources
from layerscope.errors import SettingsError
from layerscope.runtime.cluster import ClusterCommand
from layerscope.types import Baseline

SPLIT = {"extract": "checkpoints", "evaluate": "checkpoint"}
"""Commands of which each checkpoint and source is a job, with their parameter of checkpoints."""

RESUMED = frozenset({"extract", "evaluate", "probe", "render"})
"""Commands that go on where they stopped when they are repeated."""

SHARED = "extract"
"""The command that several tasks of a job do together."""

_REFUSED = {
    "submit": "Submit the command that it would submit.",
    "demo": "It takes minutes on any computer: run it here.",
}


@dataclass(frozen=True, slots=True)
class PlannedJob:
    """One job, and what it is about."""

    job: ClusterCommand
    command: str
    """Such as ``extract`` or ``check cache``."""
    checkpoint: str | None = None
    source: str | None = None


def split(context: Any, words: Sequence[str]) -> tuple[PlannedJob, ...]:
    """Return the jobs of a command, as it was typed, once it is sure that it is understood."""
    name, command, rest = _find(context, context.command, words)
    if name in _REFUSED:
        raise SettingsError(f"{name!r} cannot be submitted.", hint=_REFUSED[name])
    if name in SPLIT:
        return tuple(_split(context, name, command, rest))
    return (PlannedJob(_make_job(context, name, command, rest), name),)


def _find(context: Any, group: Any, words: Sequence[str]) -> tuple[str, Any, list[str]]:
    """Return a command's name, the command, and the words behind its name."""
    if not words:
        raise SettingsError(
            f"{group.name!r} is a group of commands, and none of them is named.",
            hint=f"Name one: {', '.join(sorted(group.commands))}.",
        )
    name, command, rest = group.resolve_command(context, list(words))
    if not hasattr(command, "commands"):
        return name, command, rest
    inner, command, rest = _find(context, command, rest)
    return f"{name} {inner}", command, rest


def _make_job(context: Any, name: str, command: Any, rest: Sequence[str]) -> ClusterCommand:
    # The job needs the same plug-ins, and the other options before the command.
    options = context.params
    before = [word for path in options["plugin"] or () for word in ("--plugin", str(path))]
    before += ["--config", str(options["config"])] if options["config"] else []
    before += ["--debug"] if options["debug"] else []
    understood = command.make_context(name, list(rest), parent=context)
    replaces = understood.params.get("existing") == "replace"
    return ClusterCommand((*before, *name.split(), *rest), replaces=replaces)


def _split(context: Any, name: str, command: Any, words: Sequence[str]) -> Iterator[PlannedJob]:
    """Yield a job for each checkpoint and source, the other options as they were typed.

    The checkpoints of a table are one job for each source: none of them is named. The baselines of
    a checkpoint that is named are jobs like it.
    """
    inner = command.context_class(command, info_name=name, parent=context)
    several = _allow_several(command, SPLIT[name])
    typed, extra, _ = several.make_parser(inner).parse_args(list(words))
    defaults = (context.default_map or {}).get(name, {})
    checkpoints = _as_list(typed.pop(SPLIT[name], None) or defaults.get(SPLIT[name]))
    data = _as_list(typed.pop("data", None) or defaults.get("data"))
    table = typed.get("table") or defaults.get("table")
    if extra or not (checkpoints and data):
        # This says what is wrong, or prints the help that was asked for.
        command.make_context(name, list(words), parent=context)
    if bool(checkpoints) == bool(table):
        which = "named checkpoints and those of a table" if table else "no checkpoint"
        raise SettingsError(
            f"{name!r} is to run on {which}.",
            hint="Name checkpoints, or one .csv table with a line for each.",
        )
    asked = Baseline.parse(typed["baselines"]) if typed.get("baselines") else ()
    # A settings file would have the jobs of single checkpoints make all baselines once more.
    if asked and _all_named(checkpoints) and not defaults.get("baselines"):
        del typed["baselines"]
        checkpoints = [word for it in checkpoints for word in (it, *(b.of(it) for b in asked))]
    others = list(_retype(command.get_params(inner), typed))
    for checkpoint, pair in product(checkpoints or (None,), data):
        named = [checkpoint] if checkpoint else []
        job = _make_job(context, name, command, [*named, "--data", pair, *others])
        yield PlannedJob(job, name, checkpoint, sources.pair(pair)[0])


def _all_named(checkpoints: Sequence[str]) -> bool:
    """Return whether each word is one checkpoint, and not a table, a pattern or a baseline."""
    return bool(checkpoints) and not any(
        glob.has_magic(word) or word.endswith((".csv", ".tsv")) or Baseline.split(word)[0]
        for word in checkpoints
    )


def _allow_several(command: Any, checkpoints: str) -> Any:
    """Return a command that takes any number of checkpoints and sources."""
    several = copy.copy(command)
    several.params = [copy.copy(parameter) for parameter in command.params]
    for parameter in several.params:
        if parameter.name == checkpoints:
            parameter.nargs = -1
        elif parameter.name == "data":
            parameter.multiple = True
    return several


def _retype(parameters: Sequence[Any], typed: Mapping[str, Any]) -> Iterator[str]:
    """Yield the options that were typed, as they were typed."""
    for parameter in parameters:
        if parameter.name not in typed:
            continue
        value = typed[parameter.name]
        if parameter.is_flag:
            yield (parameter.opts if value else parameter.secondary_opts)[0]
            continue
        for each in value if parameter.multiple else [value]:
            yield from (max(parameter.opts, key=len), each)


def _as_list(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value or ())
