"""Baselines of a checkpoint as networks with cut points, extracted like any other.

*Pixels* are mean colours of the images, prepared as for the checkpoint. A *random* network is the
checkpoint's own with random weights: the same layers, cut at the same points.
"""

from __future__ import annotations

import copy
from collections.abc import Hashable, Sequence
from dataclasses import replace
from pathlib import Path

from torch import nn

from layerscope.errors import CheckpointError
from layerscope.models import checkpoint as checkpoints
from layerscope.models import mean_colours
from layerscope.models.assembly import Assembly
from layerscope.models.checkpoint import LoadedModel
from layerscope.models.declared import Declared
from layerscope.models.files.weights import sha256_of_tensors
from layerscope.models.initialisation import draw_weights
from layerscope.types import Baseline, Checkpoint


def load(
    name: str | Path, declared: Declared | None = None, *, trust: Sequence[str] = ()
) -> LoadedModel:
    """Return the network of a checkpoint, in eval mode, with its cut points in call order.

    Args:
        name: The name of a card that comes with LayerScope, the path of a card (``.toml``), the
            path of a file of weights, or ``hf://owner/repository/file``. Beside a file of weights,
            a card of the same stem is used. ``pixels:NAME`` and ``random-3:NAME`` are baselines of
            the checkpoint that ``NAME`` is of; the number is the seed of the random weights.
        declared: What the weights cannot tell; it takes precedence over a card's declarations.
        trust: Dotted names of Python objects that a pickle may mention. They are read as inert
            records; none is imported or run.

    Raises:
        CheckpointError: The file is missing, damaged, holds code, or fits no known architecture.
        UnknownNameError: There is no card of that name.
    """
    baseline, named = Baseline.split(str(name))
    if baseline is None:
        return checkpoints.load(name, declared, trust=trust)
    return baseline_of(checkpoints.load(named, declared, trust=trust), baseline)


def baseline_of(model: LoadedModel, baseline: Baseline) -> LoadedModel:
    """Return a baseline of a checkpoint; the checkpoint's network is left as it is.

    Raises:
        CheckpointError: The network cannot be copied.
    """
    return _pixels(model) if baseline.kind == "pixels" else _random(model, baseline)


def same_features(model: LoadedModel, baseline: Baseline) -> Hashable:
    """Return a key that is equal where baselines of two checkpoints have the same features."""
    own = model.checkpoint
    if baseline.kind == "pixels":
        return baseline, own.preprocessing
    shapes = tuple((name, tuple(it.shape)) for name, it in model.module.state_dict().items())
    told = repr((sorted(own.architecture.items()), sorted(own.declared.items())))
    return baseline, own.preprocessing, told, model.cuts, shapes


def _pixels(model: LoadedModel) -> LoadedModel:
    own = model.checkpoint
    assembly = Assembly(
        module=mean_colours.PixelNetwork(),
        stops=mean_colours.stops(),
        architecture={"grids": mean_colours.GRIDS},
        head="none",
        keys={},
        preprocessing=own.preprocessing,
    )
    card = Checkpoint(
        name=f"{own.name}-pixels",
        family="pixels",
        architecture=assembly.architecture,
        weights=None,
        sha256=sha256_of_tensors({}),
        preprocessing=own.preprocessing,
        head=assembly.head,
        licence="",
        citation="",
        baseline="pixels",
        baseline_of=own.name,
    )
    reason = f"they are mean colours of the images that {own.name} sees"
    return checkpoints.trace_cuts(card, assembly, reason)


def _random(model: LoadedModel, baseline: Baseline) -> LoadedModel:
    own = model.checkpoint
    network = _copied(model.module, own.name)
    draw_weights(network, baseline.seed)
    card = replace(
        own,
        name=f"{own.name}-{baseline.name}",
        weights=None,
        sha256=sha256_of_tensors(network.state_dict()),
        licence="",
        citation="",
        seed=baseline.seed,
        description="",
        baseline="random",
        baseline_of=own.name,
    )
    reason = f"it is the network of {own.name}"
    return replace(
        model, checkpoint=card, module=network, reason=reason, keys={}, ignored={}, notes=()
    )


def _copied(network: nn.Module, name: str) -> nn.Module:
    try:
        return copy.deepcopy(network).cpu()
    except (RuntimeError, TypeError) as error:
        reason = str(error).strip().split("\n", 1)[0].rstrip(".")
        raise CheckpointError(
            f"The network of {name} cannot be copied, so there are none of it with random weights: "
            f"{reason}.",
            hint="Leave random out of --baselines; torch.nn.utils.parametrizations can be copied, "
            "older hooks on weights cannot.",
        ) from error
