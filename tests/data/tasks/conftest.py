"""Small sets in their official layouts."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

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
