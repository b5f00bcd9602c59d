"""All measures of eigenvalues of a layer against its Gram matrix and eigendecomposition alone.

The bare way is one float32 Gram matrix, added up in float64 over blocks, and one float64 ``eigh``:
what any of the measures needs. Ours reads moments, takes the eigenvalues about the mean and about
zero and computes RankMe, effective rank, participation ratio, stable rank, NESum, α and the matrix
entropy. With standard errors of the test rows eigenvectors and a rotation come on top, which is
printed too.

    python benchmarks/spectrum.py --rows 20000 --width 2048
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from layerscope.stats import eigenvalues as eigen
from layerscope.stats.influence import Influence
from layerscope.stats.moments import BLOCK, Moments, RunningMoments


def bare(rows: torch.Tensor) -> None:
    gram = torch.zeros(rows.shape[1], rows.shape[1], dtype=torch.float64)
    for block in torch.split(rows, BLOCK):
        gram += (block.T @ block).double()
    torch.linalg.eigh(gram)


def moments(rows: torch.Tensor) -> Moments:
    running = RunningMoments(rows.shape[1])
    for block in torch.split(rows, BLOCK):
        running.update(block.double())
    return running.compute()


def of_mean(found: eigen.Eigenvalues) -> torch.Tensor:
    values = found.values
    return torch.stack([
        eigen.effective_rank(values),
        eigen.participation_ratio(values),
        eigen.stable_rank(values),
        eigen.power_law(found).alpha,
    ])  # fmt: skip


def of_zero(found: eigen.Eigenvalues) -> torch.Tensor:
    return torch.stack([
        eigen.rankme(found),
        eigen.stable_rank(found.values),
        eigen.matrix_entropy(found),
        eigen.matrix_entropy(found, 2),
    ])  # fmt: skip


def measured(rows: torch.Tensor) -> None:
    known = moments(rows)
    of_mean(eigen.of_covariance(known))
    of_zero(eigen.of_second_moment(known))


def with_errors(rows: torch.Tensor) -> None:
    known, groups = moments(rows), torch.arange(len(rows))
    about_mean = eigen.of_covariance(known, vectors=True)
    about_zero = eigen.of_second_moment(known, vectors=True)
    Influence.of(about_mean, rows, known.mean, groups).errors(of_mean)
    Influence.of(about_zero, rows, known.mean, groups, about_zero=True).errors(of_zero)


def seconds(function: Callable[[torch.Tensor], None], rows: torch.Tensor) -> float:
    start = time.perf_counter()
    function(rows)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("rows", 20_000), ("width", 2048), ("rounds", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    chosen = parser.parse_args()
    generator = torch.Generator().manual_seed(0)
    scale = torch.arange(1, chosen.width + 1).float().pow(-0.5)
    rows = torch.randn(chosen.rows, chosen.width, generator=generator) * scale + 0.1
    ways = {"Gram and eigh": bare, "all measures": measured, "with standard errors": with_errors}
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(chosen.rounds):
        for name, function in ways.items():
            taken[name].append(seconds(function, rows))
    base = taken["Gram and eigh"]
    print(f"n {chosen.rows}, d {chosen.width}, medians of {chosen.rounds} rounds")
    for name, times in taken.items():
        ratio = statistics.median(own / other for own, other in zip(times, base, strict=True))
        print(f"{name:22} {statistics.median(times):8.2f} s {ratio:6.2f} times")


if __name__ == "__main__":
    main()
