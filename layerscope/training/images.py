"""Training images in memory, and the augmented views that the workers make of them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from layerscope.data import read_image
from layerscope.errors import TrainingError
from layerscope.training.methods import Method
from layerscope.types import Source, Split


def decode(source: Source, split: Split, task: str) -> tuple[Tensor, Tensor]:
    """Return a split's images and a task's targets.

    Args:
        source: Its images are files of one size.
        split: Which rows.
        task: Whose targets; empty for none.

    Returns:
        (n, 3, h, w) uint8 images, and (n,) int64 classes or (n, k) float32 latents; (n, 0) where
        there is no task.

    Raises:
        TrainingError: The source has no such task, the split is empty or image sizes differ.
    """
    rows = np.flatnonzero(source.splits == split)
    if (task and task not in source.targets) or not len(rows):
        raise TrainingError(
            f"The source {source.name!r} has {len(rows)} {split} images and these tasks: "
            f"{', '.join(source.targets) or 'none'}.",
            hint="Train on a rendered set (layerscope render)"
            + (f", which has {task}." if task else "."),
        )

    def read(row: int) -> Tensor:
        return torch.from_numpy(read_image(source.root / source.ids[row])).permute(2, 0, 1)

    with ThreadPoolExecutor(max_workers=4) as pool:
        images = list(pool.map(read, rows))
    shapes = {tuple(image.shape) for image in images}
    if len(shapes) > 1:
        raise TrainingError(
            f"The images have {len(shapes)} different sizes, such as {sorted(shapes)[:2]}.",
            hint="Train on images of one size.",
        )
    targets = torch.from_numpy(source.targets[task][rows]) if task else torch.zeros(len(rows), 0)
    return torch.stack(images), targets.float() if targets.is_floating_point() else targets


class AugmentedImages(Dataset[tuple[tuple[Tensor, ...], Tensor]]):
    """The inputs of a method: they depend on the seed, the epoch and the row alone.

    Args:
        images: (n, 3, h, w) uint8.
        targets: (n, …) what the method is trained with.
        method: Makes the views.
        side: Of the views in pixels.
        seed: Of the augmentations.
    """

    def __init__(
        self, images: Tensor, targets: Tensor, method: Method, *, side: int, seed: int
    ) -> None:
        self._images, self._targets, self._method = images, targets, method
        self._side, self._seed = side, seed

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, key: tuple[int, int]) -> tuple[tuple[Tensor, ...], Tensor]:
        """Return the views and the target of ``(epoch, row)``."""
        epoch, row = key
        mixed = np.random.SeedSequence((self._seed, epoch, row)).generate_state(1)[0]
        torch.manual_seed(int(mixed))
        return self._method.inputs(self._images[row], self._side), self._targets[row]
