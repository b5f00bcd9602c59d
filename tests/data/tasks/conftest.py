"""Small sets in their official layouts."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from layerscope.data import ReadRequest, image_transform
from layerscope.data.loaders import loaders
from layerscope.types import Preprocessing

JPEG = {"quality": 70}


def wnids(count: int = 1000) -> list[str]:
    """Names like ImageNet's, neither dense nor in the order of their making."""
    return [f"n{1_440_764 + 7919 * place:08d}" for place in range(count)]


def write_image(path: Path, number: int, size: tuple[int, int] = (10, 8)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (number % 256, number // 256 % 256, 90)).save(path, **JPEG)


def write_imagenet(root: Path, per_class: tuple[int, int] = (2, 1)) -> None:
    """train/ and val/ of 1,000 classes, written in no particular order."""
    number = 0
    for wnid in np.random.default_rng(0).permutation(wnids()).tolist():
        for k in range(per_class[0]):
            write_image(root / "train" / wnid / f"{wnid}_{10 * k + 3}.JPEG", number)
            number += 1
        for _ in range(per_class[1]):
            write_image(root / "val" / wnid / f"ILSVRC2012_val_{number:08d}.JPEG", number)
            number += 1


@pytest.fixture(scope="session")
def imagenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For reading only."""
    root = tmp_path_factory.mktemp("imagenet")
    write_imagenet(root)
    return root


PLAIN = Preprocessing(None, None, (0.0,) * 3, (1.0,) * 3)
"""Leaves images as they are."""


def require_pixels(kind, source, pictures):
    """Let a loader read a whole source, and compare with what each image shows."""
    batches = loaders[kind](ReadRequest(source, PLAIN, 5, workers=2))
    images = [image for _, batch in batches for image in batch]
    assert len(images) == len(pictures) == 12
    for image, picture in zip(images, pictures, strict=True):
        assert image.equal(image_transform(PLAIN)(np.asarray(picture)))


def require_reading_in_threads(images, count):
    """Read in several threads and in any order, and compare with one after the other."""
    alone = [images.read(row) for row in range(count)]
    rows = np.random.default_rng(0).integers(0, count, 4000)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(images.read, rows.tolist()))
    assert found == [alone[row] for row in rows]
