"""What a user calls a source of their own, so that several of one kind can be told apart."""

from __future__ import annotations

import re

from layerscope.data.sources import sources
from layerscope.errors import SourceError

_FORM = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def own_name(name: str | None, kind: str) -> str:
    """Return the name of a source: the user's, or that of its kind, such as ``folder``.

    Raises:
        SourceError: The name could not stand in a list of tasks, or another source has it.
    """
    if name is None or name == kind:
        return kind
    require_plain(name)
    if name in sources:
        raise SourceError(
            f"The name {name!r} is that of another image source.",
            hint="Choose another; scores are told apart by it.",
        )
    return name


def require_plain(name: str) -> None:
    """Refuse a name that could not stand in a list of tasks, or in a file.

    Raises:
        SourceError: It is empty, or has other than letters, digits, dashes, dots and underscores.
    """
    if not _FORM.fullmatch(name):
        raise SourceError(
            f"The name {name!r} cannot stand for a source or a task.",
            hint="Use letters, digits, dashes, dots and underscores, such as birds-2.",
        )


def plain(word: str) -> str:
    """Return a word with dashes for what a name cannot have.

    Examples:
        >>> plain("Age (years)")
        'Age-years'
    """
    return re.sub(r"[^A-Za-z0-9_.]+", "-", word).strip("-.") or "column"
