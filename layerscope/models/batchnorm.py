"""BatchNorm statistics for networks whose files hold none, computed from images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from layerscope.errors import CheckpointError


def without_statistics(module: nn.Module) -> tuple[str, ...]:
    """Return the names of the BatchNorms that keep no statistics."""
    return tuple(
        name
        for name, part in module.named_modules()
        if isinstance(part, _BatchNorm) and not part.track_running_stats
    )


@torch.no_grad()
def calibrate(module: nn.Module, names: Sequence[str], batches: Iterable[Tensor]) -> int:
    """Give BatchNorms the average statistics of some batches, and return the number of images.

    Each batch goes through the network normalised by its own statistics, as in training, and every
    layer keeps the plain average of them over the batches (Yu and Huang 2019, Universally Slimmable
    Networks, section 4.2). Nothing else of the network is in train mode or changes.

    Args:
        module: The network; it is left in eval mode, using the new statistics.
        names: The names of its BatchNorms without statistics.
        batches: Preprocessed images (b, 3, h, w), in random order; at least one batch.

    Raises:
        CheckpointError: There are no images.
    """
    layers = [_tracking(module.get_submodule(name)) for name in names]
    module.eval()
    for layer in layers:
        layer.train()
    images = 0
    for batch in batches:
        module(batch)
        images += len(batch)
    module.eval()
    if not images:
        raise CheckpointError(
            "There are no training images to calibrate the BatchNorms with.",
            hint="Use a source with a train split, or --declare batch_norm=batch.",
        )
    return images


def forget(module: nn.Module, names: Sequence[str]) -> None:
    """Take the statistics of BatchNorms away, so that they use those of each batch."""
    for name in names:
        layer = module.get_submodule(name)
        if isinstance(layer, _BatchNorm):
            layer.track_running_stats = False
            layer.running_mean = layer.running_var = layer.num_batches_tracked = None


def _tracking(layer: nn.Module) -> _BatchNorm:
    if not isinstance(layer, _BatchNorm):
        raise TypeError(f"{type(layer).__name__} is no BatchNorm")
    device = layer.weight.device if layer.affine else None
    layer.track_running_stats = True
    layer.momentum = None  # the plain average over batches, whatever their order
    for name, value in (("running_mean", 0.0), ("running_var", 1.0)):
        layer.register_buffer(name, torch.full((layer.num_features,), value, device=device))
    layer.register_buffer("num_batches_tracked", torch.tensor(0, device=device))
    return layer
