"""Linear CKA of all pairs of layers at once against pair by pair.

The pairwise way is the one of published code: each pair's centred float32 features and the three
Frobenius norms of their d × d products. Both must agree before times are compared. Ours reads every
layer by blocks of rows and gives the unbiased estimate as well.

    python benchmarks/cka.py --layers 20 --rows 4096 --width 2048
"""

from __future__ import annotations

import argparse
import resource
import time
from itertools import combinations_with_replacement

import torch

from layerscope.stats.cka import Similarity, cka


def layers(count: int, rows: int, width: int) -> list[torch.Tensor]:
    """A chain of layers, each a noisy random map of the one before."""
    generator = torch.Generator().manual_seed(0)
    found = [torch.randn(rows, width, generator=generator)]
    while len(found) < count:
        turn = torch.randn(width, width, generator=generator) / width**0.5
        noise = torch.randn(rows, width, generator=generator)
        found.append(torch.relu(found[-1] @ turn + 0.5 * noise))
    return found


def pair_by_pair(features: list[torch.Tensor]) -> torch.Tensor:
    found = torch.zeros(len(features), len(features))
    for i, j in combinations_with_replacement(range(len(features)), 2):
        x, y = (features[place] - features[place].mean(0) for place in (i, j))
        cross, own, other = (y.T @ x).norm(), (x.T @ x).norm(), (y.T @ y).norm()
        found[i, j] = found[j, i] = cross**2 / (own * other)
    return found


def at_once(features: list[torch.Tensor]) -> Similarity:
    return cka([lambda a, b, rows=rows: rows[a:b] for rows in features], len(features[0]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("layers", 20), ("rows", 4096), ("width", 2048)):
        parser.add_argument(f"--{name}", type=int, default=default)
    chosen = parser.parse_args()
    features = layers(chosen.layers, chosen.rows, chosen.width)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    found = at_once(features)
    ours = time.perf_counter() - start
    memory = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20
    start = time.perf_counter()
    expected = pair_by_pair(features)
    theirs = time.perf_counter() - start
    worst = float((found.biased - expected).abs().max())
    assert worst < 1e-4, f"the two differ by {worst:.1e}"
    print(f"{chosen.layers} layers of {chosen.rows} × {chosen.width}, equal to {worst:.0e}")
    print(f"at once, both estimates {ours:8.2f} s, {memory:.2f} GiB beside the features")
    print(f"pair by pair, biased    {theirs:8.2f} s")
    print(f"ratio                   {theirs / ours:8.1f}")


if __name__ == "__main__":
    main()
