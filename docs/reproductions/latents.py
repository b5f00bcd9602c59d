"""The tables of docs/reproductions/latents.md, computed from a folder of results.

    python docs/reproductions/latents.py results/
    python docs/reproductions/latents.py results/ grids/     # with the layers pooled by flat:9k

Every comparison is paired over the same test images; intervals are 95 % over test objects.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from layerscope.results import Results
from layerscope.stats.bootstrap import difference, resample
from layerscope.types import Interval, Score
from layerscope.verdicts import verdicts

Rows = npt.NDArray[np.float64]

LATENTS = ("rotation", "floor-hue", "spot-theta", "spot-phi", "spot-hue")
NETWORKS = ("rotation-objects3d", "simclr-objects3d")
PIXEL_CUTS = ("pixels.4x4", "pixels.16x16")
R2 = "r2"


class Cells:
    """Losses of every primary cell by checkpoint, task and cut, each cut in one pooling."""

    def __init__(self, folder: Path) -> None:
        self.results = Results(folder)
        every = self.results.scores()
        self.scores = {(s.checkpoint, s.task, s.cut): s for s in every if s.primary}
        self.r2 = {(s.checkpoint, s.task, s.cut): s.test for s in every if s.metric == R2}
        self.verdicts = {(v.checkpoint, v.task): v for v in verdicts(self.results)}

    def score(self, network: str, latent: str, cut: str) -> Score:
        return self.scores[network, f"objects3d-{latent}", cut]

    def losses(self, network: str, latent: str, cut: str) -> Rows:
        return self.results.losses(self.score(network, latent, cut)).test

    def chosen(self, network: str, latent: str) -> Score:
        """Return the score of the cut that the validation rows choose."""
        return self.score(network, latent, self.verdicts[network, f"objects3d-{latent}"].best)

    def explained(self, score: Score) -> float:
        return self.r2[score.checkpoint, score.task, score.cut]

    def pixels(self) -> str:
        """Return the name of the pixels that all networks see."""
        (name,) = {s.checkpoint for s in self.scores.values() if s.baseline == "pixels"}
        return name

    def random(self, network: str) -> list[str]:
        """Return the names of a network's random ones."""
        found = {
            s.checkpoint
            for s in self.scores.values()
            if (s.baseline, s.baseline_of) == ("random", network)
        }
        return sorted(found)

    def compare(self, latent: str, worse: Rows, better: Rows) -> Interval:
        """Return by how much, in percent of the first's error, the second's error is lower."""
        groups, _ = self.results.groups(NETWORKS[0], "objects3d", f"objects3d-{latent}")
        members = torch.tensor(np.unique(groups, return_inverse=True)[1])
        pair = torch.tensor(np.stack([worse, better], axis=1))
        gap = difference(resample(pair, members), 0, 1)
        low, high = gap.interval(0.95)
        scale = 100 / worse.mean()
        return Interval(*(float(v[0]) * scale for v in (gap.estimate, low, high)))


def percent(interval: Interval) -> str:
    return f"{interval.estimate:.1f} % [{interval.low:.1f}, {interval.high:.1f}]"


def span(values: Sequence[float], digits: int) -> str:
    return f"{min(values):.{digits}f} to {max(values):.{digits}f}"


def baselines(cells: Cells, grids: Cells | None) -> Iterator[str]:
    """Yield how much of each latent's variance is explained, and how the networks do on pixels."""
    wide = " | SimCLR, flat:9k" if grids else ""
    networks = f"random networks | rotation | SimCLR{wide}"
    yield f"| latent | pixels 4 × 4 | 16 × 16 | {networks} | SimCLR below pixels by |"
    yield "|---|---|---|---|---|---|---|" + "---|" * bool(grids)
    pixels = cells.pixels()
    for latent in LATENTS:
        random = [
            cells.explained(cells.chosen(name, latent))
            for network in NETWORKS
            for name in cells.random(network)
        ]
        shown = [
            *(f"{cells.explained(cells.score(pixels, latent, cut)):.3f}" for cut in PIXEL_CUTS),
            span(random, 3),
            *(f"{cells.explained(cells.chosen(name, latent)):.3f}" for name in NETWORKS),
        ]
        if grids is not None:
            shown.append(f"{grids.explained(grids.chosen(NETWORKS[1], latent)):.3f}")
        both = cells.chosen(pixels, latent), cells.chosen(NETWORKS[1], latent)
        gap = cells.compare(latent, *(cells.results.losses(score).test for score in both))
        yield f"| {latent} | {' | '.join(shown)} | {percent(gap)} |"


def best_cuts(cells: Cells) -> Iterator[str]:
    yield "| network | latent | best cut | test MSE | tied with | lower error than head.3 |"
    yield "|---|---|---|---|---|---|"
    for network in NETWORKS:
        for latent in LATENTS:
            v = cells.verdicts[network, f"objects3d-{latent}"]
            tied = ", ".join(cut for cut in v.tied if cut != v.best) or "none"
            value = f"{v.value.estimate:.4f} [{v.value.low:.4f}, {v.value.high:.4f}]"
            pair = (cells.losses(network, latent, cut) for cut in ("head.3", v.best))
            gain = percent(cells.compare(latent, *pair))
            yield f"| {network} | {latent} | `{v.best}` | {value} | {tied} | {gain} |"


def projector(cells: Cells) -> Iterator[str]:
    yield "| latent | MSE at the trunk | head.1 | head.2 | head.3 | trunk below head.3 by |"
    yield "|---|---|---|---|---|---|"
    for latent in LATENTS:
        cuts = ("trunk", "head.1", "head.2", "head.3")
        values = [f"{cells.score(NETWORKS[1], latent, cut).test:.4f}" for cut in cuts]
        pair = (cells.losses(NETWORKS[1], latent, cut) for cut in ("head.3", "trunk"))
        gap = cells.compare(latent, *pair)
        yield f"| {latent} | {' | '.join(values)} | {percent(gap)} |"


def training(cells: Cells) -> Iterator[str]:
    yield "| latent | network | MSE at random trunks | at the trained trunk | below their mean |"
    yield "|---|---|---|---|---|"
    for network in NETWORKS:
        for latent in LATENTS:
            names = cells.random(network)
            random = [cells.score(name, latent, "trunk").test for name in names]
            mean = np.mean([cells.losses(name, latent, "trunk") for name in names], axis=0)
            gap = cells.compare(latent, mean, cells.losses(network, latent, "trunk"))
            trained = cells.score(network, latent, "trunk").test
            cells_of_row = f"{span(random, 4)} | {trained:.4f} | {percent(gap)}"
            yield f"| {latent} | {network} | {cells_of_row} |"


def main() -> None:
    cells = Cells(Path(sys.argv[1]))
    grids = Cells(Path(sys.argv[2])) if len(sys.argv) > 2 else None
    for title, table in (
        ("Pixels, random networks, and what was trained", baselines(cells, grids)),
        ("Best cuts", best_cuts(cells)),
        ("SimCLR before and after its projector", projector(cells)),
        ("Trained against random weights, at the trunk", training(cells)),
    ):
        print(f"\n### {title}\n")
        print("\n".join(table))


if __name__ == "__main__":
    main()
