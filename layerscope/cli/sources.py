"""``--data NAME=PATH,option=value``: which image source lies in which folder."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from layerscope.cli import terminal
from layerscope.cli.options import read_option
from layerscope.errors import SettingsError

if TYPE_CHECKING:
    from layerscope.types import Source


Data = Annotated[
    list[str],
    read_option(
        "--data",
        metavar="NAME=PATH[,OPTION=VALUE]",
        help="A set of images: its name as in layerscope list sources, the folder or .beton file "
        "in which it lies, and options of that source. May be repeated.",
    ),
]


def open_pair(words: str, *, allow_missing: bool = False) -> Source:
    """Return the source that ``NAME=PATH``, perhaps with options behind it, names.

    An option without a value is switched on. A comma that no option's name follows belongs to the
    path.
    With ``allow_missing`` images that annotations list may be absent.
    """
    from layerscope.data import open_source
    from layerscope.data.betons import open_packed

    name, rest = pair(words)
    path, *more = re.split(r",(?=[a-z_0-9]+=|[a-z_]+(?:,|$))", str(rest))
    parts = (word.partition("=") for word in more)
    options = {key: value if given else True for key, given, value in parts}
    if not path.endswith(".beton") or name == "beton":
        source = open_source(name, Path(path), allow_missing=allow_missing, **options)
    elif options:
        raise SettingsError(
            f"The options {', '.join(options)} come too late for {str(Path(path))!r}.",
            hint="A packed source brings its own along: give them to layerscope pack.",
        )
    else:
        source = open_packed(name, Path(path), allow_missing=allow_missing)
    for note in source.notes:
        terminal.say(f"{source.name}: {note}")
    return source


def pair(words: str) -> tuple[str, Path]:
    """Return the name and the path of ``NAME=PATH``; refuse what lacks a part."""
    name, sign, path = words.partition("=")
    if not (name and sign and path):
        raise SettingsError(
            f"--data {words!r} does not say which source lies where.",
            hint="Write NAME=PATH, such as --data objects3d=data/objects3d.",
        )
    return name, Path(path)
