"""Do verdicts hold what they promise when probes are really trained? Exact truth, Gaussian worlds.

A world has layers x = (z, 0) + s·noise of d features: z holds the answer, the noise of neighbouring
layers is correlated, and s is equal, best at one layer, or smooth over depth. Many training samples
are drawn in each world, and every one gets its own probes, λ chosen on validation, and its verdict.
A linear rule's expected loss is exact: its mean squared error, or arccos(ρ)/π for the sign of the
answer. A layer's true loss is the mean of that over training samples.

Printed beside coverage: the standard deviation of a pair's difference over training samples, by the
one that the verdict assumes, √(2d)/n of each loss and independent.

    python benchmarks/trained_probes.py --worlds 18 --samples 50
"""

from __future__ import annotations

import argparse
import warnings
from concurrent.futures import ProcessPoolExecutor
from itertools import combinations

import numpy as np
from calibration import HEADS, SHAPES, Outcome, Truth, comparison, lines, outcome
from sklearn.linear_model import LogisticRegression

from layerscope.verdicts.comparison import verdict

SIGNAL = 12
"""Features that hold the answer."""
RESIDUAL = 0.5
PENALTIES = np.logspace(-4, 1, 9)


class World:
    """Layers whose rows can be drawn, and whose linear rules have exact losses."""

    def __init__(self, seed: int, width: int, classes: bool) -> None:
        rng = np.random.default_rng(seed)
        self.shape, self.classes, self.width = SHAPES[seed % 3], classes, width
        self.layers = int(rng.integers(8, 13))
        self.answer = rng.standard_normal(SIGNAL) / np.sqrt(SIGNAL)
        depth = np.linspace(0, 1, self.layers)
        self.scale = {
            "equal": np.full(self.layers, 0.7),
            "one best": 0.9 - 0.25 * (np.arange(self.layers) == rng.integers(self.layers)),
            "smooth": 0.6 + 0.4 * (depth - rng.uniform(0.2, 1)) ** 2,
        }[self.shape]

    def draw(self, rows: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Return (layers, rows, width) features and (rows,) answers."""
        z = rng.standard_normal((rows, SIGNAL))
        noise = rng.standard_normal((self.layers, rows, self.width))
        for i in range(1, self.layers):
            noise[i] = 0.8 * noise[i - 1] + 0.6 * noise[i]
        features = self.scale[:, None, None] * noise
        features[:, :, :SIGNAL] += z
        answers = z @ self.answer + RESIDUAL * rng.standard_normal(rows)
        return features, np.where(answers > 0, 1.0, -1.0) if self.classes else answers

    def loss(self, layer: int, weights: np.ndarray) -> float:
        signal = float(weights[:SIGNAL] @ self.answer)
        power = float((weights[:SIGNAL] ** 2).sum() + self.scale[layer] ** 2 * (weights**2).sum())
        total = float((self.answer**2).sum()) + RESIDUAL**2
        if self.classes:
            return float(np.arccos(signal / np.sqrt(power * total)) / np.pi)
        return total - 2 * signal + power


def rows_lost(world: World, features: np.ndarray, answers: np.ndarray, weights: np.ndarray):
    found = features @ weights
    return (found * answers <= 0).astype(float) if world.classes else (found - answers) ** 2


def path(world: World, features: np.ndarray, answers: np.ndarray) -> list[np.ndarray]:
    if world.classes:
        strengths = (0.003, 0.03, 0.3)
        return [
            LogisticRegression(C=c, fit_intercept=False).fit(features, answers).coef_[0]
            for c in strengths
        ]
    values, vectors = np.linalg.eigh(features.T @ features / len(features))
    target = vectors.T @ (features.T @ answers) / len(features)
    return [vectors @ (target / (values + penalty)) for penalty in PENALTIES]


def sample(world: World, counts: tuple[int, int, int], rng: np.random.Generator):
    """Train every layer's probe on one sample: its true loss, and its losses on val and test."""
    (xs, y), (xs_val, y_val), (xs_test, y_test) = (world.draw(n, rng) for n in counts)
    true, val, test = [], [], []
    for layer in range(world.layers):
        rules = path(world, xs[layer], y)
        lost = [rows_lost(world, xs_val[layer], y_val, rule) for rule in rules]
        best = int(np.argmin([rows.mean() for rows in lost]))
        true.append(world.loss(layer, rules[best]))
        val.append(lost[best])
        test.append(rows_lost(world, xs_test[layer], y_test, rules[best]))
    return np.array(true), np.stack(val, 1), np.stack(test, 1)


def studied(
    seed: int, samples: int, width: int, n_train: int, resamples: int, blind: bool
) -> tuple[list[Outcome], float]:
    warnings.simplefilter("ignore")
    world = World(seed, width, classes=bool(seed // 3 % 2))
    rng = np.random.default_rng(seed)
    drawn = [sample(world, (n_train, 1000, 1000), rng) for _ in range(samples)]
    probes = np.stack([true for true, _, _ in drawn])
    layer = probes.mean(0)
    if world.shape == "equal":
        layer = np.full_like(layer, layer.mean())
    # Of so many rows a verdict expects no noise of training.
    told = 10**9 if blind else n_train
    found = []
    for number, (true, val, test) in enumerate(drawn):
        item = comparison(val, test, [width] * world.layers, told, 1, world.classes)
        truth = Truth(world.shape, world.classes, False, layer, true)
        found.append(outcome(item, truth, verdict(item, seed=number, resamples=resamples)))
    return found, assumed(probes, width, n_train)


def assumed(probes: np.ndarray, width: int, n_train: int) -> float:
    """Observed deviation of a pair's difference over the assumed one, over pairs with the trunk."""
    trunk, mean = probes.shape[1] - 1 - HEADS, probes.mean(0)
    pairs = [pair for pair in combinations(range(probes.shape[1]), 2) if trunk in pair]
    real = [(probes[:, a] - probes[:, b]).std(ddof=1) for a, b in pairs]
    claimed = [np.hypot(mean[a], mean[b]) * np.sqrt(2 * width) / n_train for a, b in pairs]
    return float(np.mean(np.divide(real, claimed)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    defaults = {"worlds": 18, "samples": 10, "width": 64, "train": 1000, "resamples": 1000}
    for name, default in {**defaults, "jobs": 1}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--blind", action="store_true", help="verdicts without training noise")
    chosen = parser.parse_args()
    settings = (chosen.samples, chosen.width, chosen.train, chosen.resamples, chosen.blind)
    with ProcessPoolExecutor(chosen.jobs) as pool:
        waiting = [pool.submit(studied, seed, *settings) for seed in range(chosen.worlds)]
        done = [one.result() for one in waiting]
    print("\n".join(lines([one for found, _ in done for one in found])))
    for kind, name in enumerate(("ridge", "logistic")):
        ratios = [ratio for seed, (_, ratio) in enumerate(done) if seed // 3 % 2 == kind]
        print(f"{name}: deviation over training samples, observed / assumed {np.mean(ratios):.2f}")


if __name__ == "__main__":
    main()
