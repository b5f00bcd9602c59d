"""Which layers of a network no skip connection crosses, found in one forward of shapes alone.

Whatever a network's code does, autograd records it: a module's output is a layer's end where every
path from the image to the result passes through it. Nothing is computed for that, since the forward
runs on torch's ``meta`` device.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from layerscope.errors import CheckpointError
from layerscope.models.cuts import IMAGES, call_name

UnitKind = Literal["affine", "plain", "block"]

_CONV = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_VIEWS = (
    "View",
    "Reshape",
    "Squeeze",
    "Unsafe",
    "Alias",
    "Unsqueeze",
    "Clone",
    "ToCopy",
    "Permute",
    "Transpose",
)
_BODIES = ("blocks", "layers")

Vertex = tuple[Any, int]
"""A node of autograd's graph and which of its outputs."""


@dataclass(frozen=True, slots=True)
class BottleneckCall:
    """A module call whose output is all that the rest of the network sees of the image."""

    module: str
    """Dotted name, with ``#2`` for the second call."""
    shape: tuple[int, ...]
    kind: UnitKind
    vertex: Vertex


@dataclass(frozen=True, slots=True)
class ChainLayer:
    """A layer in the order of the chain."""

    name: str
    """The library's own name of it."""
    module: str
    """The call whose output it is, with ``#2`` for the second call."""
    shape: tuple[int, ...]
    block: bool
    """Whether it is a block, and not a single convolution or Linear."""


@dataclass(frozen=True, slots=True)
class ShapeTrace:
    """A forward of shapes: every module call with a tensor for an output."""

    calls: tuple[tuple[str, tuple[int, ...], Vertex], ...]
    inputs: dict[str, tuple[int, ...]]
    """Shape of the first input, by call."""
    output: tuple[int, ...]
    end: Vertex
    bottlenecks: frozenset[tuple[int, int]]

    def is_bottleneck(self, vertex: Vertex) -> bool:
        """Return whether every path from the image to the output passes there."""
        return (id(vertex[0]), vertex[1]) in self.bottlenecks


def trace_shapes(module: nn.Module, side: int) -> ShapeTrace:
    """Return what one forward on the ``meta`` device does.

    Args:
        module: On the ``meta`` device; it is put in eval mode, its parameters are frozen.
        side: Height and width of the image, in pixels.

    Raises:
        CheckpointError: The network does not return one tensor.
    """
    module.eval().requires_grad_(False)
    calls: list[tuple[str, tuple[int, ...], Vertex]] = []
    inputs: dict[str, tuple[int, ...]] = {}
    counts: Counter[str] = Counter()

    def recorder(name: str) -> Any:
        def record(_module: nn.Module, given: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.grad_fn is not None:
                counts[name] += 1
                call = call_name(name, counts[name])
                calls.append((call, tuple(output.shape), _vertex(output)))
                if given and isinstance(given[0], Tensor):
                    inputs[call] = tuple(given[0].shape)

        return record

    handles = [m.register_forward_hook(recorder(n)) for n, m in module.named_modules() if n]
    image = torch.zeros(IMAGES, 3, side, side, device="meta", requires_grad=True)
    try:
        with torch.enable_grad():
            # Not the leaf itself: some networks change their input in place.
            output = module(image * 1)
    finally:
        for handle in handles:
            handle.remove()
    if not isinstance(output, Tensor) or output.grad_fn is None:
        raise CheckpointError(
            f"The network returns a {type(output).__name__}, not one tensor.",
            hint="Describe the network itself with --declare arch=package.module:factory.",
        )
    end = _vertex(output)
    return ShapeTrace(tuple(calls), inputs, tuple(output.shape), end, frozenset(_bottlenecks(end)))


def _vertex(tensor: Tensor) -> Vertex:
    return tensor.grad_fn, tensor.output_nr


def _bottlenecks(end: Vertex) -> Iterator[tuple[int, int]]:
    """Yield the vertices on every path from the image to the end, by counting paths."""
    order = _from_the_end(end[0])
    from_image: dict[int, int] = {}
    for node in reversed(order):
        before = [from_image[id(n)] for n, _ in node.next_functions if n is not None]
        from_image[id(node)] = sum(before) if before else 1
    to_end: Counter[tuple[int, int]] = Counter({(id(end[0]), end[1]): 1})
    through: Counter[int] = Counter({id(end[0]): 1})
    for node in order:
        for before_node, number in node.next_functions:
            if before_node is not None:
                to_end[id(before_node), number] += through[id(node)]
                through[id(before_node)] += through[id(node)]
    total = from_image[id(end[0])]
    for (node_id, number), paths in to_end.items():
        if from_image[node_id] * paths == total:
            yield node_id, number


def _from_the_end(end: Any) -> list[Any]:
    """Return the nodes of the graph, each before those that it was made from."""
    order: list[Any] = []
    seen: set[int] = set()
    stack: list[tuple[Any, bool]] = [(end, False)]
    while stack:
        node, done = stack.pop()
        if done:
            order.append(node)
        elif id(node) not in seen:
            seen.add(id(node))
            stack.append((node, True))
            stack += [(before, False) for before, _ in node.next_functions if before is not None]
    return order[::-1]


def _bottleneck_calls(module: nn.Module, traced: ShapeTrace) -> tuple[BottleneckCall, ...]:
    """Return the calls of units that nothing crosses, in order."""
    whole = {
        call.partition("#")[0] for call, _, vertex in traced.calls if traced.is_bottleneck(vertex)
    }
    kinds = dict(_units(module, "", whole))
    found: list[BottleneckCall] = []
    for call, shape, vertex in traced.calls:
        name = call.partition("#")[0]
        if not traced.is_bottleneck(vertex) or name not in kinds or shape[0] != IMAGES:
            continue
        closes = kinds[name] == "block" and _is_stage(module.get_submodule(name), name, whole)
        if found and found[-1].vertex in (_up_to_views(vertex) if closes else [vertex]):
            continue
        found.append(BottleneckCall(call, shape, kinds[name], vertex))
    return tuple(found)


def _units(module: nn.Module, name: str, whole: Set[str]) -> Iterator[tuple[str, UnitKind]]:
    """Yield the modules that are single layers or blocks; stages are looked into."""
    inside = f"{name}." if name else ""
    if not name or _is_sequence(module) or _is_stage(module, name, whole):
        for child_name, child in module.named_children():
            yield from _units(child, inside + child_name, whole)
        if name and not _is_sequence(module):
            # Where a stage does more than its blocks do, its own output is a layer as well.
            yield name, "block"
        return
    weights = sum(_is_affine(m) for m in module.modules())
    yield name, "block" if weights > 1 else "affine" if weights else "plain"


def _is_sequence(module: nn.Module) -> bool:
    kind = type(module)
    if issubclass(kind, nn.Sequential):
        return kind.forward is nn.Sequential.forward
    return issubclass(kind, nn.ModuleList | nn.ModuleDict) and kind.forward is nn.Module.forward


def _is_stage(module: nn.Module, name: str, whole: Set[str]) -> bool:
    """Return whether a module is a chain of blocks, and not a block of layers."""
    if "Stage" in type(module).__name__:
        bodies = [("", module), *module.named_children()]
    else:
        bodies = [
            (own, child)
            for own, child in module.named_children()
            if own in _BODIES
            and _is_sequence(child)
            and len({type(grandchild) for grandchild in child.children()}) == 1
        ]
    return any(
        ".".join(filter(None, (name, own, child))) in whole
        for own, body in bodies
        for child, inner in body.named_children()
        if not own or _is_sequence(body)
        if sum(map(_is_affine, inner.modules())) > 1
    )


def _is_affine(module: nn.Module) -> bool:
    return isinstance(module, (nn.Linear, *_CONV))


def layers(module: nn.Module, traced: ShapeTrace) -> tuple[ChainLayer, ...]:
    """Return the layers of a network before its end, in order.

    A block is one layer. Outside of blocks a layer is a convolution or Linear with what follows it
    up to the next one: normalisation, activation, pooling. What runs into the network's end, and
    what only follows a block, is no layer of its own.
    """
    found: list[BottleneckCall] = []
    current: BottleneckCall | None = None
    affine = False
    for unit in _bottleneck_calls(module, traced):
        if unit.kind == "plain":
            # The mean over a map is the usual pooling of the cut before it, and no layer's end.
            # At the beginning something may have been embedded by no module of its own.
            extends = current is not None and not _pools_all(current.shape, unit.shape)
            if extends or (not found and current is None):
                current = unit
            continue
        if current is not None and (affine or unit.kind == "block"):
            found.append(current)
        affine = unit.kind == "affine"
        current = unit if affine else None
        if unit.kind == "block":
            found.append(unit)
    found = [layer for layer in found if layer.vertex != traced.end]
    names = [layer.module for layer in found]
    return tuple(
        ChainLayer(
            _outermost(module, layer, names, traced),
            layer.module,
            layer.shape,
            layer.kind == "block",
        )
        for layer in found
    )


def _pools_all(before: tuple[int, ...], after: tuple[int, ...]) -> bool:
    return len(before) == 4 and before[1:] != after[1:] and all(size == 1 for size in after[2:])


def _outermost(
    network: nn.Module, layer: BottleneckCall, others: Sequence[str], traced: ShapeTrace
) -> str:
    """Return the name of the largest module that ends there and holds no other layer.

    A unit of several modules, such as a convolution with its normalisation, has its own name.
    """
    name = layer.module
    if any(network.get_submodule(name.partition("#")[0]).children()):
        return name
    ends = {call for call, _, vertex in traced.calls if vertex == layer.vertex}
    while parent := name.rpartition(".")[0]:
        inner = [other for other in others if other.startswith(f"{parent}.")]
        if parent not in ends or inner != [layer.module]:
            break
        name = parent
    return name


def last_affine(module: nn.Module, traced: ShapeTrace) -> str | None:
    """Return the Linear, or 1 × 1 convolution of vectors, whose output the network returns."""
    ends = _up_to_views(traced.end)
    for call, _, vertex in reversed(traced.calls):
        name = call.partition("#")[0]
        given = traced.inputs.get(call, ())
        if vertex in ends and call == name and _is_affine(module.get_submodule(name)):
            vectors = all(size == 1 for size in given[2:])
            return name if vectors and traced.is_bottleneck(vertex) else None
    return None


def _up_to_views(vertex: Vertex) -> list[Vertex]:
    found = [vertex]
    node: Any = vertex[0]
    while node.name().startswith(_VIEWS):
        before = [(n, number) for n, number in node.next_functions if n is not None]
        found += before
        node = before[0][0]
    # A Linear of a vector is AddmmBackward, or a product whose bias is added behind a view.
    return found
