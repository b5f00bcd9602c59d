"""The options of every command that sends images through a network: what runs, where and how."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from layerscope.errors import SettingsError
from layerscope.types import Existing, Precision, Storage

if TYPE_CHECKING:
    from layerscope.data import ViewSettings
    from layerscope.models import ListedCheckpoint

Checkpoints = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="CHECKPOINT",
        help="Cards' names, or paths of cards or files of weights; patterns such as 'run/e*.pth'.",
    ),
]
Table = Annotated[
    Path | None,
    typer.Option(
        "--table",
        help="A .csv of checkpoints: the column checkpoint, perhaps name, and one a setting.",
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
HowManyViews = Annotated[
    int | None,
    typer.Option("--views", min=1, help="So many augmented views of each image in its place."),
]
Augment = Annotated[
    str | None,
    typer.Option("--augment", help="With --views: how they are drawn; simclr by default."),
]
ViewsSeed = Annotated[
    int | None, typer.Option("--views-seed", min=0, help="With --views: their seed; 0 by default.")
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


def members(words: Sequence[str] | None, table: Path | None) -> tuple[ListedCheckpoint, ...]:
    """Return the checkpoints that a command names, by words and patterns or by a table.

    Raises:
        SettingsError: It names none, or in both ways; a pattern or the table is of no use.
    """
    from layerscope import models

    if bool(words) == (table is not None):
        both = "Checkpoints are named, and --table lists others."
        raise SettingsError(
            both if words else "No checkpoint is named.",
            hint="Name checkpoints, or give --table with a line for each.",
        )
    return models.read_table(table) if table is not None else models.listed_checkpoints(words or ())


def views_of(count: int | None, augment: str | None, seed: int | None) -> ViewSettings | None:
    """Return which augmented views a command asks for; None where it asks for images.

    Raises:
        SettingsError: It says how they are drawn, and not how many.
    """
    from layerscope.data import ViewSettings

    if count is None:
        for option, value in (("--augment", augment), ("--views-seed", seed)):
            if value is not None:
                raise SettingsError(
                    f"{option} {value} says how views are drawn, and none are asked for.",
                    hint="Add --views N, or leave it out.",
                )
        return None
    return ViewSettings(count, augment or "simclr", seed or 0)
