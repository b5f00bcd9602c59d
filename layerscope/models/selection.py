"""Choosing cut points by name, glob or range, and the poolings in which each is captured."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Protocol, get_args

from torch import nn

from layerscope.errors import CheckpointError, UnknownNameError
from layerscope.models.axes import like_neighbour, map_layouts
from layerscope.models.cuts import (
    IMAGES,
    Call,
    Stop,
    base_name,
    cut_point,
    layout_of,
    numbered,
)
from layerscope.models.pooling import pooled_width, poolings_of
from layerscope.types import CutPoint, Layout, Pooling

_RANGE = re.compile(r"(-?\d+)?:(-?\d+)?(?::(-?[1-9]\d*)?)?")
_TRUNK = "trunk."


class Traced(Protocol):
    """A network with its cut points and every call of a traced forward."""

    @property
    def module(self) -> nn.Module: ...
    @property
    def cuts(self) -> tuple[CutPoint, ...]: ...
    @property
    def more(self) -> tuple[CutPoint, ...]: ...
    @property
    def calls(self) -> tuple[Call, ...]: ...
    @property
    def side(self) -> int: ...


def select_cuts(
    model: Traced, patterns: str | None = None, poolings: str | None = None
) -> tuple[CutPoint, ...]:
    """Return the cut points that a comma list chooses, in call order, once for each pooling.

    A pattern is looked for among the canonical cut points, then among those that are off by
    default (predictors, logits, L2 norms), then among all module calls: the first of these that
    has a match wins. Canonical cut points keep their index and depth whichever are chosen; with
    others among them, they are numbered over all canonical and chosen ones.

    Args:
        model: From :func:`layerscope.models.load`.
        patterns: Names, globs (``layer3*``, ``head.*``), ranges over the canonical cut points as
            Python slices (``-4:``), points that are off by default (``P*``, ``Q``), and module
            calls (``layer1.0.relu#2``, ``layer3.*.conv2``); None for all canonical ones.
        poolings: Such as ``mean,cls``: each cut point is captured in all that fit its output, and
            a vector as it is, one that none fits as usual; None for the usual pooling of each.

    Raises:
        UnknownNameError: A pattern matches nothing, or there is no such pooling.
        CheckpointError: A pooling fits no chosen cut point, or what the axes of an output are
            cannot be told.
    """
    selection = _Selection(model)
    chosen = model.cuts if patterns is None else selection.chosen(patterns)
    return chosen if poolings is None else selection.pooled(chosen, _poolings(poolings))


def _poolings(text: str) -> tuple[Pooling, ...]:
    known: tuple[Pooling, ...] = get_args(Pooling)
    asked = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
    for name in asked:
        if name not in known:
            raise UnknownNameError("pooling", name, known)
    return tuple(pooling for pooling in asked if pooling in known)


class _Selection:
    def __init__(self, model: Traced) -> None:
        self._model = model
        self._order = {call.module: place for place, call in enumerate(model.calls)}
        self._known = {cut.module: cut for cut in (*model.more, *model.cuts)}

    def chosen(self, patterns: str) -> tuple[CutPoint, ...]:
        """Return what the patterns choose, numbered and in call order."""
        found: dict[str, CutPoint] = {}
        for pattern in (part.strip() for part in patterns.split(",")):
            found |= {cut.name: cut for cut in self._matching(pattern)}
        every = {cut.name: cut for cut in self._model.cuts} | found
        if len(every) == len(self._model.cuts):
            return tuple(cut for cut in self._model.cuts if cut.name in found)
        ordered = sorted(every.values(), key=lambda cut: self._order[cut.module])
        return tuple(cut for cut in numbered(ordered) if cut.name in found)

    def _matching(self, pattern: str) -> Sequence[CutPoint]:
        names = {cut.name: cut for cut in self._model.cuts}
        if _RANGE.fullmatch(pattern):
            ends = [int(end) if end else None for end in pattern.split(":")]
            found: Sequence[CutPoint] = self._model.cuts[slice(*ends)]
        else:
            found = (
                _matching(self._model.cuts, pattern)
                or _matching(self._model.more, pattern)
                or [self._point(call) for call in self._calls(pattern)]
            )
        if not found:
            more = [cut.name for cut in self._model.more]
            raise UnknownNameError("layer", pattern, (*names, *more, *self._short.values()))
        return found

    def _calls(self, pattern: str) -> list[Call]:
        return [
            call
            for call in self._model.calls
            if fnmatch.fnmatchcase(call.module, pattern)
            or fnmatch.fnmatchcase(self._short[call.module], pattern)
        ]

    @cached_property
    def _short(self) -> dict[str, str]:
        """By call: its name without ``trunk.``, or whole where that is another's."""
        taken = set(self._order) | {cut.name for cut in self._known.values()}
        short = {module: module.removeprefix(_TRUNK) for module in self._order}
        return {module: module if name in taken else name for module, name in short.items()}

    def _point(self, call: Call) -> CutPoint:
        if call.module in self._known:
            return self._known[call.module]
        near = self._neighbour(call)
        if call.shape[0] != IMAGES:
            raise _no_cut_error(call, "its first axis does not count the images")
        layout, prefix = self._layout(call, near)
        stop = Stop(
            self._short[call.module],
            call.module,
            near.part,
            prefix,
            near.class_token,
            channels_last=layout == "map-last",
            pooling=near.pooling if layout == near.layout else None,
        )
        return cut_point(stop, call)

    def _neighbour(self, call: Call) -> CutPoint:
        """Return the innermost cut point around a call, else the last before, else the first."""
        place = self._order[call.module]
        ordered = sorted(self._known.values(), key=lambda cut: self._order[cut.module])
        inside = base_name(call.module)
        for cut in ordered:
            if self._order[cut.module] > place and inside.startswith(f"{base_name(cut.module)}."):
                return cut
        before = [cut for cut in ordered if self._order[cut.module] < place]
        return before[-1] if before else ordered[0]

    def _shape(self, cut: CutPoint) -> tuple[int, ...]:
        return self._model.calls[self._order[cut.module]].shape

    def _layout(self, call: Call, near: CutPoint) -> tuple[Layout, int]:
        shape = call.shape
        if len(shape) == 3:
            return "tokens", self._prefix(call, near)
        if len(shape) != 4:
            return layout_of(shape), 0
        layout = like_neighbour(shape, self._shape(near), near.layout)
        layout = layout or self._maps.get(call.module)
        # Among tokens, a square of four axes may be an attention's weights as well as a map.
        module = self._model.module.get_submodule(base_name(call.module))
        if layout is None or (near.layout == "tokens" and not isinstance(module, nn.Conv2d)):
            raise _no_cut_error(call, "it is not told which axes are height and width")
        return layout, 0

    @cached_property
    def _maps(self) -> dict[str, Layout]:
        return map_layouts(self._model.module, self._model.calls, self._model.side)

    def _prefix(self, call: Call, near: CutPoint) -> int:
        if near.layout == "tokens":
            difference = self._shape(near)[1] - call.shape[1]
            if difference == 0:
                return near.prefix_tokens
            if difference == near.prefix_tokens:
                return 0
        raise _no_cut_error(call, "it is not told which of its tokens are patches")

    def pooled(
        self, chosen: Sequence[CutPoint], poolings: Sequence[Pooling]
    ) -> tuple[CutPoint, ...]:
        """Return the cut points once for each pooling that fits, or in their usual one."""
        for pooling in poolings:
            if not any(pooling in _possible(cut) for cut in chosen):
                others = dict.fromkeys(one for cut in chosen for one in _possible(cut))
                raise CheckpointError(
                    f"The pooling {pooling!r} fits none of the chosen cuts: {_list_kinds(chosen)}.",
                    hint=f"They can be pooled by {', '.join(others)}; a vector needs none.",
                )
        return tuple(cut for point in chosen for cut in self._in_each(point, poolings))

    def _in_each(self, cut: CutPoint, poolings: Sequence[Pooling]) -> list[CutPoint]:
        fitting = [pooling for pooling in poolings if pooling in _possible(cut)]
        if cut.layout == "vector" or not fitting or self._is_one_position(cut):
            return [cut]
        shape = self._shape(cut)
        return [
            replace(
                cut,
                pooling=pooling,
                width=pooled_width(shape, cut.layout, pooling, cut.prefix_tokens),
            )
            for pooling in fitting
        ]

    def _is_one_position(self, cut: CutPoint) -> bool:
        # A map that was pooled already: every pooling of it is the same.
        shape = self._shape(cut)
        size = {"map": shape[2:], "map-last": shape[1:3]}.get(cut.layout)
        return size == (1, 1)


def _matching(cuts: Sequence[CutPoint], pattern: str) -> list[CutPoint]:
    return [cut for cut in cuts if fnmatch.fnmatchcase(cut.name, pattern)]


def _possible(cut: CutPoint) -> tuple[Pooling, ...]:
    return poolings_of(cut.layout, cut.prefix_tokens, cut.class_token)


def _list_kinds(cuts: Sequence[CutPoint]) -> str:
    by_kind: dict[str, list[str]] = {}
    for cut in cuts:
        by_kind.setdefault(_kind(cut), []).append(cut.name)
    return ", ".join(
        f"{', '.join(names) if len(names) < 4 else f'{names[0]} to {names[-1]}'} ({kind})"
        for kind, names in by_kind.items()
    )


def _kind(cut: CutPoint) -> str:
    if cut.layout != "tokens":
        return {"vector": "vectors"}.get(cut.layout, "maps")
    return "tokens" if "cls" in _possible(cut) else "tokens without a class token"


def _no_cut_error(call: Call, why: str) -> CheckpointError:
    return CheckpointError(
        f"{call.module} cannot be a cut: its output has shape {call.shape}, and {why}.",
        hint="Choose another module with --cuts; `layerscope cuts` lists the usual ones.",
    )
