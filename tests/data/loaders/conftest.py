"""Sources that loaders are compared on, packed, and what FFCV itself has written."""

import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

from layerscope.data.assembly import assemble
from layerscope.data.betons import layout, open_beton, pack
from layerscope.data.betons.writer import BetonWriter, EncodedImage
from layerscope.types import Task

TASK = Task("photos", "photos", "classes", "top-1", "maximise", classes=("a", "b"))


def jpeg(pixels, **options):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", **{"quality": 90} | options)
    return buffer.getvalue()


def photographs(count):
    """Pieces of two photographs, of many shapes, as JPEG; every fifth is a PNG."""
    generator, images = np.random.default_rng(0), load_sample_images().images
    files = {}
    for row in range(count):
        image = images[row % 2]
        height, width = generator.integers(60, 200, 2)
        top, left = (generator.integers(0, n) for n in np.array(image.shape[:2]) - (height, width))
        piece = np.ascontiguousarray(image[top : top + height, left : left + width])
        if row % 5:
            files[f"{row:03d}.jpg"] = jpeg(piece)
        else:
            buffer = io.BytesIO()
            Image.fromarray(piece).save(buffer, "PNG")
            files[f"{row:03d}.png"] = buffer.getvalue()
    return files


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """A source of 41 photographs."""
    root = tmp_path_factory.mktemp("photos")
    files = photographs(41)
    for name, contents in files.items():
        (root / name).write_bytes(contents)
    places = np.arange(41)
    splits = np.array(["train", "val", "test"])[places % 3]
    return assemble("photos", root, list(files), splits, {TASK: places % 2})


@pytest.fixture(scope="session")
def packed(photos, tmp_path_factory):
    """The photographs as they are."""
    return open_beton(pack(photos, tmp_path_factory.mktemp("packed") / "photos.beton").path)


@pytest.fixture(scope="session")
def raw(photos, tmp_path_factory):
    """The photographs as pixels."""
    path = tmp_path_factory.mktemp("raw") / "photos.beton"
    return open_beton(pack(photos, path, mode="raw").path)


class Drawn:
    """Small JPEG files that a function draws when they are read."""

    def __init__(self, draw, rows):
        self._draw, self._rows = draw, rows

    def read(self, row):
        return jpeg(self._draw(int(self._rows[row])))

    def place(self, row):
        return f"image {self._rows[row]}"

    def select(self, rows):
        return Drawn(self._draw, self._rows[rows])


def digits_of(row):
    """Five grey squares, a digit of the row's number each."""
    pixels = np.full((40, 48, 3), 128, np.uint8)
    for place, digit in enumerate(f"{row:05d}"):
        pixels[8:32, 4 + 8 * place : 12 + 8 * place] = 20 + 24 * int(digit)
    return pixels


def grating_of(row):
    """Stripes of one of ten directions, hardly to be seen for noise."""
    generator = np.random.default_rng(row)
    y, x = np.mgrid[:40, :48]
    angle, phase = (row % 10) * np.pi / 10, generator.uniform(-1, 1)
    stripes = np.sin((x * np.cos(angle) + y * np.sin(angle)) / 3 + phase)
    pixels = 128 + 4 * stripes[:, :, None] + generator.normal(0, 40, (40, 48, 3))
    return pixels.clip(0, 255).astype(np.uint8)


def drawn(draw, root):
    """5,000 drawn images, packed."""
    rows = np.arange(5000)
    splits = np.array(["train", "val", "test"])[rows % 3]
    names = [str(row) for row in rows]
    source = assemble("drawn", root, names, splits, {TASK: rows % 2}, images=Drawn(draw, rows))
    return open_beton(pack(source, root / "drawn.beton").path)


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    """5,000 images that show which row they are."""
    return drawn(digits_of, tmp_path_factory.mktemp("digits"))


@pytest.fixture(scope="session")
def gratings(tmp_path_factory):
    """5,000 images of ten classes."""
    return drawn(grating_of, tmp_path_factory.mktemp("gratings"))


BOTH_WAYS = """
import os
import sys
import numpy as np
from ffcv.fields import IntField, JSONField, RGBImageField
from ffcv.loader import Loader
from ffcv.writer import DatasetWriter

class Pictures:
    def __init__(self, first, count):
        self.first, self.count = first, count
    def __len__(self):
        return self.count
    def __getitem__(self, place):
        row = self.first + int(place)
        y, x = np.mgrid[:40 + row % 5, :50 - row % 3]
        waves = [np.sin((row % 11 + 2 * c + 3) * (x + (c + 1) * y) / 60) for c in range(3)]
        pixels = (np.stack(waves, axis=2) * 100 + 128).astype(np.uint8)
        return pixels, {"row": row}, row % 4

class OwnField(RGBImageField):
    pass

if __name__ == "__main__":
    root = sys.argv[1]
    fields = {"image": RGBImageField("proportion"), "text": JSONField(), "label": IntField()}
    own = {"picture": OwnField("jpg"), "text": JSONField(), "label": IntField()}
    for path, these, first, count in (
        ("train.beton", fields, 0, 90), ("val.beton", fields, 90, 31), ("own.beton", own, 0, 90)
    ):
        writer = DatasetWriter(f"{root}/{path}", these, 1 << 21, num_workers=2)
        writer.from_indexed_dataset(Pictures(first, count), chunksize=10)
    # Asked for more threads than there are processors, FFCV's reader waits for ever.
    workers = min(2, len(os.sched_getaffinity(0)))
    for name, cache in (("system", True), ("pages", False)):
        loader = Loader(f"{root}/ours.beton", 6, workers, os_cache=cache, drop_last=False)
        images, index = zip(*((images.numpy().copy(), n.numpy().copy()) for images, n in loader))
        np.savez(f"{root}/{name}.npz", images=np.concatenate(images), index=np.concatenate(index))
"""


@pytest.fixture(scope="session")
def pixels():
    """20 images of noise, which fill three pages of 2 MiB."""
    return np.random.default_rng(3).integers(0, 256, (20, 300, 301, 3), dtype=np.uint8)


@pytest.fixture(scope="session")
def written(ffcv, pixels, tmp_path_factory):
    """A folder in which FFCV, left to itself, has written files and read one of ours.

    It is another process: FFCV's writer forks, and what it compiles complains at the end.
    """
    root = tmp_path_factory.mktemp("written")
    with BetonWriter(root / "ours.beton", len(pixels), page_size=1 << 21) as writer:
        for image in pixels:
            writer.add(EncodedImage(layout.RAW, 301, 300, image))
        writer.complete()
    script = root / "both_ways.py"
    script.write_text(BOTH_WAYS)
    subprocess.run([sys.executable, script, root], check=True, capture_output=True, timeout=900)
    return root
