"""Architectures of timm and torchvision, found by the names and shapes of a state dict."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from torch import nn

from layerscope.errors import CheckpointError
from layerscope.models.axes import map_layouts
from layerscope.models.contents import Weights
from layerscope.models.cuts import Stop, trace
from layerscope.models.declared import Declared
from layerscope.models.heads import Operation
from layerscope.models.loading import fill
from layerscope.models.trunks import chain
from layerscope.models.trunks.architectures import (
    Architecture,
    ClassifierSplit,
    Library,
    countless,
    digest,
    outside,
    positions,
    shapes_of,
    split_classifier,
    training_only,
    without_classifier,
)
from layerscope.models.trunks.likeness import same_features, signature
from layerscope.models.trunks.trunk import Shapes, Trunk
from layerscope.types import Pooling

_PATH = Path(__file__).with_name("zoo.json")
_STEM = re.compile(r"(features\.)?(stem|patch_embed|conv_stem|tokens_to_token)\w*(\.|$)")
_CLASS_TOKEN = re.compile(r"(cls|class)_token\d*$")
_SHOWN = 6
_FAILURES = (RuntimeError, ValueError, TypeError, AssertionError, LookupError, ZeroDivisionError)
"""What networks raise for images of a size that they do not take."""


@dataclass(frozen=True)
class ZooNetwork:
    """An architecture that takes a file's tensors: a trunk, and the classifier behind it."""

    architecture: Architecture
    trunk: Trunk
    classifier: Weights
    """The tensors that the head names."""
    head: tuple[Operation, ...]
    ignored: Mapping[str, str]
    """By the file's key: why it is not needed."""
    side: int
    """Side of the images that the network usually takes, in pixels."""
    same: tuple[Architecture, ...] = ()
    """Others that compute the same from the same weights."""


@dataclass(frozen=True)
class _Plan:
    """An architecture with settings that take every tensor of a file."""

    architecture: Architecture
    classes: int | None
    side: int | None
    """Where not the usual one."""
    parts: ClassifierSplit
    outline: nn.Module = field(repr=False)
    """The trunk on the ``meta`` device."""
    usual_side: int

    def module(self) -> nn.Module:
        """Return the trunk with random weights."""
        network = self.architecture.create(self.classes, self.side)
        return without_classifier(network, self.parts)

    @property
    def image_side(self) -> int:
        """Side of the images to run it with, in pixels."""
        return self.side or self.usual_side


@cache
def _index() -> Mapping[str, Any]:
    """Return what :func:`layerscope.models.trunks.zoo_index.indexed` made."""
    table: Mapping[str, Any] = json.loads(_PATH.read_text(encoding="utf-8"))
    return table


def candidates(shapes: Shapes, *, classifier: bool = True) -> tuple[Architecture, ...]:
    """Return the architectures whose tensors, perhaps a classifier's too, have these shapes."""
    index = _index()
    shapes = outside(shapes, training_only())
    found: dict[Architecture, None] = {}
    for removed in index["classifiers"] if classifier else ([],):
        rest = outside(shapes, removed)
        if _are_layers(shapes.keys() - rest.keys(), removed):
            for short in index["names"].get(digest(rest), ()):
                library, _, name = short.partition(":")
                found[Architecture(library, name)] = None
    return tuple(found)


def _are_layers(keys: Set[str], names: Sequence[str]) -> bool:
    """Return whether each of the names is that of a layer with nothing but weight and bias."""
    return (
        {f"{name}.weight" for name in names}
        <= keys
        <= {f"{name}.{own}" for name in names for own in ("weight", "bias")}
    )


def build(tensors: Weights, declared: Declared) -> Trunk:
    """Return the trunk whose state dict this is, without any classifier.

    Raises:
        CheckpointError: No architecture has these names and shapes, or several that differ have.
    """
    return find_network(tensors, declared, classifier=False).trunk


def find_network(
    tensors: Weights,
    declared: Declared,
    *,
    named: Architecture | None = None,
    prefer: Library = "timm",
    classifier: bool = True,
) -> ZooNetwork:
    """Return the architecture whose state dict this is.

    Args:
        tensors: By timm's or torchvision's keys.
        declared: What the user declared.
        named: The architecture that the file says it is of; it is believed if every tensor fits.
        prefer: The library to take it from where both have it.
        classifier: Whether some of the tensors may be a classifier's.

    Raises:
        CheckpointError: No architecture has these names and shapes, or several that differ have.
    """
    shapes = countless(tensors.shapes)
    if named is not None:
        return _zoo_network([_plan_of_named(named, shapes)], tensors, declared)
    found = sorted(candidates(shapes, classifier=classifier), key=lambda one: one.library != prefer)
    plans = [plan for plan in (_plan(a, shapes)[0] for a in found) if plan is not None]
    if not plans:
        raise _unknown_error(shapes, found)
    return _zoo_network(_of_one_kind(plans, tensors), tensors, declared)


def _plan_of_named(architecture: Architecture, shapes: Shapes) -> _Plan:
    plan, difference = _plan(architecture, shapes)
    if plan is None:
        raise CheckpointError(
            f"The file says that it is of {architecture.title}, but {difference}.",
            hint="Describe the network itself with --declare arch=package.module:factory.",
        )
    return plan


def _unknown_error(shapes: Shapes, found: Sequence[Architecture]) -> CheckpointError:
    known = " and ".join(f"{name} {version}" for name, version in _index()["versions"].items())
    first = next(iter(shapes), "none")
    nearest = f"; those of {found[0].title} differ: {_plan(found[0], shapes)[1]}" if found else ""
    return CheckpointError(
        f"No architecture of {known} has these {len(shapes)} tensors, the first of which is "
        f"{first} {shapes.get(first, '')}{nearest}.",
        hint="Describe the network: --declare arch=timm.models:NAME or package.module:factory.",
    )


def _plan(architecture: Architecture, shapes: Shapes) -> tuple[_Plan | None, str]:
    """Return how the architecture takes every tensor, or the difference to its own."""
    shapes = outside(shapes, architecture.training_only)
    whole = architecture.outline()
    usual = architecture.side(whole)
    parts = split_classifier(whole, usual)
    classified = any(map(parts.owns, shapes))
    last = f"{parts.removed[-1]}.weight" if parts.removed else ""
    classes = shapes.get(last, (None,))[0] if classified else None
    difference = ""
    for number, side in _attempts(architecture, classes, classified, shapes, whole):
        outline = architecture.outline(number, side)
        cut = parts if number != 0 else ClassifierSplit(())
        own = shapes_of(outline)
        wanted = own if classified else outside(own, cut.removed)
        this = _difference(wanted, shapes)
        if not this:
            trunk = without_classifier(outline, cut)
            return _Plan(architecture, number, side, cut, trunk, usual), ""
        difference = difference or this
    return None, difference


def _attempts(
    architecture: Architecture,
    classes: int | None,
    classified: bool,
    shapes: Shapes,
    whole: nn.Module,
) -> Iterator[tuple[int | None, int | None]]:
    """Yield numbers of classes and sides of images that the tensors may be of."""
    yield classes, None
    if not classified and architecture.library == "timm":
        yield 0, None
    side = _side_of(shapes, shapes_of(whole), architecture.side(whole))
    if side is not None:
        yield classes, side


def _side_of(shapes: Shapes, usual: Shapes, side: int) -> int | None:
    """Return the side of the images of which the position embeddings are."""
    for key, shape in positions(shapes):
        before = usual.get(key, ())
        if before == shape or len(before) != 3 or len(shape) != 3:
            continue
        grid = math.isqrt(before[1])
        new = math.isqrt(shape[1] - (before[1] - grid**2))
        return side * new // grid
    return None


def _difference(wanted: Shapes, found: Shapes) -> str:
    """Return in words how two sets of names and shapes differ; nothing where they do not."""
    missing = [key for key in wanted if key not in found]
    if missing:
        return f"the file lacks {missing[0]}" + _more(missing)
    unknown = [key for key in found if key not in wanted]
    if unknown:
        return f"{unknown[0]} has no place in it" + _more(unknown)
    for key, shape in wanted.items():
        if tuple(found[key]) != tuple(shape):
            return f"{key} has shape {tuple(found[key])} instead of {tuple(shape)}"
    return ""


def _more(keys: Sequence[str]) -> str:
    return f" and {len(keys) - 1} more" if len(keys) > 1 else ""


def _of_one_kind(plans: list[_Plan], tensors: Weights) -> list[_Plan]:
    """Return the plans if it does not matter which of them the file is of; raise if it does."""
    # Whoever has its usual size takes precedence over those that would have to be resized.
    plans = [plan for plan in plans if plan.side is None] or plans
    kinds: dict[Any, _Plan] = {}
    for plan in plans:
        kinds.setdefault(signature(plan.outline), plan)
    distinct = list(kinds.values())
    if len(distinct) > 1:
        sides = {plan.image_side for plan in distinct}
        filled = []
        for plan in distinct:
            module = plan.module()
            fill(module, _of_the_trunk(plan, tensors))
            filled.append((module.eval(), _stops(plan)[0]))
        if not all(_same(filled, side) for side in sides):
            raise _ambiguous_error([plan.architecture for plan in distinct])
    return plans


def _same(filled: Sequence[tuple[nn.Module, Sequence[Stop]]], side: int) -> bool:
    try:
        return same_features(filled, side)
    except _FAILURES:
        return False


def _of_the_trunk(plan: _Plan, tensors: Weights) -> Weights:
    training = plan.architecture.training_only
    return tensors.without(*(f"{name}." for name in (*plan.parts.removed, *training)))


def _ambiguous_error(found: Sequence[Architecture]) -> CheckpointError:
    shown = ", ".join(architecture.title for architecture in found[:_SHOWN])
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return CheckpointError(
        f"The file does not tell which network it is of: {shown}{more} have the same tensors and "
        "compute different features from them.",
        hint=f"Name it: --declare arch={found[0]}.",
    )


def _zoo_network(plans: Sequence[_Plan], tensors: Weights, declared: Declared) -> ZooNetwork:
    plan = plans[0]
    fixed = _takes_one_size(plan)
    wanted = declared.image_size
    if fixed and wanted is not None and wanted != plan.image_side:
        raise CheckpointError(
            f"{plan.architecture.title} with these tensors takes images of {plan.image_side} "
            f"pixels, not of {wanted}.",
            hint="Declare no image_size.",
        )
    stops, notes = _stops(plan)
    trunk = Trunk(
        module=plan.module(),
        weights=_of_the_trunk(plan, tensors),
        stops=stops,
        name=plan.architecture.name,
        details={"library": plan.architecture.library}
        | ({"image_size": plan.image_side} if fixed else {}),
        notes=notes,
        image_size=plan.image_side if fixed else None,
    )
    removed = [f"{name}." for name in plan.parts.removed]
    owned = tensors.only(*removed)
    training = [f"{name}." for name in plan.architecture.training_only]
    reason = "auxiliary classifiers, which only training uses"
    ignored = dict.fromkeys(tensors.only(*training), reason)
    if plan.parts.reason:
        ignored |= dict.fromkeys(owned, plan.parts.reason)
        owned = Weights()
    return ZooNetwork(
        architecture=plan.architecture,
        trunk=trunk,
        classifier=_as_linear(owned, plan.parts),
        head=plan.parts.operations if owned else (),
        ignored={
            re.escape(key): reason
            for name, reason in ignored.items()
            for key in tensors.origins[name]
        },
        side=plan.image_side,
        same=tuple(other.architecture for other in plans[1:]),
    )


def _as_linear(tensors: Weights, parts: ClassifierSplit) -> Weights:
    """Return the classifier's tensors, a 1 × 1 convolution of vectors being a Linear."""
    kernels = "|".join(re.escape(f"{name}.weight") for name in parts.removed)
    return tensors.mapped(
        kernels, lambda weight: weight.flatten(1) if weight.dim() == 4 else weight
    )


def _takes_one_size(plan: _Plan) -> bool:
    """Return whether the network refuses images of other sizes than its own."""
    side = plan.image_side
    for other in (side + 64, max(side // 64 * 32, 64)):
        try:
            chain.trace_shapes(plan.outline, other)
        except _FAILURES:
            return True
    return False


def _stops(plan: _Plan) -> tuple[tuple[Stop, ...], tuple[str, ...]]:
    """Return the cut points of a trunk in order, and what a reader should know of them."""
    outline, side = plan.outline, plan.image_side
    try:
        traced = chain.trace_shapes(outline, side)
    except _FAILURES as error:
        raise CheckpointError(
            f"{plan.architecture.title} cannot be run without its classifier: {error}.",
            hint=f"Describe the network: --declare arch={plan.architecture}.",
        ) from error
    layers = [layer for layer in chain.layers(outline, traced) if 2 <= len(layer.shape) <= 4]
    blocks = [i for i, layer in enumerate(layers) if layer.block and not _STEM.match(layer.name)]
    shape_of = _Axes(outline, side)
    stops: list[Stop] = []
    # A lone block is no stage: VGG's layers before it have their own names.
    begin = blocks[0] if len(blocks) > 1 else 0
    if begin:
        stem = layers[begin - 1]
        embeds = len(stem.shape) == 3 or shape_of.channels_last(stem.module, stem.shape)
        name = "embed" if embeds else "stem"
        stops.append(shape_of.stop(name, stem.module, stem.shape, embedding=True))
    stops += [
        shape_of.stop(_own_name(layer.name), layer.module, layer.shape) for layer in layers[begin:]
    ]
    notes = list(shape_of.notes())
    if not stops:
        notes.append("Something crosses every layer of it, so that it can be cut only at its end.")
    if plan.parts.reason and not plan.parts.averaged:
        notes.append(
            "trunk is what its classifiers read, joined as the network joins their outputs."
        )
    stops.append(shape_of.stop("trunk", "", traced.output))
    return tuple(stops), tuple(notes)


def _own_name(name: str) -> str:
    """Return a layer's name, told apart from those of the layers behind the trunk."""
    return f"trunk.{name}" if name.partition(".")[0] in ("head", "trunk") else name


class _Axes:
    """What the axes of a network's outputs are."""

    def __init__(self, outline: nn.Module, side: int) -> None:
        self._outline = outline
        self._side = side
        self._prefix = _prefix_tokens(outline)
        self._layouts: Mapping[str, str] | None = None

    def stop(
        self, name: str, module: str, shape: tuple[int, ...], *, embedding: bool = False
    ) -> Stop:
        """Return the stop of a layer."""
        if len(shape) == 4:
            return Stop(name, module, "trunk", channels_last=self.channels_last(module, shape))
        if len(shape) == 2:
            return Stop(name, module, "trunk")
        prefix = self._prefix_of(shape[1])
        class_token = bool(getattr(self._outline, "has_class_token", True))
        reads_class = getattr(self._outline, "global_pool", "token") in ("token", "", None)
        usual: Pooling = (
            "cls" if prefix and class_token and not embedding and reads_class else "mean"
        )
        return Stop(name, module, "trunk", prefix, class_token, pooling=usual)

    def _prefix_of(self, tokens: int) -> int:
        """Return how many tokens are no patches: the class token joins some networks late."""
        patches = tokens - self._prefix
        joined = patches >= 0 and math.isqrt(max(patches, 0)) ** 2 == patches
        return self._prefix if joined or math.isqrt(tokens) ** 2 != tokens else 0

    def channels_last(self, module: str, shape: tuple[int, ...]) -> bool:
        """Return whether a map is (b, h, w, c); images are square, and so are maps."""
        if len(shape) != 4:
            return False
        if shape[2] != shape[3]:
            return True
        if shape[1] != shape[2]:
            return False
        if self._layouts is None:
            calls = trace(self._outline, self._side)
            self._layouts = dict(map_layouts(self._outline, calls, self._side))
        known = self._layouts.get(module)
        if known is None:
            return getattr(self._outline, "output_fmt", "NCHW") == "NHWC"
        return known == "map-last"

    def notes(self) -> tuple[str, ...]:
        """Return what a reader of the numbers should know."""
        if self._prefix > 1:
            return (f"Its {self._prefix} leading tokens are left out of the mean of the patches.",)
        return ()


def _prefix_tokens(outline: nn.Module) -> int:
    known = getattr(outline, "num_prefix_tokens", None)
    if isinstance(known, int):
        return known
    return int(any(_CLASS_TOKEN.match(name) for name, _ in outline.named_parameters()))
