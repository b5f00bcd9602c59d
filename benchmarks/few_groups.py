"""How often each of twelve equal cuts stays tied when there are few test groups.

Rows share what their group has in common, neighbouring cuts vary alike, and all cuts are equally
good, so that every one of them should be tied in 95 % or more of the studies.

    python benchmarks/few_groups.py
"""

from __future__ import annotations

import argparse
from math import sqrt

import numpy as np
import torch

from layerscope.stats.bootstrap import p_values, resample

CUTS, SIZE = 12, 10
ALIKE = 0.8


def study(groups: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    own = rng.standard_normal((groups, CUTS))
    for cut in range(1, CUTS):
        own[:, cut] = ALIKE * own[:, cut - 1] + sqrt(1 - ALIKE**2) * own[:, cut]
    common = rng.standard_normal((groups, 1)) + own
    rows = np.repeat(common, SIZE, 0) + rng.standard_normal((groups * SIZE, CUTS))
    return torch.from_numpy(rows), torch.arange(groups).repeat_interleave(SIZE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=300)
    studies = parser.parse_args().studies
    print("groups  a cut is tied  a single winner")
    for groups in (3, 5, 10, 15, 20, 30):
        tied = torch.stack([
            p_values(resample(*study(groups, seed), resamples=1000, seed=seed)) > 0.05
            for seed in range(studies)
        ])  # fmt: skip
        share = tied.double().mean(1)
        alone = float((tied.sum(1) == 1).double().mean())
        error = float(share.std()) / sqrt(studies)
        print(f"{groups:6}  {100 * float(share.mean()):5.1f} % ± {error * 100:.1f}  {alone:.3f}")


if __name__ == "__main__":
    main()
