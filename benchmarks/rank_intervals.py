"""How often do the intervals of rank correlations hold the truth?

    python benchmarks/rank_intervals.py

Layers: k true losses are normal with deviation 1; a measure follows them with correlation 0.7. What
is observed is the losses with normal noise, and resamples have as much noise again. Asked is
whether `over_rows` holds τ between the measure and the *true* losses.

Runs: n independent pairs of normal values with a correlation whose τ is known, 2 / π · arcsin(r).
Asked is whether `over_pairs` holds it, among the studies in which it gives an interval.
"""

from __future__ import annotations

import math

import torch

from layerscope.stats.bootstrap import Resampled
from layerscope.stats.rank_correlation import kendall, over_pairs, over_rows

STUDIES = 400
DRAWS = 800
FOLLOWS = 0.7


def main() -> None:
    print("layers | noise of a layer's loss, in deviations of the layers | covers | width")
    for layers in (5, 12, 24):
        for noise in (0.1, 0.3, 0.5, 1.0):
            found = [_rows(layers, noise, study) for study in range(STUDIES)]
            print(f"{layers:6} | {noise:>49} | {_summary(found)}")
    print("runs   | correlation                                       | covers | width | given")
    for runs in (4, 6, 8, 12, 24):
        for correlation in (0.0, 0.6, 0.95):
            found = [_pairs(runs, correlation, s) for s in range(STUDIES)]
            given = [it for it in found if it is not None]
            share = f"{len(given) / STUDIES:.0%}"
            print(f"{runs:6} | {correlation:>49} | {_summary(given)} | {share}")


def _rows(layers: int, noise: float, seed: int) -> tuple[bool, float]:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    true = normal(layers)
    measure = -FOLLOWS * true + math.sqrt(1 - FOLLOWS**2) * normal(layers)
    seen = true + noise * normal(layers)
    losses = Resampled(seen, seen + noise * normal(DRAWS, layers), 1000)
    found = over_rows(measure, torch.zeros(layers), losses, kendall)
    truth = float(kendall(measure, -true))
    return found.low - 1e-9 <= truth <= found.high + 1e-9, found.high - found.low


def _pairs(runs: int, correlation: float, seed: int) -> tuple[bool, float] | None:
    generator = torch.Generator().manual_seed(seed)
    first, other = torch.randn(2, runs, generator=generator, dtype=torch.float64)
    second = correlation * first + math.sqrt(1 - correlation**2) * other
    found = over_pairs(first, second, kendall, draws=DRAWS, seed=seed)
    if math.isnan(found.low):
        return None
    truth = 2 / math.pi * math.asin(correlation)
    return found.low <= truth <= found.high, found.high - found.low


def _summary(found: list[tuple[bool, float]]) -> str:
    if not found:
        return "never given"
    covered, width = zip(*found, strict=True)
    return f"{sum(covered) / len(found):6.1%} | {sum(width) / len(found):.2f}"


if __name__ == "__main__":
    main()
