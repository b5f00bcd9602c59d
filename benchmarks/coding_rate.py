"""ΔR with many classes: memory beside the features, and time against two other ways.

The membership way is that of the authors' code, rebuilt from the formula: a (classes, n, n) tensor
of memberships and a d × d log-determinant of each product with it, at the most rows whose tensor
fits the given memory. The loop forms each class's d × d matrix from its own rows. Some classes of
both are timed, after they were found equal to ours, and stand for all of them.

    python benchmarks/coding_rate.py
    python benchmarks/coding_rate.py --rows 50000 --width 2048 --classes 1000 --looped 20
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable
from functools import partial

import torch

from layerscope.stats.partitioned_rate import conditional_rate, partitioned_rates

EPS_SQ = 0.5
GIB = 2**30


def features(rows: int, width: int, classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows on the unit sphere around the centres of their classes."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(classes, (rows,), generator=generator)
    found = torch.empty(rows, width)
    centres = torch.randn(classes, width, generator=generator)
    for start in range(0, rows, 4096):
        part = slice(start, start + 4096)
        noise = torch.randn(len(labels[part]), width, generator=generator)
        found[part] = torch.nn.functional.normalize(centres[labels[part]] + noise, dim=1)
    return found, labels


def memberships(labels: torch.Tensor) -> torch.Tensor:
    """The (classes, n, n) tensor, which is not timed."""
    places = torch.arange(len(labels))
    membership = torch.zeros(int(labels.max()) + 1, *(len(labels),) * 2, dtype=torch.float64)
    membership[labels, places, places] = 1
    return membership


def by_membership(
    membership: torch.Tensor, rows: torch.Tensor, labels: torch.Tensor, classes: torch.Tensor
) -> float:
    """R_c times n over some of the classes."""
    d = rows.shape[1]
    z, identity, total = rows.double().T, torch.eye(d, dtype=torch.float64), 0.0
    for of_class in membership[classes]:
        count = float(of_class.trace())
        moment = z @ of_class @ z.T
        total += count / 2 * float(torch.logdet(identity + d / (count * EPS_SQ) * moment))
    return total


def by_loop(rows: torch.Tensor, labels: torch.Tensor, classes: torch.Tensor) -> float:
    """R_c times n over some of the classes."""
    d = rows.shape[1]
    identity, total = torch.eye(d, dtype=torch.float64), 0.0
    for label in classes:
        own = rows[labels == label].double()
        moment = d / (len(own) * EPS_SQ) * own.T @ own
        total += len(own) / 2 * float(torch.logdet(identity + moment))
    return total


def timed(function: Callable[[], float]) -> tuple[float, float]:
    start = time.perf_counter()
    value = function()
    return value, time.perf_counter() - start


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


Way = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], float]


def against(name: str, way: Way, rows: torch.Tensor, labels: torch.Tensor, looped: int) -> None:
    """Time R_c, some classes of the other way standing for all of them."""
    count = int(labels.max()) + 1
    some = torch.linspace(0, count - 1, min(looped, count)).long()
    expected, seconds = timed(lambda: way(rows, labels, some))
    of_some = torch.isin(labels, some)
    part = conditional_rate(rows[of_some], labels[of_some], EPS_SQ) * int(of_some.sum())
    assert abs(part / expected - 1) < 1e-6, (part, expected)
    everything = seconds * count / len(some)
    _, own = timed(lambda: conditional_rate(rows, labels, EPS_SQ))
    _, together = timed(lambda: partitioned_rates(rows, None, EPS_SQ).whole.rate)
    print(f"{name}, n {len(rows)}, {count} classes of which {len(some)} were timed:")
    print(f"  R_c {everything:.2f} s against {own:.3f} s: {everything / own:.0f} times as fast")
    ratio = (everything + together) / (own + together)
    print(f"  with R, {together:.2f} s for both: {ratio:.0f} times as fast")


def fitting(labels: torch.Tensor, memory: float) -> torch.Tensor:
    """Return the most rows whose membership tensor fits, and which of them."""
    n = len(labels)
    while n > 1 and len(labels[:n].unique()) * n * n * 8 > memory * GIB:
        n -= max(1, n // 20)
    return torch.arange(n)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("rows", 50_000), ("width", 2048), ("classes", 1000), ("looped", 10)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--memory", type=float, default=8.0, help="GiB for the membership tensor")
    chosen = parser.parse_args()
    rows, labels = features(chosen.rows, chosen.width, chosen.classes)
    partitioned_rates(rows[:500], labels[:500], EPS_SQ)
    before = peak()
    value, seconds = timed(lambda: partitioned_rates(rows, labels, EPS_SQ).whole.reduction)
    beside = peak() - before
    theirs = chosen.classes * chosen.rows**2 * 8 / GIB
    print(f"n {chosen.rows}, d {chosen.width}, {chosen.classes} classes: ΔR {value:.4f}")
    print(f"ours: {seconds:.2f} s, {beside:.2f} GiB beside the features of {rows.nbytes / GIB:.2f}")
    print(f"the membership tensor alone would be {theirs:,.0f} GiB")
    assert beside < 1, "more than 1 GiB beside the features"
    against("loop of d × d determinants", by_loop, rows, labels, chosen.looped)
    few = fitting(labels, chosen.memory)
    named = torch.unique(labels[few], return_inverse=True)[1]
    way = partial(by_membership, memberships(named))
    against("membership tensor", way, rows[few], named, chosen.looped)


if __name__ == "__main__":
    main()
