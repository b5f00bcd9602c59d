"""One training run: data in, weights and a card out."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor

from layerscope.errors import TrainingError
from layerscope.models import untrained
from layerscope.models.files.weights import sha256_of_file
from layerscope.models.heads import TrunkAndHead
from layerscope.training.images import AugmentedImages, decode
from layerscope.training.methods import Method, methods
from layerscope.training.noise import corrupt_targets
from layerscope.training.recipe import Recipe
from layerscope.training.trainer import EpochLoss, Normalise, train
from layerscope.types import Source
from layerscope.version import __version__


@dataclass(frozen=True, slots=True)
class Snapshots:
    """Which epochs' weights are kept beside the last ones."""

    every: int
    """``NAME-epoch-012.safetensors`` and its card after each so many epochs, the last among them
    where it is a multiple."""

    def path(self, out: Path, epoch: int) -> Path | None:
        """Return the weights' path after an epoch, counted from 1; None where none are kept."""
        if epoch % self.every:
            return None
        return out.with_name(f"{out.stem}-epoch-{epoch:03}{out.suffix}")


def pretrain(
    recipe: Recipe,
    source: Source,
    out: Path,
    *,
    device: torch.device,
    command: str = "",
    workers: int = 2,
    snapshots: Snapshots | None = None,
    advance: Callable[..., None] = lambda *_: None,
    report: Callable[[str], None] = lambda _: None,
) -> Path:
    """Train a network on a source's training split and write its weights and its card.

    The weights are stored in float16 (reading them makes float32 again), so the network that the
    card describes is the rounded one.

    Args:
        recipe: Every setting, the method's name among them.
        source: The images, such as the rendered 3D data set's.
        out: Path of the weights, ``NAME.safetensors``; the card is written beside it.
        device: Where to train.
        command: The command line that trains it again, for the card.
        workers: Processes that make the augmented views.
        snapshots: Which epochs are kept as well, each with a card of its own.
        advance: ``advance(images, note)`` after every step.
        report: Called with a line for every epoch: its loss.

    Returns:
        The card's path.

    Raises:
        TrainingError: The source or the share of wrong labels does not fit the method, or the loss
            diverged.
    """
    method = methods[recipe.method]
    _check_recipe(recipe, method, out)
    start = time.monotonic()
    images, targets = decode(source, "train", method.task)
    task = next((task for task in source.tasks if task.name == method.task), None)
    classes = len(task.classes) if task else 0
    targets = corrupt_targets(targets, recipe.noisy_labels, recipe.seed, classes)
    mean, std = channel_statistics(images)
    output = classes if method.output is None else method.output
    network = untrained(recipe.architecture(output), recipe.seed).to(device)
    network.to(memory_format=torch.channels_last)
    views = AugmentedImages(images, targets, method, side=recipe.side, seed=recipe.seed)
    losses: list[EpochLoss] = []

    def write(path: Path) -> Path:
        _save(network, path)
        training = _training(recipe, source, losses, len(images), command, start)
        content = _card(recipe, method, output, path, mean, std) | {"training": training}
        card = path.with_suffix(".toml")
        card.write_text(toml(content), encoding="utf-8")
        return card

    for epoch in train(
        network,
        method,
        views,
        recipe,
        normalise=normaliser(mean, std),
        workers=workers,
        advance=advance,
    ):
        report(f"epoch {epoch.epoch}: loss {epoch.loss:.5f}")
        losses.append(epoch)
        if snapshots and (kept := snapshots.path(out, epoch.epoch)):
            write(kept)
    return write(out)


def _check_recipe(recipe: Recipe, method: Method, out: Path) -> None:
    if out.suffix != ".safetensors":
        raise TrainingError(
            f"The output {str(out)!r} is no .safetensors file.",
            hint="Name it so: -o NAME.safetensors.",
        )
    if not 0 <= recipe.noisy_labels <= 1:
        raise TrainingError(
            f"A share of {recipe.noisy_labels} of the labels cannot be wrong.",
            hint="Give --noisy-labels a share between 0 and 1, such as 0.4.",
        )
    if recipe.noisy_labels and not method.task:
        supervised = ", ".join(name for name, known in methods.items() if known.task)
        raise TrainingError(
            f"{recipe.method} is trained without labels, so none of them can be wrong.",
            hint=f"Leave --noisy-labels out, or train {supervised}.",
        )


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
        centre, scale = torch.tensor([mean, std], device=images.device).view(2, 1, 3, 1, 1)
        ready: Tensor = (images.float() / 255 - centre) / scale
        return ready.contiguous(memory_format=torch.channels_last)

    return normalise


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
    recipe: Recipe, method: Method, output: int, out: Path, mean: list[float], std: list[float]
) -> dict[str, Any]:
    wrong = f"; {recipe.noisy_labels:.0%} of the labels are wrong" if recipe.noisy_labels else ""
    return {
        "name": out.stem,
        "description": f"{method.description}{wrong}.",
        "family": "layerscope",
        "weights": out.name,
        "sha256": sha256_of_file(out),
        "licence": "",  # whoever trained it says under which terms it may be used
        "citation": method.citation,
        "architecture": recipe.architecture(output),
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
        "epochs_done": losses[-1].epoch,
        "first_loss": round(losses[0].loss, 5),
        "final_loss": round(losses[-1].loss, 5),
        "minutes": round((time.monotonic() - start) / 60, 1),
        "hardware": f"{os.cpu_count()} cores, {platform.machine()}",
        "versions": f"layerscope {__version__}, torch {torch.__version__}, "
        f"torchvision {torchvision.__version__}",
    }


def toml(content: Mapping[str, Any]) -> str:
    """Return a card as TOML: strings, numbers, lists of them, and one level of tables.

    Examples:
        >>> print(toml({"name": "mine", "training": {"epochs": 3}}), end="")
        name = "mine"
        <BLANKLINE>
        [training]
        epochs = 3
    """
    tables = {key: value for key, value in content.items() if isinstance(value, Mapping)}
    lines = [_line(key, value) for key, value in content.items() if key not in tables]
    for name, table in tables.items():
        lines += ["", f"[{name}]", *(_line(key, value) for key, value in table.items())]
    return "\n".join(lines) + "\n"


def _line(key: str, value: Any) -> str:
    # A JSON string, number, boolean or list of them is written the same way in TOML.
    return f"{key} = {json.dumps(value, ensure_ascii=False)}"
