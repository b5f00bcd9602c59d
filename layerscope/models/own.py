"""A user's own network, named by an import path: ``--declare arch=package.module:factory``.

The factory is called without arguments and gives an ``nn.Module``, which the file has to fill
strictly. Its layers become cut points by a walk over its modules: an ``nn.Sequential`` and its like
are looked into, anything else is one layer. What a trace of the network cannot tell about an
output, its attributes or the user have to. ``timm.models:NAME`` and ``torchvision.models:NAME`` are
those libraries' own networks, with the cut points that they have without ``--declare arch``.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import timm
from torch import nn
from torch.nn.modules.dropout import _DropoutNd

from layerscope.errors import CheckpointError, UnknownNameError
from layerscope.models.assembly import Assembly, ignored_keys, origins_of
from layerscope.models.axes import map_layouts, wide_shapes
from layerscope.models.batchnorm import without_statistics
from layerscope.models.contents import Contents, Weights, unwrapped
from layerscope.models.cuts import IMAGES, Call, Stop, base_name, trace
from layerscope.models.declared import Declared
from layerscope.models.families import Parts
from layerscope.models.loading import fill
from layerscope.models.preprocessing import IMAGENET, at_size
from layerscope.models.trunks import zoo
from layerscope.models.trunks.architectures import Architecture, Library, by_name
from layerscope.models.trunks.published import of_configuration
from layerscope.types import Layout, Part

ASSUMED = (
    "How its images were prepared is not known: ImageNet's mean, deviation and crop are assumed. "
    "A [preprocessing] table in a card beside the file says otherwise."
)
"""The note of a network whose card, if it has one, says nothing about its images."""
ASSUMED_TIMM = (
    "How its images were prepared is not known: timm's usual way for this architecture is assumed. "
    "A [preprocessing] table in a card beside the file says otherwise."
)
"""The same of timm's architectures."""

_LIBRARIES: dict[str, Library] = {
    "timm.models": "timm",
    "torchvision.models": "torchvision",
}
_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
_IDLE = (nn.Identity, _DropoutNd)
"""Layers that change nothing in eval mode."""
_PREFIX = ("num_prefix_tokens", "num_tokens")
_FORMATS: dict[str, Layout] = {"NCHW": "map", "NHWC": "map-last"}


@dataclass(frozen=True)
class OwnNetwork:
    """A network that a user's factory made, and the file's tensors for it."""

    arch: str
    """``package.module:factory``."""
    code: str
    """The sha256 of the file that defines the factory, so that an edit is noticed."""
    module: nn.Module
    weights: Weights


def own_parts(contents: Contents, declared: Declared) -> Parts | OwnNetwork:
    """Return the network that ``declared.arch`` makes, with the file's tensors for it.

    Raises:
        CheckpointError: The factory cannot be imported or called, or the file is not of the
            library's architecture.
    """
    arch = declared.arch or ""
    architecture = _of_library(arch)
    if architecture is not None and declared.head_from is None:
        return _library_parts(architecture, contents, declared)
    factory = _import_factory(arch)
    network = _call_factory(arch, factory)
    weights = unwrapped(contents.raw, wanted=network.state_dict())
    return OwnNetwork(arch, _source_sha256(factory), network, weights)


def build_own(own: OwnNetwork, contents: Contents, declared: Declared) -> Assembly:
    """Return a user's own network, filled with the file's tensors, with its stops.

    Raises:
        CheckpointError: The file does not fill the network, the network does not run, or what an
            output's axes are has to be declared.
        UnknownNameError: ``head_from`` names no module of the network.
    """
    network = own.module
    fill(network, own.weights)
    network.eval()
    preprocessing = at_size(IMAGENET, declared.image_size)
    side = preprocessing.crop or 224
    walk = _LayerWalk(network, _trace_network(network, side, own.arch), side, declared)
    stops = walk.stops()
    keys = origins_of(own.weights)
    behind = sum(stop.part == "head" for stop in stops)
    return Assembly(
        module=network,
        stops=stops,
        architecture={"factory": own.arch, "code": own.code},
        head=f"{behind} layers from {declared.head_from}" if behind else "none",
        keys=keys,
        preprocessing=preprocessing,
        ignored=ignored_keys(contents, keys, {}),
        notes=(ASSUMED, *walk.notes),
        uncalibrated=without_statistics(network),
    )


def _of_library(arch: str) -> Architecture | None:
    """Return the architecture of timm or torchvision that the words name, if they do."""
    module, _, name = arch.partition(":")
    library = _LIBRARIES.get(module)
    return None if library is None or not name else by_name(library, name)


def _library_parts(architecture: Architecture, contents: Contents, declared: Declared) -> Parts:
    """Return a network of timm or torchvision, with its usual cut points and classifier."""
    found = zoo.find_network(contents.state_dict, declared, named=architecture)
    settings = timm.get_pretrained_cfg(architecture.name)
    of_timm = architecture.library == "timm" and settings is not None
    return Parts(
        trunk=found.trunk,
        tensors=found.classifier,
        head=found.head,
        ignored=found.ignored,
        preprocessing=of_configuration(settings.to_dict()) if of_timm else IMAGENET,
        notes=(ASSUMED_TIMM if of_timm else ASSUMED,),
    )


def _import_factory(arch: str) -> Callable[[], Any]:
    module, _, name = arch.partition(":")
    if not (module and name):
        raise CheckpointError(
            f"--declare arch={arch!r} does not name a factory.",
            hint="Write package.module:factory, such as nets.mine:resnet_with_head.",
        )
    try:
        with _here():
            found: Any = importlib.import_module(module)
            for part in name.split("."):
                found = getattr(found, part)
    except Exception as error:
        raise CheckpointError(
            f"--declare arch={arch} cannot be imported: {type(error).__name__}: {error}",
            hint="Run the command in the folder of the module, or install its package.",
        ) from error
    if not callable(found):
        raise CheckpointError(
            f"{arch} is a {type(found).__name__}, which cannot be called.",
            hint="Name a function or class that makes the network without arguments.",
        )
    factory: Callable[[], Any] = found
    return factory


@contextmanager
def _here() -> Iterator[None]:
    """Let modules of the current directory be imported."""
    here = str(Path.cwd())
    sys.path.insert(0, here)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(here)


def _call_factory(arch: str, factory: Callable[[], Any]) -> nn.Module:
    try:
        with _here():
            network = factory()
    except Exception as error:
        raise CheckpointError(
            f"{arch}() fails: {type(error).__name__}: {error}",
            hint="The factory is called without arguments; give the others their defaults.",
        ) from error
    if not isinstance(network, nn.Module):
        raise CheckpointError(
            f"{arch}() returns a {type(network).__name__}.",
            hint="The factory has to return the network, an nn.Module.",
        )
    return network


def _source_sha256(factory: Callable[[], Any]) -> str:
    """Return the sha256 of the file that defines the factory; an empty string without one."""
    try:
        source = inspect.getsourcefile(factory)
    except TypeError:
        source = None
    return hashlib.sha256(Path(source).read_bytes()).hexdigest() if source else ""


def _trace_network(network: nn.Module, side: int, arch: str) -> list[Call]:
    try:
        return trace(network, side)
    except Exception as error:
        raise CheckpointError(
            f"The network of {arch} does not run on {IMAGES} images of {side} × {side}: "
            f"{type(error).__name__}: {error}",
            hint="Declare their side as image_size; its forward takes images (b, 3, h, w).",
        ) from error


class _LayerWalk:
    """The layers of a network in call order, told apart into trunk and head."""

    def __init__(
        self, network: nn.Module, calls: Sequence[Call], side: int, declared: Declared
    ) -> None:
        self._network = network
        self._calls = calls
        self._side = side
        self._wide = wide_shapes(network, side)
        self._declared = declared
        self.notes: list[str] = []

    def stops(self) -> tuple[Stop, ...]:
        """Return a stop for every layer, the last one of the trunk being called ``trunk``."""
        layers = set(_layers(self._network, self._declared.head_from))
        points = [call for call in self._calls if base_name(call.module) in layers]
        points = [call for call in points if self._is_usable(call)]
        maps = map_layouts(self._network, points, self._side)
        stops = [self._stop(call, points, maps) for call in points]
        last = max((i for i, stop in enumerate(stops) if stop.part == "trunk"), default=None)
        if last is None:
            raise CheckpointError(
                f"The network has no layer before {self._declared.head_from or 'its head'}.",
                hint="Name the first module of the head with --declare head_from.",
            )
        if self._declared.head_from is None:
            self.notes.append("Without --declare head_from every layer counts as trunk.")
        stops[last] = replace(stops[last], name="trunk")
        return tuple(stops)

    def _is_usable(self, call: Call) -> bool:
        usable = len(call.shape) in (2, 3, 4) and call.shape[0] == IMAGES
        if not usable or self._is_turned(call):
            self.notes.append(
                f"{call.module} is no cut point: its output has shape {call.shape} for {IMAGES} "
                "images, which is neither a map, tokens (b, n, d) nor a vector."
            )
            return False
        return True

    def _is_turned(self, call: Call) -> bool:
        """Return whether positions are the last of three axes: (b, d, n), a flattened map."""
        wide = self._wide.get(call.module, call.shape)
        return len(call.shape) == len(wide) == 3 and call.shape[2] != wide[2]

    def _stop(self, call: Call, points: Sequence[Call], maps: dict[str, Layout]) -> Stop:
        behind = self._order[call.module] >= self._trunk_calls
        part: Part = "head" if behind else "trunk"
        if len(call.shape) == 3:
            prefix, class_token = self._tokens(call, points)
            return Stop(call.module, call.module, part, tokens=prefix, class_token=class_token)
        last = len(call.shape) == 4 and self._map(call, maps) == "map-last"
        return Stop(call.module, call.module, part, channels_last=last)

    @cached_property
    def _order(self) -> dict[str, int]:
        return {call.module: place for place, call in enumerate(self._calls)}

    @cached_property
    def _trunk_calls(self) -> int:
        """How many calls return before the head begins."""
        first = self._declared.head_from
        if first is None:
            return len(self._calls)
        behind = [place for name, place in self._order.items() if _is_in(name, first)]
        if not behind:
            raise CheckpointError(
                f"The network never calls {first}.", hint="Name another with --declare head_from."
            )
        return min(behind)

    def _map(self, call: Call, maps: dict[str, Layout]) -> Layout:
        if call.module in maps:
            return maps[call.module]
        told, _ = self._attribute(call, ("output_fmt",))
        told = getattr(told, "value", told)
        layout = _FORMATS.get(str(told or self._declared.map_axes).upper())
        if layout is None:
            raise CheckpointError(
                f"{call.module} gives {call.shape}, and nothing tells where its channels are.",
                hint="Write --declare map_axes=nchw (b, c, h, w) or map_axes=nhwc (b, h, w, c).",
            )
        return layout

    def _tokens(self, call: Call, points: Sequence[Call]) -> tuple[int, bool]:
        told, owner = self._attribute(call, _PREFIX)
        declared = self._declared.prefix_tokens
        prefix = told if declared is None else declared
        if not isinstance(prefix, int) or not 0 <= prefix < call.shape[1]:
            raise CheckpointError(
                f"{call.module} gives {call.shape}, and nothing tells how many of its "
                f"{call.shape[1]} tokens are no patches.",
                hint="Write --declare prefix_tokens=0, or 1 for a class token, or more with "
                "registers behind it.",
            )
        # Before the class token joins the patches, and after it has left, none is in front.
        counts = {point.shape[1] for point in points if len(point.shape) == 3}
        here = 0 if call.shape[1] + prefix in counts else prefix
        return here, prefix > 0 and getattr(owner, "cls_token", True) is not None

    def _attribute(self, call: Call, names: Sequence[str]) -> tuple[Any, nn.Module | None]:
        """Return the first of the attributes of a module or of those around it, and whose it is."""
        path = base_name(call.module)
        while True:
            module = self._network.get_submodule(path)
            for name in names:
                if (value := getattr(module, name, None)) is not None:
                    return value, module
            if not path:
                return None, None
            path = path.rpartition(".")[0]


def _layers(network: nn.Module, head_from: str | None) -> Iterator[str]:
    """Yield the names of the modules that are one layer each."""
    names = dict(network.named_modules())
    if head_from is not None and head_from not in names:
        raise UnknownNameError("module", head_from, [name for name in names if name])
    yield from _below(network, "", head_from)


def _below(module: nn.Module, path: str, head_from: str | None) -> Iterator[str]:
    children = list(module.named_children())
    trunk = [name for name, _ in children if not _is_in(_join(path, name), head_from)]
    alone = len(trunk) == 1 and not isinstance(module, _CONTAINERS)
    for name, child in children:
        full = _join(path, name)
        inside = head_from is not None and head_from.startswith(f"{full}.")
        # A network that wraps one other network is that network.
        wrapped = alone and bool(list(child.children())) and not _is_in(full, head_from)
        if isinstance(child, _CONTAINERS) or inside or wrapped:
            yield from _below(child, full, head_from)
        elif not isinstance(child, _IDLE):
            yield full


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _is_in(name: str, module: str | None) -> bool:
    return module is not None and (base_name(name) == module or name.startswith(f"{module}."))
