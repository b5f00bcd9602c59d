"""Putting a file's parts together: one network, its stops, and an account of every key."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn

from layerscope.errors import CheckpointError
from layerscope.models.batchnorm import without_statistics
from layerscope.models.contents import Contents, Weights
from layerscope.models.cuts import Stop
from layerscope.models.declared import Declared
from layerscope.models.families import Parts
from layerscope.models.heads import Head, TrunkAndHead, build, describe_head
from layerscope.models.loading import fill
from layerscope.models.parallel_heads import (
    build_parallel,
    describe_parallel,
    parallel_stops,
)
from layerscope.models.preprocessing import at_size
from layerscope.types import Preprocessing

UNEXPLAINED = "belongs neither to the trunk nor to the head"
"""Why a tensor was ignored of which the family says nothing."""

_ALWAYS = {
    r"(.*/)?optimizer([_/].*)?$": "state of the optimiser",
    r"(.*/)?(scaler|fp16_scaler|lr_scheduler|scheduler|opt|optimizer_states)(/.*)?$": (
        "state of the training"
    ),
    r".*num_batches_tracked$": "a counter",
}


@dataclass(frozen=True)
class Assembly:
    """A network put together from a file's tensors, and what of them was used."""

    module: nn.Module
    stops: tuple[Stop, ...]
    architecture: Mapping[str, Any]
    head: str
    keys: Mapping[str, str]
    """By the file's key: the parameter or buffer that it filled."""
    preprocessing: Preprocessing
    ignored: Mapping[str, str] = field(default_factory=dict)
    """By the file's key: why it was not used."""
    notes: tuple[str, ...] = ()
    uncalibrated: tuple[str, ...] = ()
    """BatchNorm modules without statistics of their own."""


def put_together(parts: Parts, contents: Contents, declared: Declared) -> Assembly:
    """Return the network of a file's parts, filled strictly.

    Raises:
        CheckpointError: A tensor of the trunk or head is missing, has no place, or is not finite.
    """
    if parts.parallel:
        head, head_weights = build_parallel(parts.parallel, parts.tensors)
    else:
        head, head_weights = build(parts.head, parts.tensors)
    predictor, predictor_weights = build(parts.predictor, parts.tensors)
    logits, logits_weights = _logits(parts)
    output, output_weights = build(() if parts.output is None else [parts.output], parts.tensors)
    network = TrunkAndHead(parts.trunk.module, head, output, predictor, logits)
    weights = (
        parts.trunk.weights.within("trunk.")
        .joined(head_weights.within("head."))
        .joined(predictor_weights.within("predictor."))
        .joined(logits_weights.within("logits."))
        .joined(output_weights.within("output."))
    )
    _require_used(parts.tensors, weights)
    fill(network, weights)
    keys = origins_of(weights)
    return Assembly(
        module=network,
        stops=(*trunk_stops(parts.trunk.stops), *head_stops(head, predictor, logits)),
        architecture={"trunk": parts.trunk.name, **parts.trunk.details, **parts.architecture},
        head=describe_parallel(parts.parallel, parts.tensors)
        if parts.parallel
        else describe_head(head, _more(predictor, logits)),
        keys=keys,
        preprocessing=at_size(parts.preprocessing, parts.trunk.image_size or declared.image_size),
        ignored=ignored_keys(contents, keys, parts.ignored),
        notes=(*parts.trunk.notes, *parts.notes),
        uncalibrated=without_statistics(network),
    )


def _require_used(tensors: Weights, used: Weights) -> None:
    known = {key for origins in used.origins.values() for key in origins}
    for name in tensors:
        if not name.endswith("num_batches_tracked") and not known.issuperset(tensors.origins[name]):
            raise CheckpointError(
                f"The head has a tensor that its family does not account for: {name}.",
                hint="The head is of another structure; describe the network with --declare arch.",
            )


def _logits(parts: Parts) -> tuple[dict[str, Head], Weights]:
    heads, weights = {}, Weights()
    for name, operations in parts.logits.items():
        heads[name], own = build(operations, parts.tensors)
        weights = weights.joined(own.within(f"{name}."))
    return heads, weights


def trunk_stops(stops: Sequence[Stop]) -> tuple[Stop, ...]:
    """Return a trunk's stops with their modules named within the whole network."""
    return tuple(replace(stop, module=f"trunk.{stop.module}".rstrip(".")) for stop in stops)


def head_stops(
    head: Head, predictor: Head | None = None, logits: Mapping[str, Head] | None = None
) -> tuple[Stop, ...]:
    """Return the stops behind a trunk: the head's layers, and what is off by default.

    Args:
        head: Its layers are ``head.1``, ``head.2``, …; its L2 norms ``head.2n``, off by default.
        predictor: Its layers are ``P1``, ``P2``, …, off by default.
        logits: By name, such as ``Q``; off by default.
    """
    layers = [Stop(f"head.{n}", f"head.{n}", "head") for n in head.layer_names()]
    optional = {f"head.{n}": f"head.{n}" for n in head.norm_names()}
    if predictor is not None:
        optional |= {f"P{n}": f"predictor.{n}" for n in predictor.layer_names()}
    for name, scores in (logits or {}).items():
        numbers = scores.layer_names()
        optional |= {
            (name if len(numbers) == 1 else f"{name}.{n}"): f"logits.{name}.{n}" for n in numbers
        }
    return (
        *layers,
        *(Stop(name, module, "head", canonical=False) for name, module in optional.items()),
        *parallel_stops(head),
    )


def _more(predictor: Head, logits: Mapping[str, Head]) -> tuple[str, ...]:
    more = ["a predictor"] if len(predictor) else []
    if logits:
        more.append("logits " + ", ".join(logits))
    return tuple(more)


def origins_of(weights: Weights) -> dict[str, str]:
    """Return, by the file's key, the parameters or buffers that its tensor fills."""
    keys: dict[str, str] = {}
    for name in weights:
        for origin in weights.origins[name]:
            keys[origin] = f"{keys[origin]}, {name}" if origin in keys else name
    return keys


def ignored_keys(
    contents: Contents, keys: Mapping[str, str], rules: Mapping[str, str]
) -> dict[str, str]:
    """Return, by the file's key, why its tensor is not used, by rules for full keys."""
    patterns = [
        (re.compile(pattern), reason) for pattern, reason in (*rules.items(), *_ALWAYS.items())
    ]
    return {
        key: next((reason for pattern, reason in patterns if pattern.match(key)), UNEXPLAINED)
        for key in contents.tensors
        if key not in keys
    }
