"""Items by what they have in common, in the order in which they come."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from operator import attrgetter
from typing import Any, TypeVar

T = TypeVar("T")


def grouped(items: Iterable[T], *names: str) -> dict[Any, list[T]]:
    """Return items by an attribute, or by a tuple of several.

    Examples:
        >>> grouped([1, 2], "imag")
        {0: [1, 2]}
    """
    read = attrgetter(*names)
    groups: dict[Any, list[T]] = defaultdict(list)
    for item in items:
        groups[read(item)].append(item)
    return dict(groups)
