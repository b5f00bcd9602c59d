"""Do two ranks on two cores extract twice what one does, and does memory stay flat?

    python benchmarks/ranks.py [--images 2048] [--rounds 4] [--many 100000]

A ResNet-18 with random weights over small JPEGs, with one thread for each rank, as on a machine
where each rank has a device of its own. One rank is held to one core, to each in turn, for cores
of a virtual machine are not equally fast; two have one each; all read with one worker. The rate
is that of the pipeline, without start-up. Memory is the peak of the process over 10,000 rows and
over ten times as many of the same images.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

CARD = """
family = "layerscope"
seed = 1
[architecture]
trunk = "resnet18"
width = {width}
head = [64, 64]
output = 0
[preprocessing]
resize = {side}
crop = {side}
mean = [0.5, 0.5, 0.5]
std = [0.25, 0.25, 0.25]
"""
PLUGIN = """
from dataclasses import replace
import numpy as np
from layerscope.data.sources import sources
from layerscope.types import Source, Task

class Repeated:
    def __init__(self, root, names):
        self.root, self.names = root, names
    def read(self, row):
        return (self.root / self.names[row % len(self.names)]).read_bytes()
    def place(self, row):
        return self.names[row % len(self.names)]
    def select(self, rows):
        return Selected(self, rows)

class Selected:
    def __init__(self, whole, rows):
        self.whole, self.rows = whole, rows
    def read(self, row):
        return self.whole.read(int(self.rows[row]))
    def place(self, row):
        return self.whole.place(int(self.rows[row]))
    def select(self, rows):
        return Selected(self.whole, self.rows[rows])

@sources.register("repeated")
def repeated(root, *, allow_missing=False, count: str = "0"):
    names = sorted(path.name for path in root.glob("*.jpg"))
    n = int(count)
    index = np.arange(n)
    task = Task("repeated-number", "repeated", "classes", "top-1", "maximise", classes=("a", "b"))
    return Source(
        name="repeated", ids=tuple(f"{i:08d}" for i in index),
        splits=np.array(["train", "val", "test"])[index % 3],
        groups=np.array([f"{i:08d}" for i in index]), tasks=(task,),
        targets={"repeated-number": index % 2}, manifest=f"m{n}", annotations="a", root=root,
        images=Repeated(root, names),
    )
"""
MEASURED = """
import resource, sys
from layerscope.cli.main import main
try:
    main()
finally:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)
"""


def prepare(folder):
    images = folder / "images"
    images.mkdir()
    draw = np.random.default_rng(0)
    for i in range(200):
        small = draw.integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(small).resize((160, 160)).save(images / f"{i:03d}.jpg", quality=90)
    (folder / "net.toml").write_text(CARD.format(width=64, side=128))
    (folder / "tiny.toml").write_text(CARD.format(width=4, side=32))
    (folder / "plugin.py").write_text(PLUGIN)


def words(card, count, out, *more):
    source = f"repeated=images,count={count}"
    shared = ("--device", "cpu", "--existing", "replace", "--json", "-o", out)
    return ["--plugin", "plugin.py", "extract", card, "--data", source, *shared, *more]


def rate(folder, ranks, count, first=0):
    """Return the images per second of some ranks with a core each, and the sum of their own."""
    cores = ",".join(str(core) for core in sorted(os.sched_getaffinity(0))[first:][:ranks])
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command = ["taskset", "-c", cores, *launch, f"--nproc-per-node={ranks}", "-m", "layerscope"]
    done = subprocess.run(
        [*command, *words("net.toml", count, f"by{ranks}", "--workers", "1")],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    (row,) = json.loads(done.stdout)["caches"]
    return row["images_per_second"], sum(row["rank_rates"])


def apart(count, out):
    own = words("net.toml", count, out, "--workers", "1")
    return [sys.executable, "-m", "layerscope", *own]


def alone_together(folder, count):
    """Return twice the slower, and the sum, of two processes that know nothing of each other."""
    jobs = [
        subprocess.Popen(
            ["taskset", "-c", str(core), *apart(count // 2, f"alone{core}")],
            cwd=folder,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for core in sorted(os.sched_getaffinity(0))[:2]
    ]
    rates = [json.loads(job.communicate()[0])["caches"][0]["images_per_second"] for job in jobs]
    return 2 * min(rates), sum(rates)


def peak(folder, count):
    """Return the peak memory in MB of an extraction of so many rows."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, *words("tiny.toml", count, "memory")],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stderr.strip().splitlines()[-1]) / 1000


def main():
    asked = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    asked.add_argument("--images", type=int, default=2048)
    asked.add_argument("--rounds", type=int, default=4)
    asked.add_argument("--many", type=int, default=100_000)
    chosen = asked.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        prepare(folder)
        found = {"1 rank": [], "2 ranks": [], "2 processes apart": []}
        for turn in range(chosen.rounds):
            found["1 rank"].append(rate(folder, 1, chosen.images, turn % 2))
            found["2 ranks"].append(rate(folder, 2, chosen.images))
            found["2 processes apart"].append(alone_together(folder, chosen.images))
        told = {
            name: [statistics.median(parts) for parts in zip(*times, strict=True)]
            for name, times in found.items()
        }
        for name, (whole, summed) in told.items():
            print(
                f"{name:18} {whole:6.1f} images/s until the last is done, "
                f"{whole / told['1 rank'][0]:.2f} times; "
                f"{summed:6.1f} while both run, {summed / told['1 rank'][1]:.2f} times"
            )
        few, many = (peak(folder, count) for count in (chosen.many // 10, chosen.many))
        print(
            f"peak memory {few:.0f} MB for {chosen.many // 10:,} rows, {many:.0f} MB for ", end=""
        )
        print(f"{chosen.many:,}: {many / few:.3f} times")


if __name__ == "__main__":
    main()
