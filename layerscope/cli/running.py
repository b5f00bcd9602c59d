"""The options of every command that sends images through a network: what runs, where and how."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from layerscope.nouns import Existing, Precision, Storage

Checkpoints = Annotated[
    list[str],
    typer.Argument(
        metavar="CHECKPOINT", help="Cards' names, or paths of cards or files of weights."
    ),
]
Caches = Annotated[Path, typer.Option("--output", "-o", help="Folder for the caches.")]
Cuts = Annotated[
    str | None,
    typer.Option("--cuts", help="Layers: names, globs, ranges such as -4:, with commas."),
]
Pooling = Annotated[
    str | None,
    typer.Option(
        "--pooling",
        help="mean, cls, cls+mean, max, flat:9k, none, with commas; the usual ones by default.",
    ),
]
BatchSize = Annotated[int, typer.Option("--batch-size", min=1, help="Images per forward pass.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1, mps.")]
WhichPrecision = Annotated[
    Precision, typer.Option("--precision", help="In which the network computes.")
]
WhichStorage = Annotated[
    Storage,
    typer.Option(
        "--storage",
        help="Of features: float16 where it loses nothing and float32 elsewhere, or one for all.",
    ),
]
WhenThere = Annotated[
    Existing,
    typer.Option(
        "--existing",
        help="What to do with a cache that is there: leave it, go on with it, write it anew.",
    ),
]
Limit = Annotated[
    int | None,
    typer.Option("--limit", min=1, help="At most so many images, from every split alike."),
]
Loader = Annotated[
    str, typer.Option("--loader", help="What reads the images: threads, ffcv, torchvision.")
]
Workers = Annotated[
    int | None, typer.Option("--workers", min=1, help="Of the loader: threads, or processes.")
]
SkipBadImages = Annotated[
    bool, typer.Option("--skip-bad-images", help="Leave out images that cannot be read.")
]
