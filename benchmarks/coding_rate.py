"""ΔR with many classes: memory beside the features, and time against two other ways.

The membership way is that of the authors' code, rebuilt from the formula: a (classes, n, n) tensor
of memberships and a d × d log-determinant of each product with it. The loop forms each class's
d × d matrix from its own rows. Both are compared with ours for equality before their times are: the
loop on some of the classes, whose cost is scaled to all of them, and the membership way at the
largest number of classes whose tensor fits the given memory.

    python benchmarks/coding_rate.py
    python benchmarks/coding_rate.py --rows 50000 --width 2048 --classes 1000 --looped 20
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable

import torch

from layerscope.stats.partitioned_rate import partitioned_rates

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


def by_membership(rows: torch.Tensor, labels: torch.Tensor) -> float:
    n, d = rows.shape
    classes = int(labels.max()) + 1
    membership = torch.zeros(classes, n, n, dtype=torch.float64)
    membership[labels, torch.arange(n), torch.arange(n)] = 1
    z, identity, total = rows.double().T, torch.eye(d, dtype=torch.float64), 0.0
    for of_class in membership:
        count = of_class.trace()
        moment = z @ of_class @ z.T
        total += float(count * torch.logdet(identity + d / (count * EPS_SQ) * moment)) / (2 * n)
    whole = torch.logdet(identity + d / (n * EPS_SQ) * z @ z.T) / 2
    return float(whole) - total


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


def ours(rows: torch.Tensor, labels: torch.Tensor) -> float:
    return partitioned_rates(rows, labels, EPS_SQ).whole.reduction


def against_the_loop(rows: torch.Tensor, labels: torch.Tensor, looped: int) -> None:
    classes = labels.unique()
    some = classes[torch.linspace(0, len(classes) - 1, min(looped, len(classes))).long()]
    of_some = torch.isin(labels, some)
    expected, seconds = timed(lambda: by_loop(rows, labels, some))
    part = partitioned_rates(rows[of_some], labels[of_some], EPS_SQ).whole
    found = part.conditional * int(of_some.sum())
    assert abs(found / expected - 1) < 1e-6, (found, expected)
    everything = seconds * len(classes) / len(some)
    apart = timed(lambda: partitioned_rates(rows, labels, EPS_SQ).whole.conditional)[1]
    only = apart - timed(lambda: partitioned_rates(rows, None, EPS_SQ).whole.rate)[1]
    print(f"loop of d × d determinants: {everything:10.2f} s for R_c ({len(some)} classes, scaled)")
    print(f"ours: {only:.2f} s for R_c, {everything / only:.0f} times as fast")


def against_membership(rows: torch.Tensor, labels: torch.Tensor, memory: float) -> None:
    n = len(rows)
    while int(labels.max() + 1) * n * n * 8 > memory * GIB and n > 200:
        n -= n // 10
    some, named = rows[:n], torch.unique(labels[:n], return_inverse=True)[1]
    kept = named < max(1, int(memory * GIB / (n * n * 8)))
    some, named = some[kept], named[kept]
    expected, theirs = timed(lambda: by_membership(some, named))
    found, own = timed(lambda: ours(some, named))
    assert abs(found / expected - 1) < 1e-6, (found, expected)
    classes = int(named.max()) + 1
    print(f"membership way at n {len(some)}, {classes} classes: {theirs:.2f} s against {own:.2f} s")
    print(f"ratio {theirs / own:.0f}, values equal to 1e-6")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("rows", 50_000), ("width", 2048), ("classes", 1000), ("looped", 10)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--memory", type=float, default=8.0, help="GiB for the membership tensor")
    chosen = parser.parse_args()
    rows, labels = features(chosen.rows, chosen.width, chosen.classes)
    ours(rows[:500], labels[:500])
    before = peak()
    value, seconds = timed(lambda: ours(rows, labels))
    beside = peak() - before
    theirs = chosen.classes * chosen.rows**2 * 8 / GIB
    print(f"n {chosen.rows}, d {chosen.width}, {chosen.classes} classes: ΔR {value:.4f}")
    print(f"ours: {seconds:.2f} s, {beside:.2f} GiB beside the features of {rows.nbytes / GIB:.2f}")
    print(f"the membership tensor alone would be {theirs:,.0f} GiB")
    assert beside < 1, "more than 1 GiB beside the features"
    against_the_loop(rows, labels, chosen.looped)
    against_membership(rows, labels, chosen.memory)


if __name__ == "__main__":
    main()
