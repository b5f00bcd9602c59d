"""Cut points in call order, found by one traced forward."""

from __future__ import annotations

import fnmatch
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from layerscope.errors import CheckpointError, UnknownNameError
from layerscope.models.pooling import pooled_width, pooling_of
from layerscope.nouns import CutPoint, Part


@dataclass(frozen=True, slots=True)
class Stop:
    """A module call that a family declares to be a cut point."""

    name: str
    """The field's name: ``stem``, ``layer1.0``, ``trunk``, ``head.1``."""
    module: str
    """Dotted module name, with ``#2`` for the second call of a reused module."""
    part: Part


@dataclass(frozen=True, slots=True)
class Call:
    """One call of one module in a traced forward."""

    module: str
    shape: tuple[int, ...]


def call_name(module: str, number: int) -> str:
    """Return the name of a module's call, counted from 1: ``relu``, ``relu#2``."""
    return module if number == 1 else f"{module}#{number}"


@torch.no_grad()
def trace(module: nn.Module, side: int) -> list[Call]:
    """Return every module call of one forward, in the order in which the calls return.

    Registration order is not call order, and a module that is called twice returns twice; only a
    run tells. The network is left in the mode in which it was.

    Args:
        module: The network.
        side: Height and width of the image to trace with, in pixels.
    """
    calls: list[Call] = []
    counts: Counter[str] = Counter()

    def recorder(name: str) -> Any:
        def record(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                counts[name] += 1
                calls.append(Call(call_name(name, counts[name]), tuple(output.shape)))

        return record

    mode = module.training
    module.eval()
    handles = [
        m.register_forward_hook(recorder(name)) for name, m in module.named_modules() if name
    ]
    try:
        module(torch.zeros(1, 3, side, side, device=_device(module)))
    finally:
        for handle in handles:
            handle.remove()
        module.train(mode)
    return calls


def _device(module: nn.Module) -> torch.device:
    return next((p.device for p in module.parameters()), torch.device("cpu"))


def cut_points(module: nn.Module, stops: Sequence[Stop], side: int) -> tuple[CutPoint, ...]:
    """Return a family's declared stops as cut points in call order.

    Args:
        module: The network.
        stops: What the family declares, in any order.
        side: Height and width of the image to trace with, in pixels.

    Raises:
        CheckpointError: A declared module is never called.
    """
    calls = {call.module: (order, call) for order, call in enumerate(trace(module, side))}
    silent = [stop.module for stop in stops if stop.module not in calls]
    if silent:
        raise CheckpointError(
            f"The network never calls {', '.join(silent)}.",
            hint="Its family declares a cut point that the forward pass does not reach.",
        )
    ordered = sorted(stops, key=lambda stop: calls[stop.module][0])
    last = max(len(ordered) - 1, 1)
    return tuple(
        CutPoint(
            index=index,
            name=stop.name,
            module=stop.module,
            part=stop.part,
            width=pooled_width(calls[stop.module][1].shape),
            pooling=pooling_of(calls[stop.module][1].shape),
            depth=index / last,
        )
        for index, stop in enumerate(ordered)
    )


def select_cuts(cuts: Sequence[CutPoint], patterns: str | None) -> tuple[CutPoint, ...]:
    """Return the cut points that a comma list of names and globs chooses, in call order.

    A cut point keeps its index and depth whichever others are chosen beside it.

    Args:
        cuts: All cut points of a network.
        patterns: Such as ``layer4.*,head.*``; None chooses all.

    Raises:
        UnknownNameError: A pattern matches no cut point.

    Examples:
        >>> from layerscope.nouns import CutPoint
        >>> stem = CutPoint(0, "stem", "trunk.maxpool", "trunk", 64, "mean", 0.0)
        >>> [cut.name for cut in select_cuts([stem], "st*")]
        ['stem']
    """
    if patterns is None:
        return tuple(cuts)
    chosen: set[str] = set()
    for pattern in (part.strip() for part in patterns.split(",")):
        names = {cut.name for cut in cuts if fnmatch.fnmatchcase(cut.name, pattern)}
        if not names:
            raise UnknownNameError("layer", pattern, [cut.name for cut in cuts])
        chosen |= names
    return tuple(cut for cut in cuts if cut.name in chosen)
