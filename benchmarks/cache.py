"""How fast is the cache written and read, against raw files of the same arrays?

    python benchmarks/cache.py [--rows 40000] [--rounds 7] [--folder DIR] [--checksums]

Twelve layers of 1,024 features, handed over as float32 in batches of 256 rows and kept as float16.
All three writers convert with torch, and end with everything on the disk. The cache has checksums,
states of rows and a lock as well. Medians of the rounds, in which the three take turns.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
import time
import zlib
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from layerscope.cache import CacheWriter, Header, ingredients, open_cache
from layerscope.cache.checksum import checksums
from layerscope.types import Checkpoint, CutPoint, Preprocessing, Source

LAYERS, WIDTH, BATCH, SHARD = 12, 1024, 256, 16
CUTS = tuple(
    CutPoint(i, f"layer{i}", f"layer{i}", "trunk", WIDTH, "mean", i / (LAYERS - 1))
    for i in range(LAYERS)
)
RANDOM = 4096


def header(rows):
    preprocessing = Preprocessing(None, None, (0.5,) * 3, (0.5,) * 3)
    card = Checkpoint("net", "none", {}, None, "a" * 64, preprocessing, "", "", "")
    source = Source(
        name="rows",
        ids=tuple(f"{i:08d}" for i in range(rows)),
        splits=np.full(rows, "train"),
        groups=np.array([f"{i:08d}" for i in range(rows)]),
        tasks=(),
        targets={},
        manifest="m",
        annotations="a",
        root=Path(),
    )
    parts = ingredients(card, CUTS, source, preprocessing, decoder="none", precision="float32")
    return Header(card, CUTS, source, parts, {})


def batches(rows):
    draw = np.random.default_rng(0)
    blocks = [
        {cut.key: draw.standard_normal((BATCH, WIDTH), np.float32) for cut in CUTS}
        for _ in range(4)
    ]
    for number, start in enumerate(range(0, rows, BATCH)):
        count = min(BATCH, rows - start)
        yield np.arange(start, start + count), {k: v[:count] for k, v in blocks[number % 4].items()}


def half(values):
    return torch.from_numpy(values).half().numpy()


def sync(path):
    handle = os.open(path, os.O_RDWR)
    os.fsync(handle)
    os.close(handle)


def write_cache(folder, rows):
    with CacheWriter(folder / "net@rows.h5", header(rows)) as writer:
        for places, features in batches(rows):
            writer.write(places, features, np.ones(len(places), bool))
        writer.finish()


def write_memmap(folder, rows):
    maps = [
        np.memmap(folder / f"{cut.name}.bin", np.float16, "w+", shape=(rows, WIDTH)) for cut in CUTS
    ]
    for places, features in batches(rows):
        for cut, values in zip(CUTS, maps, strict=True):
            values[places[0] : places[-1] + 1] = half(features[cut.key])
    for cut, values in zip(CUTS, maps, strict=True):
        values.flush()
        sync(folder / f"{cut.name}.bin")


def write_safetensors(folder, rows):
    waiting, number = [], 0

    def flush():
        nonlocal number
        whole = {
            cut.key: torch.cat([torch.from_numpy(part[cut.key]) for part in waiting]).half()
            for cut in CUTS
        }
        path = folder / f"{number:05d}.safetensors"
        save_file(whole, path)
        sync(path)
        number += 1
        waiting.clear()

    for _, features in batches(rows):
        waiting.append(features)
        if len(waiting) == SHARD:
            flush()
    if waiting:
        flush()


def forget(folder):
    """Have the system drop what it remembers of the files, so that the disk is read."""
    for path in folder.rglob("*"):
        if path.is_file():
            handle = os.open(path, os.O_RDONLY)
            os.fsync(handle)
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(handle)


def scan_cache(folder, rows, verify=True):
    with open_cache(folder / "net@rows.h5", verify=verify) as cache:
        for cut in CUTS:
            cache[cut.key].take(np.arange(rows), np.float16)


def scan_memmap(folder, rows):
    for cut in CUTS:
        np.array(np.memmap(folder / f"{cut.name}.bin", np.float16, "r", shape=(rows, WIDTH)))


def scan_safetensors(folder, rows):
    files = [safe_open(path, "pt") for path in sorted(folder.glob("*.safetensors"))]
    for cut in CUTS:
        torch.cat([file.get_tensor(cut.key) for file in files])


def pick_cache(folder, rows, verify=True):
    draw = np.random.default_rng(1)
    with open_cache(folder / "net@rows.h5", verify=verify) as cache:
        features = cache[CUTS[5].key]
        for _ in range(8):
            features[draw.integers(0, rows, RANDOM)].sum()


def pick_memmap(folder, rows):
    draw = np.random.default_rng(1)
    values = np.memmap(folder / f"{CUTS[5].name}.bin", np.float16, "r", shape=(rows, WIDTH))
    for _ in range(8):
        torch.from_numpy(values[draw.integers(0, rows, RANDOM)]).float().numpy().sum()


def seconds(job, *given, **named):
    begin = time.perf_counter()
    job(*given, **named)
    return time.perf_counter() - begin


def tell(what, times, size):
    told = {name: statistics.median(seconds) for name, seconds in times.items()}
    best = min(told["numpy.memmap"], told["safetensors"])
    for name, taken in told.items():
        rate, share = size / taken / 1e6, best / taken
        print(f"{what:10} {name:16} {rate:7.0f} MB/s  {share:.2f} of the faster")


WRITERS = {
    "cache": write_cache,
    "numpy.memmap": write_memmap,
    "safetensors": write_safetensors,
}
READERS = {
    "cache": (scan_cache, "cache", {"verify": False}),
    "cache, verified": (scan_cache, "cache", {"verify": True}),
    "numpy.memmap": (scan_memmap, "numpy.memmap", {}),
    "safetensors": (scan_safetensors, "safetensors", {}),
}
PICKERS = {
    "cache": (pick_cache, "cache", {"verify": False}),
    "cache, verified": (pick_cache, "cache", {"verify": True}),
    "numpy.memmap": (pick_memmap, "numpy.memmap", {}),
}


def measure_writing(folders, asked, size):
    times = {name: [] for name in WRITERS}
    for _ in range(asked.rounds):
        for name, write in WRITERS.items():
            shutil.rmtree(folders[name], ignore_errors=True)
            folders[name].mkdir()
            times[name].append(seconds(write, folders[name], asked.rows))
    tell("write", times, size)


def measure_reading(folders, asked, size, cold):
    times = {name: [] for name in READERS}
    for _ in range(asked.rounds):
        for name, (read, of, named) in READERS.items():
            if cold:
                forget(folders[of])
            else:
                read(folders[of], asked.rows, **named)
            times[name].append(seconds(read, folders[of], asked.rows, **named))
    tell(f"read {'cold' if cold else 'hot'}", times, size)


def measure_picking(folders, asked):
    times = {name: [] for name in PICKERS}
    for _ in range(asked.rounds):
        for name, (pick, of, named) in PICKERS.items():
            times[name].append(seconds(pick, folders[of], asked.rows, **named))
    for name, taken in times.items():
        rate = 8 * RANDOM / statistics.median(taken)
        print(f"random batches of {RANDOM} rows, {name:16} {rate:9,.0f} rows/s")


def measure_checksums(rounds):
    """Compare the checksums of rows with a call of zlib for each, on 64 MiB of rows."""
    draw = np.random.default_rng(0)
    for row in (128, 512, 2048, 16384):
        rows = draw.integers(0, 256, (2**26 // row, row), dtype=np.uint8)
        ways = {"numba": checksums, "zlib": lambda rows: [zlib.crc32(row) for row in rows]}
        assert ways["zlib"](rows) == ways["numba"](rows).tolist()
        rates = {
            name: 2**26 / 1e9 / statistics.median(seconds(way, rows) for _ in range(rounds))
            for name, way in ways.items()
        }
        print(
            f"rows of {row:6,} bytes", *(f"{name} {rate:.2f} GB/s" for name, rate in rates.items())
        )


def main():
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("--rows", type=int, default=40_000)
    words.add_argument("--rounds", type=int, default=7)
    words.add_argument("--folder", type=Path, default=None)
    words.add_argument("--checksums", action="store_true", help="measure these alone")
    asked = words.parse_args()
    if asked.checksums:
        measure_checksums(asked.rounds)
        return
    size = asked.rows * LAYERS * WIDTH * 2
    print(f"{asked.rows:,} rows, {size / 1e9:.2f} GB")
    with tempfile.TemporaryDirectory(dir=asked.folder) as place:
        folders = {name: Path(place) / name.replace(".", "-") for name in WRITERS}
        warm = Path(place) / "warm"
        warm.mkdir()
        write_cache(warm, 4 * BATCH)  # compiles the checksum
        measure_writing(folders, asked, size)
        for cold in (False, True):
            measure_reading(folders, asked, size, cold)
        measure_picking(folders, asked)


if __name__ == "__main__":
    main()
