"""What does a whole network cost: 20 cuts × 11 λ × 3 tasks, and a grid of SGD heads?

    python benchmarks/probes.py [--rows 10000] [--width 512] [--cuts 20]

First the estimator ``logistic`` as ``layerscope probe`` runs it on every cut, λ chosen on
validation and the test rows judged, against scikit-learn's ``LogisticRegression`` per cut and task
on the same standardised float32 rows, with a warm start along the same λ and the tolerance 1e-4.
scikit-learn is measured on one cut and multiplied by the number of cuts. Then one cut and task
against ``sgd:dinov2``: thirteen rates trained side by side for 12,500 steps, on the same rows. Last
the peak memory of one layer of 100,000 × 2,048 that is read once and held, whole and in two folds,
each in a process of its own.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression

from layerscope.estimators.logistic import Logistic
from layerscope.estimators.naming import make
from layerscope.probing import Arrangement, arranged
from layerscope.probing.held_view import held
from layerscope.types import CutPoint, Task

CLASSES = (10, 20, 50)
TASKS = tuple(Task(f"y{c}", "memory", "classes", "top-1", "maximise") for c in CLASSES)
PENALTIES = np.logspace(0, -5, 11)


@dataclass
class View:
    """One layer in memory: 60 % of the rows train, 20 % validate, 20 % test."""

    rows: np.ndarray
    targets: dict[str, np.ndarray]
    checkpoint: str = "net"
    source: str = "memory"
    fingerprint: str = "f"

    @property
    def cut(self):
        return CutPoint(0, "layer", "layer", "trunk", self.rows.shape[1], "mean", 0.0)

    def part(self, values, split):
        first, second = int(0.6 * len(values)), int(0.8 * len(values))
        return {"train": values[:first], "val": values[first:second], "test": values[second:]}[
            split
        ]

    def features(self, split):
        return self.part(self.rows, split)

    def target(self, task, split):
        return self.part(self.targets[task], split)

    def groups(self, split):
        return self.part(np.arange(len(self.rows)).astype(str), split)

    def views(self, split):
        return self.part(np.zeros(len(self.rows), np.int64), split)

    def instances(self, split):
        return self.part(np.arange(len(self.rows)), split)


def layer(rows, width, seed, classes=CLASSES):
    draw = torch.Generator().manual_seed(seed)
    turned = torch.linalg.qr(torch.randn(width, width, generator=draw))[0]
    features = (
        torch.randn(rows, width, generator=draw) * torch.arange(1, width + 1) ** -0.5 @ turned
    )
    targets = {}
    for c in classes:
        noise = -torch.rand(rows, c, generator=draw).log()
        logits = 1.5 * features @ torch.randn(width, c, generator=draw) - noise.log()
        targets[f"y{c}"] = logits.argmax(1).numpy()
    return View(features.numpy(), targets)


def timed(job, *given):
    begin = time.perf_counter()
    found = job(*given)
    return time.perf_counter() - begin, found


def ours(view, tasks):
    return {it.task: it for it in Logistic().score(view, tasks) if it.metric == "top-1"}


def theirs(view, task):
    train = view.features("train")
    rows = {
        it: (view.features(it) - train.mean(0)) / train.std(0) for it in ("train", "val", "test")
    }
    model = LogisticRegression(tol=1e-4, max_iter=10_000, warm_start=True)
    best = (-1.0, -1.0)
    for penalty in PENALTIES:
        model.set_params(C=1 / (penalty * len(train)))
        model.fit(rows["train"], view.target(task.name, "train"))
        val, test = (model.score(rows[it], view.target(task.name, it)) for it in ("val", "test"))
        best = max(best, (val, test))
    return best[1]


def network(asked):
    total, accuracy = 0.0, {}
    for number in range(asked.cuts):
        view = layer(asked.rows, asked.width, number)
        taken, found = timed(ours, view, TASKS)
        total += taken
        accuracy = accuracy or {name: score.test for name, score in found.items()}
    view, peer = layer(asked.rows, asked.width, 0), 0.0
    for task in TASKS:
        taken, test = timed(theirs, view, task)
        peer += taken
        print(
            f"  {task.name}: test {accuracy[task.name]:.3f}, "
            f"scikit-learn {test:.3f} in {taken:.1f} s"
        )
    scaled = peer * asked.cuts
    print(
        f"{asked.cuts} cuts × 11 λ × 3 tasks, {asked.rows:,} rows × {asked.width}: {total:.1f} s; "
        f"scikit-learn {scaled:.0f} s ({peer:.1f} s measured on one cut): "
        f"{scaled / total:.1f} times"
    )


def heads(asked):
    view = layer(asked.rows, asked.width, 0)
    mine, found = timed(ours, view, TASKS[:1])
    theirs, scores = timed(lambda: list(make("sgd:dinov2", 0).score(view, TASKS[:1])))
    grid = next(it for it in scores if it.metric == "top-1")
    exact = found[TASKS[0].name]
    print(
        f"one cut and task: exact {mine:.2f} s, test {exact.test:.4f}; a grid of 13 SGD heads "
        f"{theirs:.1f} s, test {grid.test:.4f}: {theirs / mine:.1f} times"
    )


class MadeView(View):
    """A layer that every read makes anew, in blocks, into one array, as a cache does."""

    def features(self, split):
        count, width = self.part(self.rows, split).shape
        rows = np.empty((count, width), np.float32)
        draw = np.random.default_rng(len(split))
        for start in range(0, count, 1000):
            block = draw.standard_normal((min(1000, count - start), width), dtype=np.float32)
            # A feature that next to no row varies: probes hold it in its range, in a copy.
            block[:, -1] = 0
            rows[start : start + len(block)] = block
        rows[0, -1] = 5
        return rows


def memory(folds=1, rows=100_000, width=2_048):
    """Print the peak above what is there before the layer is, in units of its float32 features."""
    small = layer(500, 32, 1, (10,))
    ours(small, TASKS[:1])
    labels = np.random.default_rng(0).integers(0, 10, rows)
    view = MadeView(np.broadcast_to(np.float32(0), (rows, width)), {"y10": labels})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begin = time.perf_counter()
    with held(view) as seen:
        for part in arranged(seen, TASKS[0], Arrangement(folds=folds)):
            ours(part, TASKS[:1])
    taken = time.perf_counter() - begin
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    size = rows * width * 4 / 1024
    print(
        f"one layer of {rows:,} × {width:,} ({size / 2**20:.2f} GiB), {folds} folds: "
        f"{taken:.0f} s, peak {(peak - before) / size:.2f} times the layer with the layer itself"
    )


def main():
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("--rows", type=int, default=10_000)
    words.add_argument("--width", type=int, default=512)
    words.add_argument("--cuts", type=int, default=20)
    words.add_argument("--memory", type=int, metavar="FOLDS", help="Only that, in this process.")
    asked = words.parse_args()
    if asked.memory:
        memory(asked.memory)
        return
    ours(layer(500, 32, 1), TASKS)  # loads what is loaded once
    network(asked)
    heads(asked)
    for folds in ("1", "2"):
        subprocess.run([sys.executable, __file__, "--memory", folds], check=True)


if __name__ == "__main__":
    main()
