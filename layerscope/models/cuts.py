"""Cut points in call order, found by one traced forward."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from layerscope.errors import CheckpointError
from layerscope.models.pooling import pooled_width, poolings_of
from layerscope.types import CutPoint, Layout, Part, Pooling

IMAGES = 2
"""In a trace: one image has no variance, as a BatchNorm without statistics of its own needs; and
an output whose first axis does not count images, such as the windows of an attention, is seen."""


@dataclass(frozen=True, slots=True)
class Stop:
    """A module call that a family declares to be a cut point."""

    name: str
    """The field's name: ``stem``, ``layer1.0``, ``trunk``, ``head.1``."""
    module: str
    """Dotted module name, with ``#2`` for the second call of a reused module."""
    part: Part
    tokens: int | None = None
    """Where the output is tokens (b, n, d): how many leading ones are no patches."""
    class_token: bool = True
    """Whether the first leading token is a class token; registers alone are none."""
    channels_last: bool = False
    """Whether a map is (b, h, w, c), as Swin's are."""
    pooling: Pooling | None = None
    """The usual pooling of its output; None for the mean of maps, and vectors as they are."""
    canonical: bool = True
    """Whether it is a cut point without being asked for; predictors and logits are not."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call of one module in a traced forward."""

    module: str
    shape: tuple[int, ...]


def call_name(module: str, number: int) -> str:
    """Return the name of a module's call, counted from 1: ``relu``, ``relu#2``."""
    return module if number == 1 else f"{module}#{number}"


def base_name(call: str) -> str:
    """Return the module of a call: ``relu`` of ``relu#2``."""
    return call.partition("#")[0]


@torch.no_grad()
def trace(
    module: nn.Module, side: int, width: int | None = None, *, whole: bool = True
) -> list[Call]:
    """Return every module call of one forward, in the order in which the calls return.

    Registration order is not call order, and a module that is called twice returns twice; only a
    run tells. The network is left in the mode in which it was.

    Args:
        module: The network.
        side: Height of the image to trace with, in pixels.
        width: Width of the image in pixels; its height by default.
        whole: Whether a forward that fails is an error; otherwise its calls up to there are
            returned, as with images of a size that some layer does not take.
    """
    calls: list[Call] = []
    counts: Counter[str] = Counter()

    def recorder(name: str) -> Any:
        def record(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                counts[name] += 1
                calls.append(Call(call_name(name, counts[name]), tuple(output.shape)))

        return record

    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    mode = module.training
    module.eval()
    handles = [
        m.register_forward_hook(recorder(name)) for name, m in module.named_modules() if name
    ]
    try:
        module(torch.zeros(IMAGES, 3, side, width or side, device=device))
    except (RuntimeError, ValueError, TypeError, AssertionError, IndexError):
        if whole:
            raise
    finally:
        for handle in handles:
            handle.remove()
        module.train(mode)
    return calls


def cut_points(calls: Sequence[Call], stops: Sequence[Stop]) -> tuple[CutPoint, ...]:
    """Return a family's declared stops as cut points in call order, each in its usual pooling.

    Raises:
        CheckpointError: A declared module is never called.
    """
    by_module = {call.module: (order, call) for order, call in enumerate(calls)}
    silent = [stop.module for stop in stops if stop.module not in by_module]
    if silent:
        raise CheckpointError(
            f"The network never calls {', '.join(silent)}.",
            hint="Its family declares a cut point that the forward pass does not reach.",
        )
    ordered = sorted(stops, key=lambda stop: by_module[stop.module][0])
    return numbered([cut_point(stop, by_module[stop.module][1]) for stop in ordered])


def numbered(cuts: Sequence[CutPoint]) -> tuple[CutPoint, ...]:
    """Return the cut points with the index and depth of their places in this order."""
    last = max(len(cuts) - 1, 1)
    return tuple(replace(cut, index=i, depth=i / last) for i, cut in enumerate(cuts))


def layout_of(shape: tuple[int, ...], channels_last: bool = False) -> Layout:
    """Return what the axes of an output are.

    Raises:
        CheckpointError: The output is neither a vector, a map nor tokens.
    """
    layouts: dict[int, Layout] = {
        2: "vector",
        3: "tokens",
        4: "map-last" if channels_last else "map",
    }
    if len(shape) not in layouts:
        raise CheckpointError(
            f"A layer's output has shape {shape}, which is neither a map, tokens nor a vector.",
            hint="Choose cut points whose outputs are (b, c), (b, c, h, w) or (b, n, d).",
        )
    return layouts[len(shape)]


def cut_point(stop: Stop, call: Call) -> CutPoint:
    """Return a stop as a cut point in its usual pooling, without a place among others yet.

    Raises:
        CheckpointError: Its output's first axis does not count images, or it is neither a vector,
            a map nor tokens.
    """
    if call.shape[0] != IMAGES:
        raise CheckpointError(
            f"The output of {stop.module} has shape {call.shape} for {IMAGES} images, so its first "
            "axis does not count them.",
            hint="Choose cut points whose outputs are (b, c), (b, c, h, w) or (b, n, d).",
        )
    layout = layout_of(call.shape, stop.channels_last)
    prefix = stop.tokens or 0
    possible = poolings_of(layout, prefix, stop.class_token)
    pooling = stop.pooling if stop.pooling in possible else possible[0]
    return CutPoint(
        index=0,
        name=stop.name,
        module=stop.module,
        part=stop.part,
        width=pooled_width(call.shape, layout, pooling, prefix),
        pooling=pooling,
        depth=0.0,
        layout=layout,
        prefix_tokens=prefix,
        class_token=stop.class_token,
    )
