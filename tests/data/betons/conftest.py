"""A source of every kind of image file, and ``.beton`` files as FFCV's writer lays them out."""

import io
import struct

import numpy as np
import pytest
from PIL import Image

from layerscope.data.assembly import assemble
from layerscope.types import Task

TASK = Task("kinds", "kinds", "classes", "top-1", "maximise", classes=("even", "odd"))


def picture(row, height=30, width=40, mode="RGB"):
    """A smooth picture of its own for every row, so that JPEG does little to it."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin((row + 3 * c + 5) * (x / width + (c + 1) * y / height)) for c in range(3)]
    pixels = (np.stack(waves, axis=2) * 100 + 128).astype(np.uint8)
    return Image.fromarray(pixels).convert(mode)


def file_of(image, kind="JPEG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


KINDS = {
    "colour.jpg": lambda: file_of(picture(0), quality=90),
    "fine.jpg": lambda: file_of(picture(1, 33, 21), quality=97, subsampling=0),
    "grey.jpg": lambda: file_of(picture(2, mode="L"), quality=90),
    "progressive.jpg": lambda: file_of(picture(3, 50, 50), quality=90, progressive=True),
    "cmyk.jpg": lambda: file_of(picture(4, mode="CMYK"), quality=90),
    "picture.png": lambda: file_of(picture(5), "PNG"),
    "palette.png": lambda: file_of(picture(6, mode="P"), "PNG"),
    "dot.jpg": lambda: file_of(picture(7, 1, 1), quality=90),
    "dot.png": lambda: file_of(picture(8, 1, 1), "PNG"),
    "line.jpg": lambda: file_of(picture(9, 1, 37), quality=90),
    "large.jpg": lambda: file_of(picture(10, 120, 160), quality=90),
    "large.png": lambda: file_of(picture(11, 160, 120), "PNG"),
}


@pytest.fixture
def make_source(tmp_path):
    """Return ``make(files, **more)``, the source of a folder with files by their names."""

    def make(files, folder="images", **more):
        root = tmp_path / folder
        root.mkdir(exist_ok=True)
        for name, contents in files.items():
            (root / name).write_bytes(contents)
        count = len(files)
        splits = np.array(["train", "val", "test"])[np.arange(count) % 3]
        return assemble("kinds", root, list(files), splits, {TASK: np.arange(count) % 2}, **more)

    return make


@pytest.fixture
def source(make_source):
    return make_source({name: make() for name, make in KINDS.items()})


def header(fields, samples, page, allocations_at):
    return struct.pack("<HHIQQ", 2, len(fields), page, samples, allocations_at)


def descriptors(fields):
    return b"".join(struct.pack("<B16s1024x", kind, name.encode()[:16]) for kind, name in fields)


def order_of(pack):
    """In which order an entry has its mode, width, height, pointer and further values."""
    return getattr(pack, "order", lambda *values: values)


@pytest.fixture
def foreign():
    """Return ``write(path, samples, …)``: FFCV's layout once more, by other code.

    Pages are filled as two of FFCV's workers would: the second half of the samples lies first.
    """

    def write(path, samples, fields=((2, "image"), (1, "label")), pack="<BHHQ3xq", page=1 << 21):
        count, entry = len(samples), struct.Struct(pack)
        start = 24 + len(fields) * 1041 + count * entry.size
        at = -(-start // page) * page
        places, blocks = {}, {}
        order = [*range(count // 2, count), *range(count // 2)]
        for row in order:
            data = samples[row][0]
            if at % page + len(data) > page:
                at = -(-at // page) * page
            places[row], blocks[at] = at, data
            at += len(data)
        with path.open("wb") as file:
            file.write(header(fields, count, page, at) + descriptors(fields))
            for row, (_, mode, height, width, *values) in enumerate(samples):
                file.write(entry.pack(*order_of(pack)(mode, width, height, places[row], *values)))
            for place, data in blocks.items():
                file.seek(place)
                file.write(data)
            file.seek(at)
            for row in order:
                file.write(struct.pack("<QQQ", row, places[row], len(samples[row][0])))
        return path

    return write


@pytest.fixture
def samples():
    """Return ``make(count)``: bytes, mode, height, width and label of pictures, every third raw."""

    def make(count, classes=3):
        made = []
        for row in range(count):
            height, width = 20 + row % 7, 30 - row % 5
            image = picture(row, height, width)
            raw = row % 3 == 2
            data = np.asarray(image).tobytes() if raw else file_of(image, quality=90)
            made.append((data, int(raw), height, width, row % classes))
        return made

    return make
