"""Similarities between layers, kept in a results folder: ``cka/<checkpoint>.json``, or of two."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from layerscope.results.durable_files import damage_explained, replace_json
from layerscope.types import CutPoint, Split

FOLDER = "cka"


@dataclass(frozen=True, slots=True)
class LayerCka:
    """Linear CKA between the cuts of two checkpoints, or of one with itself."""

    checkpoints: tuple[str, str]
    """Of the rows and of the columns."""
    cuts: tuple[tuple[CutPoint, ...], tuple[CutPoint, ...]]
    biased: npt.NDArray[np.float64]
    """(r, c) in [0, 1]; NaN where a cut does not vary."""
    unbiased: npt.NDArray[np.float64]
    """(r, c) about 0, and perhaps below it, for unrelated cuts."""
    images: int
    split: Split
    source: str
    convention: str

    @property
    def name(self) -> str:
        """Name of its files: the checkpoint, or both."""
        return "-".join(dict.fromkeys(self.checkpoints)).replace("/", "-")

    def record(self) -> dict[str, Any]:
        """Return it for JSON: a number that is not defined is null."""
        return {
            "convention": self.convention,
            "source": self.source,
            "split": self.split,
            "images": self.images,
            "checkpoints": list(self.checkpoints),
            "cuts": [[cut.key for cut in cuts] for cuts in self.cuts],
            "unbiased": _plain(self.unbiased),
            "biased": _plain(self.biased),
        }


def keep_similarity(folder: Path, found: LayerCka) -> None:
    """Keep similarities in a results folder, in place of earlier ones of the same checkpoints.

    Raises:
        DiskError: The disk is full; what was there before is unharmed.
    """
    record = found.record() | {"cuts": [[asdict(cut) for cut in cuts] for cuts in found.cuts]}
    replace_json(folder / FOLDER / f"{found.name}.json", record)


def similarities(folder: Path) -> list[LayerCka]:
    """Return the similarities that a results folder holds, sorted by file.

    Raises:
        LayerScopeError: A file is damaged.
    """
    return [_read(path) for path in sorted((folder / FOLDER).glob("*.json"))]


def _read(path: Path) -> LayerCka:
    problem = f"{str(path)!r} holds no similarities of layers."
    with damage_explained(problem, "Delete the file and repeat layerscope cka with -o."):
        record = json.loads(path.read_text(encoding="utf-8"))
        rows, columns = (tuple(CutPoint(**cut) for cut in cuts) for cuts in record.pop("cuts"))
        one, other = record.pop("checkpoints")
        # NumPy reads null as not a number.
        biased, unbiased = (np.array(record.pop(kind), float) for kind in ("biased", "unbiased"))
        return LayerCka((one, other), (rows, columns), biased, unbiased, **record)


def _plain(values: npt.NDArray[np.float64]) -> list[list[float | None]]:
    return [[None if np.isnan(one) else float(one) for one in row] for row in values]
