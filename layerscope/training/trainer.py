"""The training loop: AdamW, warm-up then cosine, bfloat16 where the recipe says so."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader

from layerscope.errors import TrainingError
from layerscope.stats.schedules import Cosine
from layerscope.training.images import AugmentedImages
from layerscope.training.methods import Method
from layerscope.training.recipe import Recipe

Normalise = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class EpochLoss:
    """The mean training loss of one epoch."""

    epoch: int
    loss: float


class EpochBatches:
    """Batches of ``(epoch, row)`` in an order that depends on the seed and the epoch alone.

    Args:
        rows: Number of training rows.
        size: Rows a batch; an incomplete last batch is dropped, since BatchNorm and the
            contrastive loss both see the batch.
        seed: Of the order.
    """

    def __init__(self, rows: int, size: int, seed: int) -> None:
        self._rows, self._size, self._seed = rows, size, seed
        self.epoch = 0

    def __len__(self) -> int:
        return self._rows // self._size

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        generator = torch.Generator().manual_seed(self._seed * 100_003 + self.epoch)
        order = torch.randperm(self._rows, generator=generator).tolist()
        for start in range(0, len(self) * self._size, self._size):
            yield [(self.epoch, row) for row in order[start : start + self._size]]


def schedule(step: int, *, warmup: int, total: int) -> float:
    """Return the factor of the learning rate: linear warm-up, then a cosine down to zero.

    Examples:
        >>> [round(schedule(s, warmup=2, total=6), 2) for s in range(6)]
        [0.5, 1.0, 1.0, 0.85, 0.5, 0.15]
    """
    if step < warmup:
        return (step + 1) / warmup
    return Cosine()(step - warmup, max(total - warmup, 1))


def optimiser(network: nn.Module, recipe: Recipe) -> torch.optim.AdamW:
    """Return AdamW with weight decay on matrices and kernels, not on biases and normalisation."""
    decayed = [p for p in network.parameters() if p.dim() > 1]
    others = [p for p in network.parameters() if p.dim() <= 1]
    groups = [
        {"params": decayed, "weight_decay": recipe.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.learning_rate)


def train(
    network: nn.Module,
    method: Method,
    views: AugmentedImages,
    recipe: Recipe,
    *,
    normalise: Normalise,
    workers: int,
    advance: Callable[..., None],
) -> Iterator[EpochLoss]:
    """Train a network in place, yielding the loss of every epoch.

    Args:
        network: Trained in place, on the device that it is on.
        method: Makes the loss.
        views: The training set.
        recipe: All settings.
        normalise: uint8 views (b, 3, h, w) to the network's input.
        workers: Processes that make the views.
        advance: ``advance(images, note)`` after every step.

    Raises:
        TrainingError: There is no full batch, or the loss is not finite.
    """
    batches = EpochBatches(len(views), recipe.batch_size, recipe.seed)
    if not len(batches):
        raise TrainingError(
            f"{len(views)} training images do not fill one batch of {recipe.batch_size}.",
            hint="Render more images, or give a smaller --batch-size.",
        )
    loader = DataLoader(
        views, batch_sampler=batches, num_workers=workers, persistent_workers=workers > 0
    )
    optim = optimiser(network, recipe)
    warmup, total = (epochs * len(batches) for epochs in (recipe.warmup_epochs, recipe.epochs))
    scale = LambdaLR(optim, partial(schedule, warmup=warmup, total=total))
    device = next(network.parameters()).device
    network.train()
    for epoch in range(recipe.epochs):
        batches.epoch = epoch
        losses = 0.0
        for batch_views, targets in loader:
            ready = tuple(normalise(view.to(device)) for view in batch_views)
            with torch.autocast(device.type, torch.bfloat16, recipe.precision == "bfloat16"):
                loss = method.loss(network, ready, targets.to(device))
            optim.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optim.step()
            scale.step()
            value = loss.item()
            if not math.isfinite(value):
                raise TrainingError(
                    f"The loss became {value} in epoch {epoch + 1}.",
                    hint="Lower --learning-rate or train in float32; the last weights were not "
                    "written.",
                )
            losses += value
            advance(len(targets), f"epoch {epoch + 1}/{recipe.epochs}, loss {value:.4f}")
        yield EpochLoss(epoch + 1, losses / len(batches))
