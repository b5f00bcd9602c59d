"""What a cache and a file of statistics say of themselves in the same attributes."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import h5py

from layerscope.cache.records import checkpoint_from, cut_from, series_in, task_from
from layerscope.types import Checkpoint, CutPoint, Setting, Task


class OpenRecord:
    """A file with the attributes of a cache, open until the end of ``with``."""

    def __init__(self, path: Path, file: h5py.File) -> None:
        self.path = path
        self._file = file

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    @cached_property
    def card(self) -> Checkpoint:
        """The checkpoint's card; of its weights' path only the file's name."""
        return checkpoint_from(self._json("checkpoint"))

    @property
    def checkpoint(self) -> str:
        return self.card.name

    @cached_property
    def source(self) -> str:
        return str(self._file.attrs["source"])

    @cached_property
    def cuts(self) -> tuple[CutPoint, ...]:
        return tuple(map(cut_from, self._json("cuts")))

    @cached_property
    def tasks(self) -> tuple[Task, ...]:
        return tuple(map(task_from, self._json("tasks")))

    @cached_property
    def fingerprint(self) -> str:
        return str(self._file.attrs["fingerprint"])

    @cached_property
    def computation(self) -> dict[str, Any]:
        """How the features were computed: precision, device, versions and the like."""
        return dict(self._json("settings"))

    @cached_property
    def settings(self) -> dict[str, Setting]:
        """What distinguishes the checkpoint in a series or a grid, such as its epoch."""
        return series_in(self.computation)

    @cached_property
    def ingredients(self) -> dict[str, Any]:
        """Everything that determined the features."""
        return dict(self._json("ingredients"))

    def _json(self, name: str) -> Any:
        return json.loads(self._file.attrs[name])
