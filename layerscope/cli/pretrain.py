"""``layerscope pretrain``: train a reference checkpoint on a rendered set."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from layerscope.cli import terminal
from layerscope.cli.sources import open_pair

if TYPE_CHECKING:
    from layerscope.training import Recipe


def command(
    context: typer.Context,
    method: Annotated[
        str,
        typer.Argument(help="How to train: simclr, rotation, category, or one of your own."),
    ],
    data: Annotated[
        str,
        typer.Option("--data", help="NAME=PATH of the images; objects3d=DIR is a rendered set."),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="NAME.safetensors to write.")],
    epochs: Annotated[int, typer.Option("--epochs", min=1, help="Passes over the images.")] = 40,
    width: Annotated[int, typer.Option("--width", min=8, help="Channels of the stem.")] = 24,
    side: Annotated[int, typer.Option("--side", min=32, help="Input side in pixels.")] = 64,
    batch_size: Annotated[int, typer.Option("--batch-size", min=2, help="Images a step.")] = 256,
    learning_rate: Annotated[
        float, typer.Option("--learning-rate", help="Of AdamW, after warm-up.")
    ] = 2e-3,
    seed: Annotated[int, typer.Option("--seed", help="Of weights, order and views.")] = 0,
    noisy_labels: Annotated[
        float,
        typer.Option("--noisy-labels", min=0, max=1, help="Share of wrong labels, kept for good."),
    ] = 0.0,
    snapshots: Annotated[
        int | None,
        typer.Option("--snapshots", min=1, help="Keep NAME-epoch-012 and so on, every so many."),
    ] = None,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1.")] = "auto",
    workers: Annotated[int, typer.Option("--workers", min=0, help="Processes for views.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Train a ResNet-18 with a 3-layer head, and write its weights and its card.

    The card holds the command that trains the network again, and the citation of the method. Its
    licence is left empty, for you to fill in before you share the weights.

    With --snapshots the weights after every so many epochs are kept as NAME-epoch-012.safetensors
    and so on, each with a card. --noisy-labels makes a share of the labels of a supervised method
    wrong, from the first epoch to the last, to study over-fitting.

    \b
    Examples:
      layerscope pretrain simclr --data objects3d=data/objects3d -o runs/simclr.safetensors
      layerscope pretrain rotation --data objects3d=data/objects3d -o runs/rotation.safetensors
      layerscope pretrain category --data objects3d=DIR -o a.safetensors --noisy-labels 0.4
      layerscope pretrain simclr --data objects3d=DIR -o runs/a.safetensors --snapshots 4
    """
    import torch

    from layerscope.runtime.device import choose_device
    from layerscope.training import Recipe, Snapshots, pretrain
    from layerscope.training.methods import methods

    methods[method]
    source = open_pair(data)
    recipe = Recipe(
        method=method,
        epochs=epochs,
        width=width,
        side=side,
        batch_size=batch_size,
        learning_rate=learning_rate,
        seed=seed,
        noisy_labels=noisy_labels,
    )
    chosen = choose_device(device)
    # Workers and torch must not fight for the cores: that costs many times what it brings.
    torch.set_num_threads(max(1, (os.cpu_count() or 1) - workers))
    terminal.say(f"Training {method} on {chosen}.")
    images = int((source.splits == "train").sum()) // batch_size * batch_size
    with terminal.progress(f"train {method}", images * epochs, "images") as advance:
        card = pretrain(
            recipe,
            source,
            output,
            device=chosen,
            command=_command_line(context, recipe),
            workers=workers,
            snapshots=None if snapshots is None else Snapshots(snapshots),
            advance=advance,
            report=terminal.say,
        )
    terminal.emit({"card": str(card), "weights": str(output)}, as_json, lambda: str(card))


def _command_line(context: typer.Context, recipe: Recipe) -> str:
    """Return what trains the same network again, defaults that may change spelt out."""
    given, plugins = context.params, context.find_root().params.get("plugin") or ()
    words = ["layerscope", *(word for path in plugins for word in ("--plugin", path)), "pretrain"]
    words += [recipe.method, "--data", given["data"]]
    spelt = ("epochs", "width", "side", "batch_size", "learning_rate", "seed", "device")
    optional = [name for name in ("noisy_labels", "snapshots") if given[name]]
    for name in (*spelt, *optional):
        words += ["--" + name.replace("_", "-"), given[name]]
    return shlex.join([*map(str, words), "-o", str(given["output"])])
