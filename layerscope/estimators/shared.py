"""What several measures compute of one layer is computed once.

A sweep hands the same view to one estimator after the other. What was computed for the last view is
remembered until another one comes, so that nothing has to know which measures were asked for, and
no more than one layer's statistics are in memory.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar

from layerscope.types import LayerView

P = ParamSpec("P")
T = TypeVar("T")


def once_a_view(
    function: Callable[Concatenate[LayerView, P], T],
) -> Callable[Concatenate[LayerView, P], T]:
    """Return the function, which remembers what it returned for the last view.

    Arguments beside the view are positional and can be hashed. The view itself is kept, so that
    another one can never be taken for it.
    """
    last: LayerView | None = None
    results: dict[object, T] = {}

    @wraps(function)
    def remembering(view: LayerView, /, *args: P.args, **kwargs: P.kwargs) -> T:
        nonlocal last
        if last is not view:
            last = view
            results.clear()
        key = (args, tuple(sorted(kwargs.items())))
        if key not in results:
            results[key] = function(view, *args, **kwargs)
        return results[key]

    return remembering
