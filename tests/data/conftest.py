"""A rendered folder in miniature, as ``layerscope render`` lays it out."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

HEADER = "image,object,category,yaw,pitch,roll,floor_hue,spot_theta,spot_phi,spot_hue,split"
OBJECTS = {"mug-0": "mug", "cup-0": "cup", "cup-1": "cup"}
SPLITS = {"mug-0": "train", "cup-0": "val", "cup-1": "test"}
SIDE = 12


def lines(views: int = 4) -> list[dict[str, str]]:
    generator = np.random.default_rng(5)
    rows = []
    for name, category in OBJECTS.items():
        for view in range(views):
            angles = generator.uniform(-1.5, 1.5, 3)
            hues = generator.uniform(0, 1, 2)
            theta, phi = generator.uniform(0, (0.7, 6.2))
            values = (*angles, hues[0], theta, phi, hues[1])
            image = f"images/{name}/{view:03d}.jpg"
            cells = (image, name, category, *map(repr, map(float, values)), SPLITS[name])
            rows.append(dict(zip(HEADER.split(","), cells, strict=True)))
    return rows


def write_table(root: Path, rows: list[dict[str, str]], header: str = HEADER) -> None:
    with (root / "latents.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, header.split(","), extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture
def rows() -> list[dict[str, str]]:
    return lines()


@pytest.fixture
def table() -> Callable[..., None]:
    return write_table


@pytest.fixture
def folder(tmp_path: Path, rows: list[dict[str, str]]) -> Path:
    generator = np.random.default_rng(6)
    for row in rows:
        path = tmp_path / row["image"]
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path, quality=95)
    write_table(tmp_path, rows)
    (tmp_path / "dataset.json").write_text(json.dumps({"complete": True}))
    return tmp_path
