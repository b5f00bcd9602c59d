"""One training run: data in, weights and a card out."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor

from layerscope import __version__
from layerscope.errors import TrainingError
from layerscope.models import untrained
from layerscope.models.files.weights import sha256_of_file
from layerscope.models.heads import TrunkAndHead
from layerscope.nouns import Source
from layerscope.pretrain.card import toml
from layerscope.pretrain.images import Views, decode
from layerscope.pretrain.methods import Method, methods
from layerscope.pretrain.recipe import Recipe
from layerscope.pretrain.trainer import EpochLoss, Normalise, train

Advance = Callable[..., None]


def pretrain(
    recipe: Recipe,
    source: Source,
    out: Path,
    *,
    device: torch.device,
    command: str = "",
    workers: int = 2,
    advance: Advance = lambda *_: None,
    said: Callable[[str], None] = lambda _: None,
) -> Path:
    """Train a network on a source's training split and write its weights and its card.

    The weights are stored in float16 (reading them makes float32 again), so the network that the
    card describes is the rounded one.

    Args:
        recipe: Every setting, the method's name among them.
        source: The rendered 3D data set.
        out: Path of the weights, ``NAME.safetensors``; the card is written beside it.
        device: Where to train.
        command: The command line that trains it again, for the card.
        workers: Processes that make the augmented views.
        advance: ``advance(images, note)`` after every step.
        said: Told the loss of every epoch.

    Returns:
        The card's path.

    Raises:
        TrainingError: The source does not fit the method, or the loss diverged.
    """
    method = methods[recipe.method]
    if out.suffix != ".safetensors":
        raise TrainingError(
            f"The output {str(out)!r} is no .safetensors file.",
            hint="Name it so: -o NAME.safetensors.",
        )
    start = time.monotonic()
    images, latents = decode(source, "train", lambda _: None)
    mean, std = channel_statistics(images)
    network = untrained(recipe.architecture(method.output), recipe.seed).to(device)
    network.to(memory_format=torch.channels_last)
    views = Views(images, latents, method, side=recipe.side, seed=recipe.seed)
    losses = _losses(
        train(
            network,
            method,
            views,
            recipe,
            normalise=normaliser(mean, std),
            workers=workers,
            advance=advance,
        ),
        said,
    )
    _save(network, out)
    content = _card(recipe, method, source, out, mean, std) | {
        "training": _training(recipe, source, losses, len(images), command, start),
    }
    card = out.with_suffix(".toml")
    card.write_text(toml(content), encoding="utf-8")
    return card


def channel_statistics(images: Tensor) -> tuple[list[float], list[float]]:
    """Return the mean and standard deviation of every channel, of values in [0, 1].

    Args:
        images: (n, 3, h, w) uint8.
    """
    values = torch.stack(
        [torch.bincount(images[:, channel].flatten(), minlength=256) for channel in range(3)]
    ).double()
    levels = torch.arange(256, dtype=torch.float64) / 255
    weight = values / values.sum(1, keepdim=True)
    mean = weight @ levels
    std = (weight @ levels.square() - mean.square()).sqrt()
    return [round(m, 4) for m in mean.tolist()], [round(s, 4) for s in std.tolist()]


def normaliser(mean: list[float], std: list[float]) -> Normalise:
    """Return the function from uint8 images to the network's input."""

    def normalise(images: Tensor) -> Tensor:
        shape = (1, 3, 1, 1)
        centre = torch.tensor(mean, device=images.device).view(shape)
        scale = torch.tensor(std, device=images.device).view(shape)
        ready = (images.float() / 255 - centre) / scale
        return ready.contiguous(memory_format=torch.channels_last)

    return normalise


def _losses(epochs: Any, said: Callable[[str], None]) -> list[EpochLoss]:
    losses = []
    for epoch in epochs:
        said(f"epoch {epoch.epoch}: loss {epoch.loss:.5f}")
        losses.append(epoch)
    return losses


def _save(network: TrunkAndHead, out: Path) -> None:
    halves = {
        key: (tensor.half() if tensor.is_floating_point() else tensor).contiguous().cpu()
        for key, tensor in network.state_dict().items()
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_suffix(".safetensors.part")
    save_file(halves, part)
    part.replace(out)


def _card(
    recipe: Recipe, method: Method, source: Source, out: Path, mean: list[float], std: list[float]
) -> dict[str, Any]:
    return {
        "name": out.stem,
        "description": method.description + ".",
        "family": "layerscope",
        "weights": out.name,
        "sha256": sha256_of_file(out),
        "licence": "Apache-2.0",
        "citation": "Bordes et al., Guillotine Regularization, TMLR 2023 (arXiv:2206.13378)",
        "architecture": recipe.architecture(method.output),
        "preprocessing": {
            "resize": [recipe.side, recipe.side],
            "mean": mean,
            "std": std,
            "interpolation": "bilinear",
        },
    }


def _training(
    recipe: Recipe, source: Source, losses: list[EpochLoss], images: int, command: str, start: float
) -> dict[str, Any]:
    return {
        "command": command,
        "data": f"{source.name}, train split, {images} images",
        "manifest": source.manifest,
        **recipe.table(),
        "first_loss": round(losses[0].loss, 5),
        "final_loss": round(losses[-1].loss, 5),
        "minutes": round((time.monotonic() - start) / 60, 1),
        "hardware": f"{os.cpu_count()} cores, {platform.machine()}",
        "versions": f"layerscope {__version__}, torch {torch.__version__}, "
        f"torchvision {torchvision.__version__}",
    }
