"""One whole verdict over many layers and images, against a bootstrap that gathers layer by layer.

The losses are of right and wrong, correlated across layers: an image has a difficulty, a layer an
ability. The peer draws row numbers and takes the mean of each layer's losses at them, in NumPy; it
runs a part of the resamples, its time is scaled, and both must agree on the standard errors.

    python benchmarks/verdict.py --layers 20 --images 50000 --resamples 10000
"""

from __future__ import annotations

import argparse
import resource
import time

import numpy as np
import torch

from layerscope.stats.bootstrap import p_values, resample
from layerscope.stats.multinomial import alike
from layerscope.types import Losses, Score
from layerscope.verdicts.comparison import Comparison, verdict


def wrong(layers: int, images: int, rng: np.random.Generator) -> np.ndarray:
    difficulty = rng.standard_normal((images, 1))
    noise = 0.35 * rng.standard_normal((images, layers))
    ability = 0.7 - 0.5 * (np.linspace(-1, 1, layers) - 0.4) ** 2
    return (difficulty + noise > ability).astype(np.float64)


def comparison(test: np.ndarray, val: np.ndarray) -> Comparison:
    layers = test.shape[1]
    scores = tuple(
        Score(
            checkpoint="network",
            source="images",
            cut=f"layer.{i}" if i < layers - 3 else "trunk" if i == layers - 3 else f"head.{i}",
            index=i,
            part="trunk" if i < layers - 2 else "head",
            width=512,
            depth=i / (layers - 1),
            pooling="mean",
            task="images-class",
            estimator="logistic",
            metric="top-1",
            direction="maximise",
            primary=True,
            val=1 - float(val[:, i].mean()),
            test=1 - float(test[:, i].mean()),
            stderr=0.0,
            n_train=100_000,
            n_val=len(val),
            n_test=len(test),
            n_groups=len(test),
            seed=0,
            settings={},
            fingerprint="made",
        )
        for i in range(layers)
    )
    losses = tuple(Losses(val[:, i].copy(), test[:, i].copy()) for i in range(layers))
    return Comparison(scores, losses, np.arange(len(test)).astype(str))


def gathered(test: np.ndarray, resamples: int, rng: np.random.Generator) -> np.ndarray:
    layers = [test[:, i].copy() for i in range(test.shape[1])]
    draws = np.empty((resamples, len(layers)))
    for draw in draws:
        rows = rng.integers(0, len(test), len(test))
        draw[:] = [layer[rows].mean() for layer in layers]
    return draws


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("layers", 20), ("images", 50_000), ("resamples", 10_000), ("peer", 200)):
        parser.add_argument(f"--{name}", type=int, default=default)
    chosen = parser.parse_args()
    rng = np.random.default_rng(0)
    test, val = (wrong(chosen.layers, chosen.images, rng) for _ in range(2))
    item = comparison(test, val)
    verdict(comparison(test[:10], val[:10]), resamples=10)  # compiles, or reads what was compiled
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    def timed(act):
        start = time.perf_counter()
        return act(), time.perf_counter() - start

    rows = torch.from_numpy(test)
    units = torch.arange(chosen.images)
    resampled, drawing = timed(lambda: resample(rows, units, resamples=chosen.resamples))
    _, testing = timed(lambda: p_values(resampled))
    found, whole = timed(lambda: verdict(item, resamples=chosen.resamples))
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    draws, part = timed(lambda: gathered(test, chosen.peer, rng))
    scaled = part * chosen.resamples / chosen.peer
    ratio = draws.std(0) / resampled.standard_error().numpy()
    assert np.abs(ratio - 1).max() < 5 / np.sqrt(2 * chosen.peer), "standard errors differ"
    kinds = len(alike(rows)[0])
    noisy = squared_errors(rows)
    _, dense = timed(lambda: resample(noisy, units, resamples=chosen.resamples))
    print(f"{chosen.layers} layers × {chosen.images} images × {chosen.resamples} resamples")
    print(f"{kinds} distinct patterns of right and wrong; {len(found.tied)} cuts are tied")
    print(f"verdict, whole                {whole:7.2f} s")
    print(f"  of it resampling            {drawing:7.2f} s")
    print(f"  of it the test of all cuts  {testing:7.2f} s")
    print(f"resampling squared errors     {dense:7.2f} s (no two images alike)")
    print(f"NumPy, a gather for each layer{scaled:7.2f} s ({chosen.peer} resamples, scaled)")
    print(f"ratio to the whole verdict    {scaled / whole:7.1f}")
    print(f"memory above the losses       {(after - before) / 1024:7.0f} MiB at the highest")


def squared_errors(rows: torch.Tensor) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return rows + torch.rand(rows.shape, generator=generator, dtype=torch.float64)


if __name__ == "__main__":
    main()
