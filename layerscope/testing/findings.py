"""What a check says of a piece: sentences, also where the piece lacks something or raises."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from layerscope.errors import LayerScopeError


def collect(findings: Iterable[str]) -> list[str]:
    """Return the findings; what the piece raises on the way is the last of them."""
    found = []
    try:
        for finding in findings:
            found.append(finding)
    except LayerScopeError as error:
        found.append(f"It ends the check: {error.message}")
    except Exception as error:  # noqa: BLE001  whatever it is, it is the finding
        found.append(f"It raises {described(error)}")
    return found


def described(error: BaseException) -> str:
    """Return what was raised, in a line."""
    return f"{type(error).__name__}: {error}".rstrip(": ")


def accepts(
    act: Callable[[], object], refusal: type[LayerScopeError], damage: str, accepted: str
) -> Iterator[str]:
    """Yield what happens with something damaged, unless it is refused as it has to be."""
    try:
        act()
    except refusal:
        return
    except Exception as error:  # noqa: BLE001  whatever it is, it is the finding
        yield f"With {damage} it raises {described(error)}"
    else:
        yield accepted


def missing(piece: object, interface: type[Any]) -> Iterator[str]:
    """Yield which public members of an interface a piece lacks, each as a finding."""
    members: dict[str, None] = {}
    for base in reversed(interface.__mro__):
        if base.__module__.startswith("layerscope."):
            members |= dict.fromkeys((*inspect.get_annotations(base), *vars(base)))
    for name in members:
        if not name.startswith("_") and not hasattr(piece, name):
            yield f"It has no {name}."
