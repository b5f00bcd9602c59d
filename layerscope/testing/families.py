"""Does a checkpoint family load what it says, as what it is, and refuse everything else?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from layerscope.errors import CheckpointError, LayerScopeError
from layerscope.models.assembly import UNEXPLAINED, Assembly
from layerscope.models.checkpoint import assemble
from layerscope.models.contents import Contents
from layerscope.models.cuts import cut_points, trace
from layerscope.models.declared import Branch, Declared
from layerscope.models.families import Family, families
from layerscope.models.recognition import recognise_family
from layerscope.models.taps import Taps
from layerscope.testing.findings import accepts, collect, missing
from layerscope.types import CutPoint

TOLERANCE = 1e-5
"""Largest difference to an independent forward, relative to its largest value."""


@dataclass(frozen=True)
class FamilyExample:
    """A small checkpoint in a family's own layout, and the truth about its features."""

    contents: Mapping[str, Any]
    """What ``torch.save`` would write."""
    forward: Callable[[Tensor], Mapping[str, Tensor]]
    """Images (b, 3, side, side) to pooled features (b, width) by cut name, in call order, by code
    that shares nothing with the family: every canonical cut, and those that are off by default."""
    side: int = 64
    """Of the images, in pixels."""
    declared: Declared = field(default_factory=Declared)
    """What this example needs declared."""
    branches: tuple[Branch, ...] | None = None
    """Those that this example holds; None for all of the family's."""
    beside: Mapping[str, Any] = field(default_factory=dict)
    """By file name: the JSON files beside it, parsed."""


def check_family(name: str, example: FamilyExample) -> list[str]:
    """Return what is wrong with a family, one sentence each; an empty list when it conforms.

    The example has to be recognised as this family alone; every cut's features have to equal the
    independent forward in call order; no other family may load it; every tensor of the file is
    used or ignored for a reason; a trunk with a tensor missing, misshapen or not finite is refused;
    and each branch loads, with weights of its own.

    Args:
        name: Of a registered family.
        example: In its layout.

    Raises:
        UnknownNameError: There is no family of that name.
    """
    return list(missing(families[name], Family)) or collect(_findings(name, example))


def _findings(name: str, example: FamilyExample) -> Iterator[str]:
    contents = Contents(example.contents, f"the example of {name}", example.beside)
    declared = replace(example.declared, family=name)
    try:
        found, _ = recognise_family(contents)
        if found != name:
            yield f"The example is taken for {found}."
        assembly = assemble(contents, declared)
    except LayerScopeError as error:
        yield f"The example does not load: {error}"
        return
    yield from _features(assembly, example)
    yield from _accounts(contents, assembly)
    yield from _strangers(name, contents, example.declared)
    yield from _damage(contents, assembly, declared)
    yield from _branches(name, contents, assembly, declared, example.branches)


def check_capture(module: nn.Module, cuts: Sequence[CutPoint], images: Tensor) -> list[str]:
    """Return how captured features or the network could still change; empty if neither can.

    Right behind the taps each tapped output is overwritten in place, as an in-place activation
    would, while the network goes on with a copy of it: the captured features have to stay. And a
    run has to leave every parameter and buffer as it was.

    Args:
        module: A network in eval mode.
        cuts: Its cut points.
        images: (b, 3, h, w).
    """
    names = dict.fromkeys(cut.module.partition("#")[0] for cut in cuts)
    before = {name: tensor.clone() for name, tensor in _state(module)}
    taps = Taps(module, cuts)
    with torch.no_grad():
        expected = taps.run(images)
        handles = [module.get_submodule(n).register_forward_hook(_overwrite) for n in names]
        found = taps.run(images)
    for handle in handles:
        handle.remove()
    taps.close()
    return [
        *(
            f"The captured features of {cut} change when the layer's output is overwritten."
            for cut, features in expected.items()
            if not torch.equal(found[cut], features)
        ),
        *(
            f"A run changes {name}."
            for name, tensor in _state(module)
            if not torch.equal(tensor, before[name])
        ),
    ]


def _overwrite(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
    if output.untyped_storage().nbytes() > output.numel() * output.element_size():
        return output  # a part of a tensor that other layers read as well
    copy = output.clone()
    output.fill_(torch.nan)
    return copy


def _state(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters()
    yield from module.named_buffers()


def _features(assembly: Assembly, example: FamilyExample) -> Iterator[str]:
    draw = torch.Generator().manual_seed(0)
    images = torch.randn(3, 3, example.side, example.side, generator=draw)
    module = assembly.module.eval()
    with torch.no_grad():
        expected = example.forward(images)
        cuts = cut_points(trace(module, example.side), assembly.stops)
        with closing(Taps(module, cuts)) as taps:
            found, fewer = taps.run(images), taps.run(images[:2])
    names = [cut.name for cut in cuts]
    if names != list(expected):
        yield f"The cuts are {', '.join(names)}; the forward gives {', '.join(expected)}."
    for cut in names:
        if cut not in expected:
            continue
        gap = _gap(found[cut], expected[cut])
        if not gap <= TOLERANCE:
            yield f"The features of {cut} differ from the forward's by {gap:.1e} of their largest."
        if not _gap(fewer[cut], found[cut][:2]) <= 10 * TOLERANCE:
            yield f"The features of {cut} depend on the other images of the batch."
    if module.training:
        yield "The network is not in eval mode."
    yield from check_capture(module, cuts, images)


def _gap(found: Tensor, expected: Tensor) -> float:
    if found.shape != expected.shape:
        return float("inf")
    scale = expected.abs().max().clamp_min(torch.finfo(torch.float32).tiny)
    return float((found - expected).abs().max() / scale)


def _accounts(contents: Contents, assembly: Assembly) -> Iterator[str]:
    for key in contents.tensors:
        if (key in assembly.keys) == (key in assembly.ignored):
            yield f"{key} is neither used nor ignored, or both."
        elif assembly.ignored.get(key) == UNEXPLAINED:
            yield f"{key} is ignored without a reason: name one in Parts.ignored."
    for key in assembly.keys:
        if key not in contents.tensors:
            yield f"The family says that it used {key}, which the file does not hold."


def _strangers(name: str, contents: Contents, declared: Declared) -> Iterator[str]:
    for other in [each for each in families if each != name]:
        try:
            assemble(contents, replace(declared, family=other, branch=None))
        except CheckpointError:
            continue
        yield f"It loads as {other} as well."


def _damage(contents: Contents, assembly: Assembly, declared: Declared) -> Iterator[str]:
    trunk = [key for key, own in assembly.keys.items() if own.startswith("trunk.")]
    trunk = [key for key in trunk if not key.endswith("num_batches_tracked")]
    for key in {trunk[0], trunk[len(trunk) // 2], trunk[-1]}:
        for damage, value in (
            ("missing", None),
            ("misshapen", torch.zeros(7, 7, 7)),
            ("not finite", torch.full_like(contents.tensors[key].float(), torch.nan)),
        ):
            damaged = Contents(_with(contents.root, key, value), contents.title, contents.beside)
            accepted = f"It loads although {key} is {damage}."
            load = partial(assemble, damaged, declared)
            yield from accepts(load, CheckpointError, f"{key} {damage}", accepted)


def _with(root: Mapping[str, Any], key: str, value: Tensor | None) -> dict[str, Any]:
    name, _, below = key.partition("/")
    if below:
        return {**root, name: _with(root[name], below, value)}
    others = {other: held for other, held in root.items() if other != name}
    return others if value is None else {**root, name: value}


def _own_keys(assembly: Assembly) -> set[str]:
    # Prototypes may serve both branches: MSN's do.
    return {key for key, own in assembly.keys.items() if own.startswith(("trunk.", "head."))}


def _branches(
    name: str,
    contents: Contents,
    assembly: Assembly,
    declared: Declared,
    held: tuple[Branch, ...] | None,
) -> Iterator[str]:
    for branch in families[name].branches[1:]:
        try:
            other = assemble(contents, replace(declared, branch=branch, width=None))
        except CheckpointError as error:
            if held is None or branch in held:
                yield f"Its {branch} branch does not load: {error}"
            continue
        if held is not None and branch not in held:
            yield f"It loads a {branch} branch that the file does not hold."
        if declared.branch is None and _own_keys(other) & _own_keys(assembly):
            yield f"Its {branch} branch shares tensors with the usual one."
