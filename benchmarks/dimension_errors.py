"""The standard error of intrinsic dimensions against their true spread over samples.

Rows are drawn anew many times from a curved manifold of a known dimension, alone or as images of
several views. Printed is the mean standard error over the standard deviation of the estimates: 1 is
right. Beside it stands what the spread of single rows' contributions would give.

    python benchmarks/dimension_errors.py --draws 200
"""

from __future__ import annotations

import argparse

import numpy as np
import torch

from layerscope.estimators.dimension import MORE, NeighboursByScale
from layerscope.stats.intrinsic_dimension import (
    levina_bickel,
    nearest_distances,
    two_nn,
    two_nn_by_line,
)
from layerscope.stats.standard_error import standard_errors

CASES = ((300, 3, 1), (300, 8, 1), (1000, 2, 1), (1000, 5, 1), (1000, 10, 1), (3000, 5, 1),
         (600, 5, 2), (600, 5, 4))  # fmt: skip
"""Rows, dimension, views of each image."""
WIDTH, K = 24, 20


def draw(rng: np.random.Generator, turn: np.ndarray, n: int, dimension: int, views: int):
    images = rng.uniform(-1, 1, (n // views, dimension)).repeat(views, 0)
    images += (views > 1) * 0.05 * rng.standard_normal(images.shape)
    return torch.from_numpy(np.tanh(images @ turn).astype(np.float32))


def by_row(distances: torch.Tensor, k: int, groups: torch.Tensor) -> float:
    inverse = (distances[:, k - 1 : k] / distances[:, : k - 1]).log().mean(1)
    return float(standard_errors(inverse[:, None], groups) / inverse.mean() ** 2)


def ratios(n: int, dimension: int, views: int, draws: int) -> dict[str, float]:
    rng = np.random.default_rng(0)
    turn = rng.standard_normal((dimension, WIDTH)) / dimension**0.5
    groups = torch.arange(n) // views
    values, errors, rowwise = [], [], []
    for seed in range(draws):
        rows = draw(rng, turn, n, dimension, views)
        near = nearest_distances(rows, K, MORE * K)
        found = NeighboursByScale((near,), (n,), groups, rows)
        known = (found.distances(2), found.distances(2), found.distances(K))
        functions = (two_nn, two_nn_by_line, levina_bickel)
        values.append([f(distances) for f, distances in zip(functions, known, strict=True)])
        of_two = found.errors(2, functions[:2], seed)
        errors.append([*of_two, *found.errors(K, functions[2:], seed)])
        rowwise.append([by_row(near.distances, k, groups) for k in (2, K)])
    spread = np.std(values, axis=0, ddof=1)
    halves, single = (np.sqrt(np.mean(np.square(it), axis=0)) for it in (errors, rowwise))
    names = ("twonn", "twonn-line", "mle-dimension")
    found = dict(zip(names, halves / spread, strict=True))
    return found | {"twonn by row": single[0] / spread[0], "mle by row": single[1] / spread[2]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=200)
    draws = parser.parse_args().draws
    for n, dimension, views in CASES:
        found = ratios(n, dimension, views, draws)
        said = ", ".join(f"{name} {value:.2f}" for name, value in found.items())
        print(f"{n} rows, dimension {dimension}, {views} views: {said}", flush=True)


if __name__ == "__main__":
    main()
