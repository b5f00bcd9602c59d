"""Heads side by side: several that read shares of one representation, as SIE's two do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from layerscope.errors import CheckpointError
from layerscope.models.contents import Weights
from layerscope.models.cuts import Stop
from layerscope.models.heads import Head, Operation, build, describe_head


@dataclass(frozen=True, slots=True)
class ParallelHead:
    """One of several heads side by side."""

    operations: Sequence[Operation]
    start: int
    """The first feature of the representation that it reads."""
    stop: int
    """The feature behind the last that it reads."""


class FeatureSlice(nn.Module):
    """Some neighbouring features out of all."""

    def __init__(self, start: int, stop: int) -> None:
        super().__init__()
        self.start, self.stop = start, stop

    def forward(self, rows: Tensor) -> Tensor:
        """Return the columns from start up to stop."""
        return rows[:, self.start : self.stop]


class ParallelLayer(nn.Module):
    """One layer of several heads: each transforms its share, and the outputs are joined.

    Args:
        layers: By the name of the head.
        reads: By the same names: which features of the input.
    """

    def __init__(self, layers: Mapping[str, nn.Module], reads: Mapping[str, FeatureSlice]) -> None:
        super().__init__()
        self.reads = nn.ModuleDict(dict(reads))
        self.layers = nn.ModuleDict(dict(layers))

    def forward(self, rows: Tensor) -> Tensor:
        """Return the heads' outputs, one behind the other."""
        shares = {name: read(rows) for name, read in self.reads.items()}
        return torch.cat([layer(shares[name]) for name, layer in self.layers.items()], dim=1)


def build_parallel(parallel: Mapping[str, ParallelHead], tensors: Weights) -> tuple[Head, Weights]:
    """Return heads side by side as one, and its tensors under the names of its own state dict.

    Raises:
        CheckpointError: A tensor is missing, or the heads are not of the same number of layers.
    """
    heads = {name: build(head.operations, tensors) for name, head in parallel.items()}
    numbers = {name: head.layer_names() for name, (head, _) in heads.items()}
    layers = next(iter(numbers.values()))
    if any(own != layers or len(heads[name][0]) != len(own) for name, own in numbers.items()):
        counts = ", ".join(f"{name} has {len(own)}" for name, own in numbers.items())
        raise CheckpointError(
            f"The heads side by side are of different depths: {counts} layers.",
            hint="The file holds heads of another structure than its family's.",
        )
    weights = Weights()
    for name, (_, own) in heads.items():
        weights = weights.joined(own.renamed([(r"^(\d+)\.", rf"\1.layers.{name}.")]))
    reads = {name: FeatureSlice(head.start, head.stop) for name, head in parallel.items()}
    joined: list[nn.Module] = []
    for number in layers:
        own_layers = {name: head.get_submodule(number) for name, (head, _) in heads.items()}
        _check_reads(own_layers, reads, number)
        joined.append(ParallelLayer(own_layers, reads))
        reads = _next_reads(own_layers)
    return Head(joined), weights


def _check_reads(
    layers: Mapping[str, nn.Module], reads: Mapping[str, FeatureSlice], number: str
) -> None:
    for name, layer in layers.items():
        given, taken = reads[name].stop - reads[name].start, _linear(layer).in_features
        if given != taken:
            raise CheckpointError(
                f"Layer {number} of the head {name} takes {taken} features and is given {given}.",
                hint="The file holds heads of another structure than its family's.",
            )


def _next_reads(layers: Mapping[str, nn.Module]) -> dict[str, FeatureSlice]:
    reads: dict[str, FeatureSlice] = {}
    start = 0
    for name, layer in layers.items():
        stop = start + _linear(layer).out_features
        reads[name] = FeatureSlice(start, stop)
        start = stop
    return reads


def _linear(layer: nn.Module) -> nn.Linear:
    found = next((module for module in layer.modules() if isinstance(module, nn.Linear)), None)
    if found is None:
        raise CheckpointError(
            "A layer of the heads side by side has no Linear.",
            hint="The file holds heads of another structure than its family's.",
        )
    return found


def parallel_stops(head: Head) -> tuple[Stop, ...]:
    """Return the stops within heads side by side, all off by default.

    They are the shares of the representation that the heads read (``trunk.inv``) where they do not
    read all of it, and each head's own layers (``head.1.inv``).
    """
    stops: list[Stop] = []
    for number, layer in head.named_children():
        if not isinstance(layer, ParallelLayer):
            continue
        shares = {(read.start, read.stop) for read in layer.reads.values()}
        if number == "1" and len(shares) > 1:
            stops += [
                Stop(f"trunk.{name}", f"head.1.reads.{name}", "trunk", canonical=False)
                for name in layer.reads
            ]
        stops += [
            Stop(f"head.{number}.{name}", f"head.{number}.layers.{name}", "head", canonical=False)
            for name in layer.layers
        ]
    return tuple(stops)


def describe_parallel(parallel: Mapping[str, ParallelHead], tensors: Weights) -> str:
    """Return one phrase about heads side by side: ``inv 2-layer MLP, 8-8; equi …``."""
    return "; ".join(
        f"{name} {describe_head(build(head.operations, tensors)[0])}"
        for name, head in parallel.items()
    )
