"""Do the loaders deliver faster than what peers write, and how near are they to decoding alone?

    python benchmarks/loaders.py [--images 5000] [--workers 2] [--rounds 5]

The same JPEGs of about 500 × 375 pixels, crops of scikit-learn's two photographs, are read to
normalised float32 batches of 64 images of 224 pixels by

- a plain torch ``DataLoader``: Pillow, torchvision's Resize(256), CenterCrop(224), ToTensor and
  Normalize, as published evaluation code has it (the peer);
- the default loader, whose pixels are the peer's to the byte;
- FFCV, where it is installed, and the default loader once more, from a file that was packed with
  the shorter side at 256 pixels;
- FFCV from a file with the original JPEGs.

Beside each stands its ceiling: as many threads that decode what that loader decodes and do nothing
else, with libjpeg-turbo (through simplejpeg; for FFCV through its own call of it). All take turns,
round by round; figures are medians over the rounds, and ratios medians of the ratios of a round.
"""

from __future__ import annotations

import argparse
import io
import platform
import statistics
import tempfile
import threading
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import simplejpeg
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from torchvision import transforms
from torchvision.datasets.folder import pil_loader

from layerscope.data import ReadRequest, open_source
from layerscope.data.betons import open_packed, pack
from layerscope.data.images import images_of
from layerscope.data.loaders import loaders
from layerscope.errors import SettingsError
from layerscope.types import Preprocessing

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
IMAGENET = Preprocessing(256, 224, MEAN, STD)
BATCH = 64
QUALITY = 90
PEER = "peer: DataLoader, Pillow, torchvision"


def write_images(root, count):
    """Write two classes of crops, scaled and shifted, and return their mean size in bytes."""
    photos = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    rng = np.random.default_rng(0)
    total = 0
    for number in range(count):
        photo = photos[number % 2]
        width, height = (int(side * rng.uniform(0.9, 1.1)) for side in (500, 375))
        scale = rng.uniform(0.75, 1.0)
        part = min(int(width * scale), photo.width), min(int(height * scale), photo.height)
        left = int(rng.integers(0, photo.width - part[0] + 1))
        top = int(rng.integers(0, photo.height - part[1] + 1))
        image = photo.crop((left, top, left + part[0], top + part[1]))
        file = io.BytesIO()
        image.resize((width, height), Image.Resampling.BICUBIC).save(file, "JPEG", quality=QUALITY)
        path = root / "ab"[number % 2] / f"{number:05}.jpg"
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_bytes(file.getvalue())
        total += file.tell()
    return total / count


class Plain(torch.utils.data.Dataset):
    """What peers write."""

    transform = transforms.Compose(
        [
            transforms.Resize(256),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )

    def __init__(self, source):
        self.paths = [str(source.root / name) for name in source.ids]

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, row):
        return self.transform(pil_loader(self.paths[row]))


def peer(source, workers):
    for _ in torch.utils.data.DataLoader(Plain(source), BATCH, num_workers=workers):
        pass


class Ours:
    """A loader, made once: FFCV's reads the file's tables when it is made."""

    def __init__(self, name):
        self.name = name
        self.made = None

    def __call__(self, source, workers):
        if self.made is None:
            self.made = loaders[self.name](ReadRequest(source, IMAGENET, BATCH, workers=workers))
        for _ in self.made:
            pass


def in_threads(job, count, workers):
    threads = [
        threading.Thread(target=lambda part: [job(row) for row in part], args=(rows,))
        for rows in (range(k, count, workers) for k in range(workers))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def exact(source, workers):
    """The ceiling of the default loader."""
    images = images_of(source)
    in_threads(lambda row: simplejpeg.decode_jpeg(images.read(row)), len(source.ids), workers)


def fast(source, workers):
    """The ceiling of FFCV."""
    from ffcv.libffcv import ctypes_imdecode

    images = images_of(source)

    def decode(row):
        data = np.frombuffer(images.read(row), np.uint8)
        height, width, _, _ = simplejpeg.decode_jpeg_header(data)
        out = np.empty(3 * height * width, np.uint8)
        size = (height, width)
        place = (data.ctypes.data, data.size, *size, out.ctypes.data)
        assert ctypes_imdecode(*place, *size, 0, 0, 1, 1, False, False) == 0

    in_threads(decode, len(source.ids), workers)


def contestants(folder, source):
    """Yield a name, what runs, on what, and the name of its ceiling."""
    yield PEER, peer, source, "decoding the files alone"
    yield "default loader", Ours("threads"), source, "decoding the files alone"
    yield "decoding the files alone", exact, source, None
    packed = {}
    for name, side in (("256", 256), ("whole", None)):
        path = folder / f"{name}.beton"
        pack(source, path, side=side)
        packed[name] = open_packed(source.name, path)
    yield "default loader, packed at 256", Ours("threads"), packed["256"], "decoding those alone"
    yield "decoding those alone", exact, packed["256"], None
    try:
        loaders["ffcv"](ReadRequest(packed["256"], IMAGENET, BATCH))
    except SettingsError as error:
        print(f"Without FFCV: {error}")
        return
    yield "FFCV, packed at 256", Ours("ffcv"), packed["256"], "FFCV decoding those alone"
    yield "FFCV decoding those alone", fast, packed["256"], None
    yield "FFCV, packed as they are", Ours("ffcv"), packed["whole"], "FFCV decoding the files alone"
    yield "FFCV decoding the files alone", fast, packed["whole"], None


def seconds(run, *arguments):
    start = time.perf_counter()
    run(*arguments)
    return time.perf_counter() - start


def report(runs, times, options):
    for name, _, _, ceiling in runs:
        rate = options.images / statistics.median(times[name])
        line = f"{name}: {rate:.0f} images/s, {rate / options.workers:.0f} per worker"
        if ceiling:
            shares = [
                [a / b for a, b in zip(times[other], times[name], strict=True)]
                for other in (PEER, ceiling)
            ]
            gain, share = map(statistics.median, shares)
            line += f"; {gain:.2f} times the peer, {share:.2f} of its ceiling"
        print(line)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    names = ("torch", "torchvision", "pillow", "simplejpeg", "numba")
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    print(f"{platform.machine()}, {options.workers} workers, {versions}")
    with tempfile.TemporaryDirectory() as folder:
        size = write_images(Path(folder) / "images", options.images)
        print(f"{options.images} JPEGs of quality {QUALITY}, {size / 1e3:.0f} kB on average")
        source = open_source("folder", Path(folder) / "images")
        runs = list(contestants(Path(folder), source))
        for _, run, what, _ in runs:  # compiles, claims memory, fills the page cache
            run(what, options.workers)
        times = {name: [] for name, *_ in runs}
        for number in range(options.rounds):
            for place in range(len(runs)):
                name, run, what, _ = runs[(place + number) % len(runs)]
                times[name].append(seconds(run, what, options.workers))
        report(runs, times, options)


if __name__ == "__main__":
    main()
