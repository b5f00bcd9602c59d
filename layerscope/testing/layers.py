"""Layers in memory with a known truth, to try estimators on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from layerscope.errors import SettingsError
from layerscope.types import SPLITS, CutPoint, Split

SHARES = (0.6, 0.8)
"""Where validation and test rows begin, unless it is said otherwise."""
TRAIN, HELD_OUT = 400, 120
"""Images of a planted layer's training split, and of each of the others."""
WIDTH, CLASSES, LATENTS, MARKS = 12, 3, 2, 2
"""Of planted layers: features, and what is planted."""


@dataclass(frozen=True)
class HeldLayer:
    """One cut with its splits and targets, held in memory: a :class:`~layerscope.types.LayerView`.

    Examples:
        >>> layer = HeldLayer.of(np.eye(5), kind=np.arange(5))
        >>> layer.target("kind", "test").tolist()
        [4]
    """

    rows: npt.NDArray[np.float32]
    """(n, d) features."""
    targets: Mapping[str, npt.NDArray[Any]]
    """By task: (n,) classes, or (n, k) labels or latents."""
    splits: npt.NDArray[np.str_]
    """(n,)"""
    members: npt.NDArray[np.int64]
    """(n,) group of each row; of augmented views, the image."""
    augmented: bool = False
    """Whether the rows of a group are views of one image."""
    group_size: int = 1
    """How many members in succession are one group."""
    checkpoint: str = "planted"
    source: str = "memory"
    fingerprint: str = "f00d"

    @classmethod
    def of(
        cls,
        rows: npt.NDArray[Any],
        each: int = 1,
        augmented: bool = False,
        **targets: npt.NDArray[Any],
    ) -> HeldLayer:
        """Return a layer of (n, d) rows, of which three fifths train and a fifth validates.

        Args:
            rows: (n, d) features.
            each: How many rows in succession are a group.
            augmented: Whether groups are views of one image.
            **targets: By task.

        Raises:
            SettingsError: A task has not as many targets as there are rows.
        """
        n = len(rows)
        for name, values in targets.items():
            if len(values) != n:
                raise SettingsError(
                    f"The task {name!r} has {len(values)} targets for {n} rows.",
                    hint="Give one to each row, in the order of the rows.",
                )
        bounds = [0, *(round(n * share) for share in SHARES), n]
        splits = np.repeat(np.array(SPLITS), np.diff(bounds))
        return cls(np.asarray(rows, np.float32), targets, splits, np.arange(n) // each, augmented)

    @property
    def cut(self) -> CutPoint:
        return CutPoint(0, "stem", "stem", "trunk", self.rows.shape[1], "mean", 0.0)

    def features(self, split: Split) -> npt.NDArray[np.float32]:
        return self.rows[self.places(split)]

    def target(self, task: str, split: Split) -> npt.NDArray[Any]:
        return self.targets[task][self.places(split)]

    def groups(self, split: Split) -> npt.NDArray[np.str_]:
        return (self.members[self.places(split)] // self.group_size).astype(str)

    def views(self, split: Split) -> npt.NDArray[np.int64]:
        chosen = self.members[self.places(split)]
        if not self.augmented:
            return np.zeros(len(chosen), np.int64)
        return np.array([int((chosen[:i] == one).sum()) for i, one in enumerate(chosen)], np.int64)

    def instances(self, split: Split) -> npt.NDArray[np.int64]:
        places = self.places(split)
        return self.members[places] if self.augmented else places

    def places(self, split: Split) -> npt.NDArray[np.int64]:
        """Return where the rows of a split are."""
        return np.flatnonzero(self.splits == split)

    def at(self, places: npt.NDArray[np.int64]) -> HeldLayer:
        """Return the layer of the rows at these places, in this order, some more than once."""
        return replace(
            self,
            rows=self.rows[places],
            targets={name: values[places] for name, values in self.targets.items()},
            splits=self.splits[places],
            members=self.members[places],
        )

    def with_rows(self, places: npt.NDArray[np.int64], rows: npt.NDArray[Any] | float) -> HeldLayer:
        """Return the layer with other features at these places."""
        changed = self.rows.copy()
        changed[places] = rows
        return replace(self, rows=changed)

    def with_targets(self, **targets: npt.NDArray[Any]) -> HeldLayer:
        """Return the layer with other targets of some tasks."""
        return replace(self, targets={**self.targets, **targets})


def planted_layer(views: int = 1, seed: int = 0) -> HeldLayer:
    """Return a layer that knows the class, the latents and the labels of its images, nearly.

    Features have an offset, unequal lengths, and unequal directions, so that nothing that a measure
    may notice is missing.

    Args:
        views: Augmented views of each image.
        seed: Of the draw.
    """
    rng = np.random.default_rng(seed)
    images = TRAIN + 2 * HELD_OUT
    kinds = rng.integers(0, CLASSES, images)
    latents = rng.uniform(-1, 1, (images, LATENTS))
    marks = rng.integers(0, 2, (images, MARKS))
    known = np.concatenate((np.eye(CLASSES)[kinds], latents, marks), 1)
    spread = rng.standard_normal((images, WIDTH)) * np.linspace(2, 0.4, WIDTH)
    rows = 0.7 + spread + 2 * known @ rng.standard_normal((known.shape[1], WIDTH))
    place = np.repeat(np.arange(images), views)
    noise = 0.3 * rng.standard_normal((len(place), WIDTH)) if views > 1 else 0.0
    splits = np.repeat(np.array(SPLITS), [TRAIN, HELD_OUT, HELD_OUT])
    targets = {"kind": kinds, "place": latents, "marks": marks}
    return HeldLayer(
        np.asarray(rows[place] + noise, np.float32),
        {name: values[place] for name, values in targets.items()},
        splits[place],
        place,
        augmented=views > 1,
    )
