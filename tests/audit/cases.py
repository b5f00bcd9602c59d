"""Layers to audit on: three sizes in three conditions, with classes, views and latents."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np

from layerscope.testing import HeldLayer

SIZES = {"few": (46, 60), "usual": (300, 24), "many": (1100, 12)}
"""Test rows and features: fewer rows than features, more, and more than one block of pairs."""
CONDITIONS = ("even", "offset", "steep", "tiny")
"""As many directions as features; nearly all in the mean, as behind a ReLU; variances over eight
decades; features of 1e-11."""
VIEWS, CLASSES, VAL, TRAIN = 2, 3, 60, 120


@dataclass(frozen=True)
class Part:
    """One split, as a definition wants it."""

    x: np.ndarray
    """(n, d) float64: the very numbers of the layer, which are of float32."""
    y: np.ndarray
    """(n,) classes from 0."""
    images: np.ndarray
    """(n,) the image of each row."""
    targets: dict[str, np.ndarray]
    """By task, as the layer has them."""


@dataclass(frozen=True)
class Case:
    """One layer, as an estimator sees it, and its splits."""

    size: str
    condition: str
    layer: HeldLayer

    @property
    def name(self) -> str:
        return f"{self.size}, {self.condition}"

    def part(self, split: str) -> Part:
        at = self.layer.places(split)
        return Part(
            self.layer.rows[at].astype(np.float64),
            self.layer.targets["kind"][at],
            self.layer.members[at],
            {name: values[at] for name, values in self.layer.targets.items()},
        )

    @property
    def test(self) -> Part:
        return self.part("test")


@cache
def cases() -> tuple[Case, ...]:
    return tuple(_cases())


def _cases() -> Iterator[Case]:
    for size, (n, d) in SIZES.items():
        for condition in CONDITIONS:
            yield Case(size, condition, _layer(n, d, condition))


def _layer(n: int, d: int, condition: str) -> HeldLayer:
    rng = np.random.default_rng(n)
    total = TRAIN + VAL + n
    image = np.arange(total) // VIEWS
    kind = rng.integers(0, CLASSES, total)[image]
    place = rng.uniform(-1, 1, (total, 2))[image]
    rows = rng.standard_normal((total, d))[image] + 0.3 * rng.standard_normal((total, d))
    rows += 0.7 * rng.standard_normal((CLASSES, d))[kind] + place @ rng.standard_normal((2, d))
    if condition == "offset":
        rows = np.maximum(rows + 30, 0)
    if condition == "steep":
        rows = (rows * np.logspace(0, -4, d)) @ np.linalg.qr(rng.standard_normal((d, d)))[0]
    if condition == "tiny":
        rows *= 1e-11
    splits = np.repeat(np.array(["train", "val", "test"]), [TRAIN, VAL, n])
    targets = {
        "kind": kind,
        "place": place,
        "turn": 0.4 * place[:, :1] % 1,
        "pose": np.column_stack((place, place[:, :1])) * np.pi / 5,
        "marks": (place > 0).astype(np.int64),
    }
    return HeldLayer(rows.astype(np.float32), targets, splits, image, augmented=True)
