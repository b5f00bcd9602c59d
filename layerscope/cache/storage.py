"""How features are stored: two bytes where that loses nothing that counts, four elsewhere.

float16 has 11 significant bits and ends at 65,504; bfloat16 has float32's range and 8 bits. Which
of a cut's features two bytes would spoil is measured on a sample of rows before the first one is
written, so that it depends neither on who writes which rows nor on when somebody stopped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from layerscope.types import Storage

Values = npt.NDArray[np.float32]
FeatureRows = Mapping[str, Values]
"""By cut and pooling, ``blocks.3@cls``: (b, width)."""
Valid = npt.NDArray[np.bool_]
"""(b,) False for an image that could not be read."""

LARGEST = 65504.0
"""The largest float16."""
MARGIN = 8.0
"""A cut whose sample comes nearer to the largest float16 than this factor is stored in float32."""
LOST = 1e-4
"""Share of a feature's variance over images that rounding may add: 1 % of its deviation."""

_INFINITE = 0x7C00
"""The bits of a float16 that is infinite; those of a NaN are larger."""

_DTYPES: dict[Storage, np.dtype[Any]] = {
    "float16": np.dtype("<f2"),
    "bfloat16": np.dtype("<u2"),
    "float32": np.dtype("<f4"),
}
_TENSORS: dict[Storage, torch.dtype] = {"float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True, slots=True)
class StorageChoice:
    """How the features of one cut and pooling are stored."""

    type: Storage
    why: str = ""
    """What made it another type than the one that was asked for."""
    rounded: bool = False
    """Whether float32 rows hold values of float16 wherever they fit: those of a cut of which a few
    rows turned out to be too large when others were stored already."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the array in the file, little endian; bfloat16's bits lie in uint16."""
        return _DTYPES[self.type]


def choose_storage(sample: Mapping[str, Values], asked: Storage) -> dict[str, StorageChoice]:
    """Return how each cut is stored: as asked, or in float32 where float16 would lose.

    Args:
        sample: By cut and pooling: (n, width) finite features of a few rows.
        asked: What the user asked for; bfloat16 and float32 are given as asked.
    """
    return {key: _choose(rows, asked) for key, rows in sample.items()}


def _choose(rows: Values, asked: Storage) -> StorageChoice:
    if asked != "float16" or not rows.size:
        return StorageChoice(asked)
    largest = float(np.abs(rows).max())
    if largest > LARGEST / MARGIN:
        return StorageChoice(
            "float32", f"values up to {largest:.3g} come near float16's end at 65,504"
        )
    lost, column = worst_loss(rows, "float16")
    if lost > LOST:
        return StorageChoice(
            "float32",
            f"float16's rounding would add {lost:.2g} of feature {column}'s variance over images",
        )
    return StorageChoice("float16")


def worst_loss(rows: Values, storage: Storage) -> tuple[float, int]:
    """Return the largest share that rounding adds to a feature's variance, and which feature's.

    A feature that does not vary over the rows has none to lose.

    Args:
        rows: (n, width) finite features.
        storage: The type that they would be rounded to.
    """
    exact = rows.astype(np.float64)
    error = np.square(decoded(encoded(rows, StorageChoice(storage)), storage) - exact).mean(0)
    variance = exact.var(0)
    # What float32's own rounding makes of a constant is no variance.
    varies = variance > np.square(np.abs(exact).max(0) * 4 * np.finfo(np.float32).eps)
    share = np.where(varies, error / np.where(varies, variance, 1), 0)
    worst = int(share.argmax())
    return float(share[worst]), worst


def encoded(rows: Values, stored: StorageChoice) -> npt.NDArray[Any]:
    """Return (n, width) rows as they are stored; what float16 cannot hold becomes infinite."""
    if stored.type == "float32" and stored.rounded:
        halves = decoded(encoded(rows, StorageChoice("float16")), "float16")
        too_large = np.any(np.isinf(halves) & np.isfinite(rows), axis=1, keepdims=True)
        return np.where(too_large, rows, halves)
    if stored.type == "float32":
        return np.ascontiguousarray(rows, stored.dtype)
    tensor = torch.from_numpy(np.ascontiguousarray(rows)).to(_TENSORS[stored.type])
    return tensor.view(torch.int16).numpy().view(stored.dtype)


def decoded(raw: npt.NDArray[Any], storage: Storage) -> Values:
    """Return the float32 values of stored rows of any shape."""
    if storage == "float32":
        return raw.astype(np.float32, copy=False)
    bits = torch.from_numpy(np.ascontiguousarray(raw).view(np.int16))
    return bits.view(_TENSORS[storage]).float().numpy()


def overflows(raw: npt.NDArray[Any], rows: Values, stored: StorageChoice) -> bool:
    """Return whether finite rows were too large for the type that they were encoded in."""
    if stored.type != "float16":
        return False
    # Bits first: asking NumPy about halves takes longer than writing them.
    largest = int((raw.view(np.uint16) & 0x7FFF).max(initial=0))
    return largest >= _INFINITE and bool((np.isinf(raw) & np.isfinite(rows)).any())


def widened() -> StorageChoice:
    """Return how a cut is stored once a row was too large for float16."""
    return StorageChoice("float32", "a row was too large for float16", rounded=True)
