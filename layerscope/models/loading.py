"""Filling a network with a file's tensors, strictly, with an account of every key."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from layerscope.errors import CheckpointError

_SHOWN = 5
_COUNTER = "num_batches_tracked"


def fill(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copy tensors into a network whose state they must match key by key and shape by shape.

    Values are converted to the network's own type, so half-precision files load as float32.

    Args:
        module: The network.
        tensors: By the network's own key.

    Raises:
        CheckpointError: A key is missing or unknown, a shape differs, or a value is no
            number or not finite.
    """
    wanted = module.state_dict()
    missing = [k for k in wanted if k not in tensors and not k.endswith(_COUNTER)]
    unknown = [key for key in tensors if key not in wanted]
    if missing or unknown:
        raise CheckpointError(
            f"The weights are of another architecture: {_list_keys('missing', missing)}; "
            f"{_list_keys('unexpected', unknown)}.",
            hint="Nothing was filled with random values; check that the file is the right one.",
        )
    _check_values(wanted, tensors)
    state = OrderedDict(tensors)
    # Modules with several layouts (MNASNet) ask for a version: the shapes are those of today's.
    state._metadata = wanted._metadata  # type: ignore[attr-defined]
    module.load_state_dict(state, strict=False)


def _check_values(wanted: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
    for key, tensor in tensors.items():
        if tensor.shape != wanted[key].shape:
            raise CheckpointError(
                f"{key} has shape {tuple(tensor.shape)} where the network has "
                f"{tuple(wanted[key].shape)}.",
                hint="The weights are of another architecture.",
            )
        if wanted[key].is_floating_point() and not tensor.is_floating_point():
            raise CheckpointError(
                f"{key} holds {str(tensor.dtype).removeprefix('torch.')} where weights are.",
                hint="Its weights are quantised: convert them to float32 where they were made.",
            )
        if not torch.isfinite(tensor).all():
            raise CheckpointError(
                f"{key} holds values that are not finite.",
                hint="The training diverged or the file is damaged.",
            )


def _list_keys(label: str, keys: list[str]) -> str:
    shown = ", ".join(keys[:_SHOWN]) or "none"
    more = f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
    return f"{label} {shown}{more}"
