"""The tables of docs/reproductions/latents.md, computed from a folder of results.

    python docs/reproductions/latents.py results/

Every comparison is paired over the same test images; intervals are 95 % over test objects.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from layerscope.results import Results
from layerscope.stats.bootstrap import difference, resample
from layerscope.types import Interval, Losses, Score
from layerscope.verdicts import verdicts

LATENTS = ("rotation", "floor-hue", "spot-theta", "spot-phi", "spot-hue")
NETWORKS = ("rotation-objects3d", "simclr-objects3d")


class Cells:
    """Losses of every primary cell by checkpoint, task and cut."""

    def __init__(self, folder: Path) -> None:
        self.results = Results(folder)
        self.scores = {(s.checkpoint, s.task, s.cut): s for s in self.results.scores() if s.primary}
        self.verdicts = {(v.checkpoint, v.task): v for v in verdicts(self.results)}

    def score(self, network: str, latent: str, cut: str) -> Score:
        return self.scores[network, f"objects3d-{latent}", cut]

    def losses(self, network: str, latent: str, cut: str) -> Losses:
        return self.results.losses(self.score(network, latent, cut))

    def compare(self, latent: str, worse: tuple[str, str], better: tuple[str, str]) -> Interval:
        """Return by how much, in percent of the first's error, the second's error is lower."""
        pair = [self.losses(network, latent, cut).test for network, cut in (worse, better)]
        groups, _ = self.results.groups(worse[0], "objects3d", f"objects3d-{latent}")
        members = torch.tensor(np.unique(groups, return_inverse=True)[1])
        gap = difference(resample(torch.tensor(np.stack(pair, axis=1)), members), 0, 1)
        low, high = gap.interval(0.95)
        scale = 100 / pair[0].mean()
        return Interval(*(float(v[0]) * scale for v in (gap.estimate, low, high)))


def percent(interval: Interval) -> str:
    return f"{interval.estimate:.1f} % [{interval.low:.1f}, {interval.high:.1f}]"


def best_cuts(cells: Cells) -> Iterator[str]:
    yield "| network | latent | best cut | test MSE | tied with | lower error than head.3 |"
    yield "|---|---|---|---|---|---|"
    for network in NETWORKS:
        for latent in LATENTS:
            v = cells.verdicts[network, f"objects3d-{latent}"]
            tied = ", ".join(cut for cut in v.tied if cut != v.best) or "none"
            value = f"{v.value.estimate:.4f} [{v.value.low:.4f}, {v.value.high:.4f}]"
            gain = percent(cells.compare(latent, (network, "head.3"), (network, v.best)))
            yield f"| {network} | {latent} | `{v.best}` | {value} | {tied} | {gain} |"


def projector(cells: Cells) -> Iterator[str]:
    yield "| latent | MSE at the trunk | head.1 | head.2 | head.3 | trunk below head.3 by |"
    yield "|---|---|---|---|---|---|"
    for latent in LATENTS:
        cuts = ("trunk", "head.1", "head.2", "head.3")
        values = [f"{cells.score(NETWORKS[1], latent, cut).test:.4f}" for cut in cuts]
        gap = cells.compare(latent, (NETWORKS[1], "head.3"), (NETWORKS[1], "trunk"))
        yield f"| {latent} | {' | '.join(values)} | {percent(gap)} |"


def training(cells: Cells) -> Iterator[str]:
    yield "| latent | network | MSE at the random trunk | at the trained trunk | lower by |"
    yield "|---|---|---|---|---|"
    for network in NETWORKS:
        for latent in LATENTS:
            random = f"{network}-random"
            values = [
                f"{cells.score(name, latent, 'trunk').test:.4f}" for name in (random, network)
            ]
            gap = cells.compare(latent, (random, "trunk"), (network, "trunk"))
            yield f"| {latent} | {network} | {' | '.join(values)} | {percent(gap)} |"


def main() -> None:
    cells = Cells(Path(sys.argv[1]))
    for title, table in (
        ("Best cuts", best_cuts(cells)),
        ("SimCLR before and after its projector", projector(cells)),
        ("Trained against random weights, at the trunk", training(cells)),
    ):
        print(f"\n### {title}\n")
        print("\n".join(table))


if __name__ == "__main__":
    main()
