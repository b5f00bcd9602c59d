"""How features are extracted and probes evaluated: every option, once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch

from layerscope.data import Loader, ReadRequest, ViewSettings
from layerscope.data.loaders import loaders
from layerscope.errors import SettingsError
from layerscope.types import CutPoint, Existing, Precision, Preprocessing, Setting, Source, Storage

Stream = Literal["statistics"]
"""What is kept where features cannot be."""


@dataclass(frozen=True, kw_only=True)
class ForwardSettings:
    """How images are read and sent through a network.

    Raises:
        SettingsError: A number is too small, or a word is none of those that are known.
    """

    batch_size: int = 64
    """Images per forward pass."""
    device: str = "auto"
    """``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``."""
    precision: Precision = "float32"
    """``float32``, or ``bfloat16``: under autocast, and what that changes is measured."""
    limit: int | None = None
    """At most so many images of a source, an equal share of every split, for a smoke run."""
    loader: str = "threads"
    """The name of a registered loader."""
    workers: int | None = None
    """Its threads or processes; one for each processor by default."""
    skip_bad: bool = False
    """Leave out images that cannot be read, instead of stopping at the first."""

    def __post_init__(self) -> None:
        """Refuse numbers and words that mean nothing."""
        for name in ("batch_size", "limit", "workers"):
            count = getattr(self, name)
            if count is not None and count < 1:
                raise SettingsError(
                    f"{name} is {count}.", hint="Give 1 or more, or leave it out for the default."
                )
        self._require_known("precision", get_args(Precision))

    def _require_known(self, name: str, known: tuple[str, ...]) -> None:
        if getattr(self, name) not in known:
            raise SettingsError(
                f"{name} is {getattr(self, name)!r}.", hint=f"Give one of {', '.join(known)}."
            )

    def open_loader(
        self,
        source: Source,
        preprocessing: Preprocessing,
        device: torch.device,
        workers: int | None = None,
    ) -> Loader:
        """Return a loader of all rows of a source, whose framing the preprocessing knows.

        Raises:
            UnknownNameError: No loader has this name.
            SettingsError: The loader does not read such a source.
        """
        reading = ReadRequest(
            source,
            preprocessing,
            self.batch_size,
            workers=self.workers or workers,
            skip_bad=self.skip_bad,
            # Bytes are a quarter of what would have to travel, and a GPU normalises for nothing.
            normalised=device.type == "cpu",
        )
        return loaders[self.loader](reading)


@dataclass(frozen=True, kw_only=True)
class ExtractSettings(ForwardSettings):
    """How features are extracted; every option has a default.

    Raises:
        SettingsError: The options do not go together, or one of them means nothing.

    Examples:
        >>> ExtractSettings(batch_size=32).storage
        'float16'
    """

    cuts: Sequence[CutPoint] | None = None
    """Some of the network's cut points, a cut once for each of its poolings; all in their usual
    pooling by default."""
    storage: Storage = "float16"
    """``float16``, but float32 for cuts where that would lose; ``bfloat16``, ``float32``."""
    existing: Existing = "missing"
    """What to do with a cache that is there: keep, ``missing`` (go on) or replace."""
    stream: Stream | None = None
    """``statistics`` keeps those of the features, and no feature."""
    views: ViewSettings | None = None
    """Augmented views of each image in place of the image."""
    series: Mapping[str, Setting] = field(default_factory=dict)
    """What distinguishes the checkpoint in a series or a grid, such as its epoch."""
    tasks: Sequence[str] | None = None
    """With ``stream``: the tasks whose targets are crossed with the features; all by default."""

    def __post_init__(self) -> None:
        """Refuse options that mean nothing, by themselves or together."""
        super().__post_init__()
        self._require_known("storage", get_args(Storage))
        self._require_known("existing", get_args(Existing))
        if self.stream is not None:
            self._require_known("stream", get_args(Stream))
        elif self.tasks is not None:
            raise SettingsError(
                f"--tasks {','.join(self.tasks)!r} says whose statistics to keep, and features are "
                "kept here.",
                hint="Leave it out, for a cache holds the targets of all tasks; or add --stream "
                "statistics.",
            )


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings(ForwardSettings):
    """How probes are evaluated on shifted images; every option has a default.

    Raises:
        SettingsError: An option means nothing.
    """

    task: str | None = None
    """Whose probes; the shift's own, or the only task of classes that the cache has."""
