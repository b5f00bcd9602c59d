"""Do verdicts hold what they promise when probes are really trained? Planted worlds, the whole way.

A world has layers x = (z, 0) + s·noise of d features: z holds the answer, the noise of neighbouring
layers is correlated, and s is equal, best at one layer, or smooth over depth. Answers are linear in
z with a residual, or the largest of a few such. The rows of an object share half of the variance of
everything. Many samples are drawn in each world; each is probed by `sweep` itself (draws, refits,
seeds and all) and gets its verdict. A layer's true loss is its mean over the samples.

Power is asked in worlds of equal layers: of two layers one is made worse by three standard errors
of their difference over samples. What the tied set finds stands beside what a test finds that knows
that standard error.

    python benchmarks/trained_verdicts.py            # all cases
    python benchmarks/trained_verdicts.py few-labels # one
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from math import sqrt
from pathlib import Path

import numpy as np
import torch
from scipy.stats import norm
from verdict_coverage import HEADS, SHAPES

from layerscope.estimators.naming import make
from layerscope.probing.arrangement import arrangements
from layerscope.probing.cells import sweep
from layerscope.testing.layers import HeldLayer
from layerscope.types import CutPoint, Losses, Task
from layerscope.verdicts.comparison import Comparison, comparisons, verdict

SIGNAL = 12
"""Features that hold the answer."""
RESIDUAL = 0.5
SHARED = 0.5
"""Of the variance, by the rows of an object."""
RESAMPLES = 1000
NEEDED = 3.0
"""Standard errors of the planted difference."""


@dataclass(frozen=True)
class Case:
    """How many rows there are, in which groups, and how they are probed."""

    objects: tuple[int, int, int]
    """Of train, val and test."""
    rows: int = 1
    """Of each object."""
    unequal: bool = False
    """Whether objects have 1 to three times as many rows."""
    width: int = 64
    layers: int = 6
    classes: int = 4
    """0 for a number that is regressed."""
    train: str = "all"
    seeds: int = 1
    estimator: str = "logistic"


CASES = {
    "1000-logistic": Case((1000, 1000, 1000)),
    "1000-ridge": Case((1000, 1000, 1000), classes=0, estimator="ridge"),
    "300-logistic": Case((300, 500, 1000)),
    "300-ridge": Case((300, 500, 1000), classes=0, estimator="ridge"),
    "few-labels": Case((50, 200, 500), width=128, classes=10),
    "few-ridge": Case((50, 200, 500), width=128, classes=0, estimator="ridge"),
    "30-objects-ridge": Case((30, 30, 60), rows=50, classes=0, estimator="ridge"),
    "30-objects-logistic": Case((30, 30, 60), rows=50),
    "100-objects-ridge": Case((100, 60, 60), rows=50, classes=0, estimator="ridge"),
    "100-objects-logistic": Case((100, 60, 60), rows=50),
    "unequal-ridge": Case((80, 60, 80), rows=10, unequal=True, classes=0, estimator="ridge"),
    "unequal-logistic": Case((80, 60, 80), rows=10, unequal=True),
    "8-draws": Case((2000, 500, 1000), train="5%", seeds=8),
}


@dataclass(frozen=True)
class Layer(HeldLayer):
    """A held layer with a place among others."""

    index: int = 0
    count: int = 1

    @property
    def cut(self) -> CutPoint:
        trunk = self.count - 1 - HEADS
        part = "trunk" if self.index <= trunk else "head"
        name = "trunk" if self.index == trunk else f"{part}.{self.index}"
        depth = self.index / (self.count - 1)
        return CutPoint(self.index, name, name, part, self.rows.shape[1], "mean", depth)


@dataclass(frozen=True)
class Cache:
    """Layers as a sweep wants them."""

    layers: tuple[Layer, ...]
    tasks: tuple[Task, ...]
    checkpoint: str = "planted"
    source: str = "memory"
    fingerprint: str = "f00d"
    complete: bool = True
    own_splits: frozenset[str] = frozenset()
    settings: dict[str, int] = field(default_factory=dict)
    views: int = 1
    views_of: str = ""
    trained: bool = True
    baseline: str = ""
    baseline_of: str = ""

    @property
    def cuts(self) -> tuple[CutPoint, ...]:
        return tuple(layer.cut for layer in self.layers)

    def view(self, cut: str, pooling: str | None = None, task: str | None = None) -> Layer:
        del pooling, task
        return next(layer for layer in self.layers if layer.cut.name == cut)


class World:
    """Layers whose rows can be drawn."""

    def __init__(self, seed: int, case: Case) -> None:
        rng = np.random.default_rng(seed)
        self.case, self.shape = case, SHAPES[seed % 3]
        outputs = case.classes or 1
        self.answer = rng.standard_normal((SIGNAL, outputs)) / sqrt(SIGNAL)
        depth = np.linspace(0, 1, case.layers)
        self.scale = {
            "equal": np.full(case.layers, 0.7),
            "one best": 0.9 - 0.25 * (np.arange(case.layers) == rng.integers(case.layers)),
            "smooth": 0.6 + 0.4 * (depth - rng.uniform(0.2, 1)) ** 2,
        }[self.shape]

    def cache(self, rng: np.random.Generator) -> Cache:
        parts = [self._objects(count, rng) for count in self.case.objects]
        offsets = np.cumsum([0, *(part.max() + 1 for part in parts)])
        members = np.concatenate([part + by for part, by in zip(parts, offsets, strict=False)])
        splits = np.repeat(np.array(["train", "val", "test"]), [len(part) for part in parts])
        z = self._mixed(members, SIGNAL, rng)
        answers = z @ self.answer + RESIDUAL * self._mixed(members, self.answer.shape[1], rng)
        classes = self.case.classes
        target = answers.argmax(1) if classes else answers[:, 0]
        noise, layers = None, []
        for index, scale in enumerate(self.scale):
            own = self._mixed(members, self.case.width, rng)
            noise = own if noise is None else 0.8 * noise + 0.6 * own
            rows = scale * noise
            rows[:, :SIGNAL] += z
            layers.append(
                Layer(
                    rows.astype(np.float32),
                    {"answer": target},
                    splits,
                    members,
                    index=index,
                    count=len(self.scale),
                )
            )
        kind = ("classes", "top-1", "maximise") if classes else ("latents", "mse", "minimise")
        task = Task("answer", "memory", *kind, encoding=None if classes else "raw")
        return Cache(tuple(layers), (task,))

    def _objects(self, count: int, rng: np.random.Generator) -> np.ndarray:
        low = max(1, self.case.rows // 3)
        most = self.case.rows * 3 if self.case.unequal else self.case.rows
        sizes = rng.integers(low, most + 1, count) if self.case.unequal else self.case.rows
        return np.repeat(np.arange(count), sizes)

    def _mixed(self, members: np.ndarray, width: int, rng: np.random.Generator) -> np.ndarray:
        alone = rng.standard_normal((len(members), width))
        if self.case.rows == 1:
            return alone
        shared = rng.standard_normal((members.max() + 1, width))[members]
        return sqrt(SHARED) * shared + sqrt(1 - SHARED) * alone


def probed(world: World, rng: np.random.Generator) -> Comparison:
    cache, case = world.cache(rng), world.case
    with tempfile.TemporaryDirectory() as folder:
        ways = arrangements((case.train,), seeds=case.seeds)
        found = sweep(
            [cache], cache.tasks, [make(case.estimator, 0)], Path(folder), arrangements=ways
        )
        (one,) = comparisons(found.results)
        return one


@dataclass(frozen=True)
class Outcome:
    gain: float
    value: float
    best: float
    size: float
    single: float


def judged(world: World, item: Comparison, truth: np.ndarray, seed: int) -> Outcome:
    found, names = verdict(item, seed=seed, resamples=RESAMPLES), item.cuts
    best, trunk = names.index(found.best), names.index(found.trunk)
    nan, equal = float("nan"), world.shape == "equal"
    worth = 1 - truth[best] if item.first.direction == "maximise" else truth[best]
    gain = truth[trunk] - truth[best]
    return Outcome(
        gain=nan if best == trunk else float(found.gain.low <= gain <= found.gain.high),
        value=float(found.value.low <= worth <= found.value.high),
        best=nan if equal else float(names[int(truth.argmin())] in found.tied),
        size=len(found.tied) / len(names),
        single=float(len(found.tied) == 1) if equal else nan,
    )


def shifted(losses: Losses, by: float, rng: np.random.Generator) -> Losses:
    """Return losses that are larger by so much on average: wrong rows, or larger errors."""
    if set(np.unique(losses.test)) <= {0.0, 1.0}:
        wrong = rng.random(len(losses.test)) < by / max(1 - losses.test.mean(), 1e-9)
        test = np.where(wrong, 1.0, losses.test)
        rows = [np.where(wrong, 1.0, it.losses) for it in losses.replicates]
    else:
        test = losses.test + by
        rows = [it.losses + by for it in losses.replicates]
    pairs = zip(losses.replicates, rows, strict=True)
    moved = tuple(replace(it, losses=rows) for it, rows in pairs)
    return replace(losses, test=test, replicates=moved)


def power(items: Sequence[Comparison], seed: int) -> tuple[float, float]:
    """Return how often a planted difference is found, and by a test that knows its error."""
    rng, found, known = np.random.default_rng(seed), [], []
    count = len(items[0].scores)
    for first in range(0, count - 1, 2):
        pair = [first, first + 1]
        gaps = [np.subtract(*(it.losses[i].test.mean() for i in pair)) for it in items]
        error = float(np.std(gaps, ddof=1))
        for number, item in enumerate(items):
            both = item.picked(pair)
            worse = shifted(both.losses[0], NEEDED * error, rng)
            moved = Comparison(both.scores, (worse, both.losses[1]), both.groups)
            judgement = verdict(moved, seed=number, resamples=RESAMPLES)
            worst = moved.cuts[0]
            rejected = worst not in judgement.tied
            found.append(rejected or (judgement.best == worst and not judgement.agrees))
            gap = worse.test.mean() - both.losses[1].test.mean()
            known.append(gap / error > norm.ppf(0.95))
    return float(np.mean(found)), float(np.mean(known))


def lines(name: str, case: Case, worlds: int, samples: int) -> Iterator[str]:
    outcomes, powers = [], []
    for seed in range(worlds):
        world, rng = World(seed, case), np.random.default_rng(seed)
        items = [probed(world, rng) for _ in range(samples)]
        truth = np.mean([[it.test.mean() for it in one.losses] for one in items], axis=0)
        if world.shape == "equal":
            truth[:] = truth.mean()
            powers.append(power(items, seed))
        outcomes += [judged(world, it, truth, number) for number, it in enumerate(items)]
    for column in ("gain", "value", "best", "size", "single"):
        known = np.array([getattr(one, column) for one in outcomes])
        known = known[~np.isnan(known)]
        yield f"{name:22}{column:8}{known.mean():7.3f} ±{known.std() / sqrt(len(known)):.3f}"
    ours, oracle = np.mean(powers, axis=0)
    yield f"{name:22}power   {ours:7.3f} of {oracle:.3f}: {ours / oracle:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("case", nargs="*", choices=[[], *CASES], default=[])
    parser.add_argument("--worlds", type=int, default=6)
    parser.add_argument("--samples", type=int, default=40)
    chosen = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    for name in chosen.case or CASES:
        print("\n".join(lines(name, CASES[name], chosen.worlds, chosen.samples)), flush=True)


if __name__ == "__main__":
    main()
