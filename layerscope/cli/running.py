"""The options of every command that sends images through a network: what runs, where and how."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer

from layerscope.cli import sources
from layerscope.cli.options import (
    Compact,
    OptionGroup,
    compute_option,
    keep_option,
    network_option,
    older_option,
    read_option,
)
from layerscope.errors import SettingsError
from layerscope.types import Baseline, Existing, Precision, Storage

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

    from layerscope.data import ViewSettings
    from layerscope.models import ListedCheckpoint, LoadedModel
    from layerscope.types import CutPoint

Device = Annotated[
    str,
    compute_option(
        "--device",
        help="Where the network runs: cpu, cuda, cuda:1 or mps; auto takes a GPU if there is one.",
    ),
]
Cuts = Annotated[
    str | None,
    network_option(
        "--cuts",
        help="Which layers, with commas: names, patterns such as 'layer4.*', ranges such as -4: "
        "for the last four. Those that layerscope cuts lists by default.",
    ),
]
Pooling = Annotated[
    str | None,
    network_option(
        "--pooling",
        help="How to make one vector of a layer's output, with commas: mean, cls, cls+mean, max, "
        "flat:9k, none. Each layer's usual way by default.",
    ),
]


@dataclass(frozen=True, kw_only=True)
class ComputeOptions(OptionGroup):
    """How images are read and sent through a network."""

    loader: Annotated[
        str,
        read_option(
            metavar="NAME[,workers=N]", help="What reads the images: threads, ffcv or torchvision."
        ),
    ] = "threads"
    workers: Annotated[int | None, older_option(min=1)] = None
    limit: Annotated[
        int | None,
        read_option(
            min=1,
            help="Read at most this many images, as many of each split; or of each condition.",
        ),
    ] = None
    skip_bad_images: Annotated[
        bool, read_option("--skip-bad-images", help="Leave out images that cannot be read.")
    ] = False
    device: Annotated[
        str,
        compute_option(
            metavar="NAME[,precision=NAME]",
            help="Where the network runs: cpu, cuda, cuda:1 or mps; auto takes a GPU if there is "
            "one. And in which number format: float32, or bfloat16 under autocast.",
        ),
    ] = "auto"
    batch_size: Annotated[
        int, compute_option(min=1, help="How many images go through the network at a time.")
    ] = 64
    precision: Annotated[Precision, older_option()] = "float32"

    compact: ClassVar[Compact] = {
        "loader": {"workers": "workers"},
        "device": {"precision": "precision"},
    }

    def words(self) -> dict[str, Any]:
        """Return these settings by the names that they have in Python."""
        words = asdict(self)
        return words | {"skip_bad": words.pop("skip_bad_images")}


@dataclass(frozen=True, kw_only=True)
class CacheOptions(OptionGroup):
    """Which checkpoints see which images, and what their caches hold."""

    checkpoints: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="CHECKPOINT...",
            help="Names of cards, paths of cards or of files of weights, patterns such as "
            "'run/e*.pth'; or one .csv table with the column checkpoint, perhaps name, and a "
            "column for each setting.",
        ),
    ] = None
    data: sources.Data
    table: Annotated[Path | None, older_option()] = None
    views: Annotated[
        str | None,
        read_option(
            metavar="N[,augment=NAME,seed=N]",
            help="Take so many random views of each image instead; by default of simclr, seed 0.",
        ),
    ] = None
    augment: Annotated[str | None, older_option()] = None
    views_seed: Annotated[int | None, older_option(min=0)] = None
    cuts: Cuts = None
    pooling: Pooling = None
    baselines: Annotated[
        str | None,
        network_option(
            metavar="pixels,random[=N]",
            help="What each network is to be compared with: mean colours of the same images "
            "(pixels), and its own architecture with random weights, N times (random, 5 by "
            "default). A network that differs from an earlier one in its weights alone shares "
            "them.",
        ),
    ] = None
    output: Annotated[Path, keep_option("--output", "-o", help="The folder for the caches.")] = (
        Path("features")
    )
    storage: Annotated[
        Storage,
        keep_option(
            help="The number format of stored features; float16 makes an exception of layers that "
            "need float32."
        ),
    ] = "float16"
    existing: Annotated[
        Existing,
        keep_option(
            help="What to do about a cache that is there: leave it (keep), compute what it lacks "
            "(missing), or write it anew (replace)."
        ),
    ] = "missing"

    compact: ClassVar[Compact] = {"views": {"augment": "augment", "seed": "views_seed"}}

    def members(self) -> tuple[ListedCheckpoint, ...]:
        """Return the checkpoints that a command names, by words and patterns or by a table."""
        from layerscope import models

        words, tables = [], [] if self.table is None else [self.table]
        for word in self.checkpoints or ():
            if Path(word).suffix in (".csv", ".tsv"):
                tables.append(Path(word))
            else:
                words.append(word)
        if bool(words) + len(tables) != 1:
            both = "Checkpoints are named, and --table lists others."
            raise SettingsError(
                both if tables else "No checkpoint is named.",
                hint="Name checkpoints, or one .csv table with a line for each.",
            )
        return models.read_table(tables[0]) if tables else models.listed_checkpoints(words)

    def beside(self) -> Beside:
        """Return what says which baselines are made beside each checkpoint.

        Raises:
            SettingsError: What was asked for is no baseline.
        """
        return Beside(() if self.baselines is None else Baseline.parse(self.baselines))

    def words(self) -> dict[str, Any]:
        """Return these settings by the names that they have in Python."""
        return {"storage": self.storage, "existing": self.existing, "views": self._views()}

    def _views(self) -> ViewSettings | None:
        """Return which augmented views are asked for; None where images are."""
        from layerscope.data import ViewSettings

        if self.views is None:
            for option, value in (("--augment", self.augment), ("--views-seed", self.views_seed)):
                if value is not None:
                    raise SettingsError(
                        f"{option} {value} says how views are drawn, and none are asked for.",
                        hint="Add --views N, or leave it out.",
                    )
            return None
        count = str(self.views)
        if not count.isdecimal() or int(count) < 1:
            raise SettingsError(
                f"--views {count} does not say how many views of each image.",
                hint="Write a number first, such as --views 8 or --views 8,augment=simclr,seed=1.",
            )
        return ViewSettings(int(count), self.augment or "simclr", self.views_seed or 0)


class Beside:
    """Which baselines of a command's checkpoints are still to be made.

    Args:
        asked: The baselines that each checkpoint is to have.
    """

    def __init__(self, asked: tuple[Baseline, ...]) -> None:
        self._asked = asked
        self._made: set[Hashable] = set()

    def next_to(self, model: LoadedModel) -> list[Baseline]:
        """Return a checkpoint's baselines but for those whose features another one's have."""
        from layerscope.models.baselines import same_features

        if model.checkpoint.baseline:
            return []
        keys = {same_features(model, baseline): baseline for baseline in self._asked}
        new = [baseline for key, baseline in keys.items() if key not in self._made]
        self._made |= keys.keys()
        return new


def chosen_cuts(model: LoadedModel, words: Mapping[str, Any]) -> tuple[CutPoint, ...]:
    """Return the cuts that a command's words choose; of pixels all, for they have no layers."""
    from layerscope.models import select_cuts

    if model.checkpoint.baseline == "pixels":
        return model.cuts
    return select_cuts(model, words["cuts"], words["pooling"])
