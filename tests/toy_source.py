"""A small image source with tasks of every kind; also a plug-in, for tests in other processes."""

from pathlib import Path

import numpy as np
from PIL import Image

from layerscope.data.sources import sources
from layerscope.types import SPLITS, Source, Task

ROWS = 61
KIND = Task("toy-kind", "toy", "classes", "top-1", "maximise", classes=("a", "b", "c"))
HALF = Task("toy-half", "toy", "classes", "top-1", "maximise", classes=("even", "odd"))
POSE = Task("toy-pose", "toy", "latents", "mse", "minimise", encoding="raw")
HUE = Task("toy-hue", "toy", "latents", "mse", "minimise", encoding="circular", period=1.0)
CARD = """
family = "layerscope"
seed = {seed}
[architecture]
trunk = "resnet18"
width = 4
head = [8, 6]
output = 0
[preprocessing]
resize = 32
crop = 32
mean = [0.5, 0.5, 0.5]
std = [0.25, 0.25, 0.25]
"""
NETWORK = CARD.format(seed=1)


def toy_source(root: Path, allow_missing: bool = False) -> Source:
    index = np.arange(ROWS)
    return Source(
        name="various",
        ids=tuple(f"{i:02d}.png" for i in index),
        splits=np.array(SPLITS)[index % 3],
        groups=np.array([f"object{i // 2}" for i in index]),
        tasks=(KIND, HALF, POSE, HUE),
        targets={
            "toy-kind": index * 7 % 5 % 3,
            "toy-half": index % 2,
            "toy-pose": np.stack((index / 7, 100 - index / 3), 1),
            "toy-hue": (index[:, None] * 0.13) % 1,
        },
        manifest="m",
        annotations="a",
        root=root,
        task_splits={"toy-half": np.array([0, 1, 2, -1, 0], np.int8)[index % 5]},
    )


def write_place(folder: Path) -> Path:
    """Write the images and a network into a folder, and return it."""
    write_images(folder / "images")
    (folder / "net.toml").write_text(NETWORK)
    return folder


def write_images(root: Path) -> None:
    root.mkdir()
    draw = np.random.default_rng(0)
    for i in range(ROWS):
        pixels = draw.integers(0, 256, (32, 32 + i % 3, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"{i:02d}.png")


if __name__.startswith("layerscope.registry."):  # imported as a module, it must not leak into tests
    sources.add("various", toy_source)
