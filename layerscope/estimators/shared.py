"""What several measures compute of one layer is computed once.

A sweep hands the same view to one estimator after the other. What was computed for the last view is
remembered until another one comes, so that nothing has to know which measures were asked for, and
no more than one layer's statistics are in memory.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, Generic, ParamSpec, TypeVar

from layerscope.types import LayerView

P = ParamSpec("P")
T = TypeVar("T")


class _Last(Generic[T]):
    """Results by arguments, of one view."""

    def __init__(self) -> None:
        self.view: LayerView | None = None
        self.results: dict[object, T] = {}


def once_a_view(
    function: Callable[Concatenate[LayerView, P], T],
) -> Callable[Concatenate[LayerView, P], T]:
    """Return the function, which remembers what it returned for the last view.

    Arguments beside the view are positional and can be hashed. The view itself is kept, so that
    another one can never be taken for it.
    """
    last: _Last[T] = _Last()

    @wraps(function)
    def remembering(view: LayerView, /, *args: P.args, **kwargs: P.kwargs) -> T:
        if last.view is not view:
            last.view, last.results = view, {}
        key = (args, tuple(sorted(kwargs.items())))
        if key not in last.results:
            last.results[key] = function(view, *args, **kwargs)
        return last.results[key]

    return remembering
