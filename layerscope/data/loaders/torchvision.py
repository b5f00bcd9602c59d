"""The reference loader: torch's ``DataLoader``, Pillow and torchvision, as published code has it.

Here to compare with (``layerscope check preprocessing``), not to be fast: it shares nothing with
the others but the files. Its resampling is that of the installed Pillow.
"""

from __future__ import annotations

import io
from collections.abc import Generator
from importlib.metadata import version
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate
from torchvision.transforms import v2

from layerscope.data.images import images_of
from layerscope.data.loaders.loader import BadImage, ReadRequest, Rows, loaders, other_size
from layerscope.data.transforms import Preparation
from layerscope.errors import SourceError
from layerscope.types import Preprocessing

_Item = tuple[Tensor | None, str]
"""An image, or None and what is wrong with it."""


class _ImageDataset(Dataset[_Item]):
    """Images as (3, h, w) bytes: what crosses to the main process is never larger."""

    def __init__(self, request: ReadRequest) -> None:
        self._images = images_of(request.source)
        self._transform = _transform(request.preprocessing)

    def __getitem__(self, row: int) -> _Item:
        place = self._images.place(row)
        try:
            data = self._images.read(row)
            if isinstance(data, np.ndarray):
                return self._transform(Image.fromarray(data)), ""
            with Image.open(io.BytesIO(data)) as image:
                return self._transform(image.convert("RGB")), ""
        except SourceError as error:
            return None, error.message
        except Exception as error:  # noqa: BLE001  a worker's exception would reach nobody
            return None, f"The image {place!r} cannot be read: {error}."


def _transform(preprocessing: Preprocessing) -> v2.Transform:
    steps: list[v2.Transform] = []
    if preprocessing.resize is not None:
        size = preprocessing.resize
        interpolation = v2.InterpolationMode(preprocessing.interpolation)
        steps.append(v2.Resize(size if isinstance(size, int) else list(size), interpolation))
    if preprocessing.crop is not None:
        steps.append(v2.CenterCrop(preprocessing.crop))
    return v2.Compose([*steps, v2.PILToTensor()])


class _OddSize(NamedTuple):
    """An image that does not fit into its batch."""

    place: int
    size: tuple[int, ...]
    expected: tuple[int, ...]


def _collate(items: list[_Item]) -> tuple[Tensor, list[str]] | _OddSize:
    """Return (b, 3, h, w) bytes in shared memory, and what is wrong with each."""
    shape = next((image.shape for image, _ in items if image is not None), torch.Size((3, 0, 0)))
    blank = torch.zeros(shape, dtype=torch.uint8)
    images = [blank if image is None else image for image, _ in items]
    odd = [place for place, image in enumerate(images) if image.shape != shape]
    if odd:
        return _OddSize(odd[0], tuple(images[odd[0]].shape[1:]), tuple(shape[1:]))
    stacked: Tensor = default_collate(images)
    return stacked, [reason for _, reason in items]


@loaders.register("torchvision")
class TorchvisionLoader:
    """Worker processes with Pillow and torchvision's transforms: slow, and what everybody has."""

    decoder = f"Pillow {version('pillow')}, torchvision"

    def __init__(self, request: ReadRequest) -> None:
        self.request = request
        self.bad: list[BadImage] = []
        self._preparation = Preparation(request.preprocessing)

    def __iter__(self) -> Generator[tuple[Rows, Tensor], None, None]:
        self.bad = []
        blocks = list(self.request.blocks())
        batches = DataLoader(
            _ImageDataset(self.request),
            batch_sampler=[block.tolist() for block in blocks],
            num_workers=self.request.worker_count,
            collate_fn=_collate,
        )
        for rows, batch in zip(blocks, batches, strict=True):
            if isinstance(batch, _OddSize):
                raise other_size(self.request.source.ids[rows[batch.place]], *batch[1:])
            images, reasons = batch
            self._note_bad(rows, reasons)
            last = images.contiguous(memory_format=torch.channels_last)
            yield rows, self._preparation.normalised(last) if self.request.normalised else last

    def _note_bad(self, rows: Rows, reasons: list[str]) -> None:
        for row, reason in zip(rows.tolist(), reasons, strict=True):
            if reason and not self.request.skip_bad:
                raise SourceError(reason, hint="Restore the file, or use --skip-bad-images.")
            if reason:
                self.bad.append(BadImage(row, self.request.source.ids[row], reason))
