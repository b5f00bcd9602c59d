"""Two loaders over the same rows, and how far their images and features lie apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from layerscope.data import Loader, ReadRequest, frame_preprocessing
from layerscope.data.loaders import loaders
from layerscope.errors import SettingsError
from layerscope.extraction.capture import capturing
from layerscope.runtime.device import choose_device
from layerscope.types import CutModel, CutPoint, Source

BATCH = 16


@dataclass(frozen=True, slots=True)
class LoaderParity:
    """How far two loaders' images and features lie apart."""

    loader: str
    against: str
    images: int
    pixels: tuple[float, float]
    """Mean and largest difference of the prepared images, in grey levels of 255."""
    features: Mapping[str, tuple[float, float]]
    """By cut and pooling: norm of the difference over the norm, of all rows and of the worst."""

    def record(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {
            "loader": self.loader,
            "against": self.against,
            "images": self.images,
            "pixels": {"mean": self.pixels[0], "largest": self.pixels[1]},
            "features": {
                name: {"difference": whole, "largest_row": row}
                for name, (whole, row) in self.features.items()
            },
        }


def compare_loaders(
    model: CutModel,
    source: Source,
    other: Source,
    *,
    loader: str,
    against: str,
    images: int = 64,
    cuts: Sequence[CutPoint] | None = None,
    device: str = "auto",
) -> LoaderParity:
    """Return how far the features of two loaders lie apart on some rows.

    Args:
        model: A network with its cut points.
        source: What the first loader reads.
        other: What the second one reads: the same rows, perhaps from other files.
        loader: The loader in question.
        against: The loader that it is compared with.
        images: How many rows, evenly spaced.
        cuts: Some of the network's cut points; all by default.
        device: Where the network computes.

    Raises:
        SettingsError: The sources have different rows.
        SourceError: An image cannot be read.
    """
    if source.ids != other.ids:
        raise SettingsError(
            f"{str(source.root)!r} and {str(other.root)!r} hold different rows.",
            hint="Compare the same source, packed and as files.",
        )
    count = min(images, len(source.ids))
    rows = np.arange(count) * len(source.ids) // count
    chosen = tuple(model.cuts if cuts is None else cuts)
    target = choose_device(device)
    first, second = _loader(model, source, loader, rows), _loader(model, other, against, rows)
    std = torch.tensor(model.checkpoint.preprocessing.std, dtype=torch.float64)
    levels = 255 * std.view(1, -1, 1, 1)
    total, numbers, most = 0.0, 0, 0.0
    features = {cut.key: list[_Pair]() for cut in chosen}
    with (
        capturing(model, chosen, first, target) as capture,
        closing(iter(first)) as ours,
        closing(iter(second)) as theirs,
    ):
        for (_, one), (_, another) in zip(ours, theirs, strict=True):
            gap = (one.double() - another.double()).abs() * levels
            total, numbers = total + float(gap.sum()), numbers + gap.numel()
            most = max(most, float(gap.max()))
            valid = np.ones(len(one), np.bool_)
            seen, expected = capture.features(one, valid), capture.features(another, valid)
            for key, pairs in features.items():
                pairs.append((seen[key], expected[key]))
    return LoaderParity(
        loader=loader,
        against=against,
        images=count,
        pixels=(total / numbers, most),
        features={key: _difference(pairs) for key, pairs in features.items()},
    )


_Rows = npt.NDArray[np.float32]
_Pair = tuple[_Rows, _Rows]


def _loader(model: CutModel, source: Source, name: str, rows: npt.NDArray[np.int64]) -> Loader:
    preprocessing = frame_preprocessing(model.checkpoint.preprocessing, source.framing)
    return loaders[name](ReadRequest(source, preprocessing, BATCH, rows=rows))


def _difference(pairs: Sequence[_Pair]) -> tuple[float, float]:
    ours, theirs = map(np.concatenate, zip(*pairs, strict=True))
    gap = np.linalg.norm(ours.astype(np.float64) - theirs, axis=1)
    size = np.linalg.norm(theirs.astype(np.float64), axis=1)
    tiny = np.finfo(np.float64).tiny
    whole = float(np.linalg.norm(gap) / max(float(np.linalg.norm(size)), tiny))
    return whole, float((gap / np.maximum(size, tiny)).max())
