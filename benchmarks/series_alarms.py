"""How often is a layer said to over-fit that does not, and which declines are found?

Studies with known truth, through :mod:`layerscope.stats.trend` itself. A run has T snapshots, and
its layers an accuracy of 70 % that is stationary, or rises by 20 points and then stays, and perhaps
declines: linearly over the last fifth of the run, abruptly before its last 30 %, or slowly from the
middle. Each snapshot moves it by normal noise that validation and test rows share, and layers in
half. Rows are a probit model: an image has a difficulty (which its group shares in half), the
network drifts along training, and each snapshot errs in its own way.

    python benchmarks/series_alarms.py --jobs 2
"""

from __future__ import annotations

import argparse
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from math import sqrt

import numpy as np
import torch
from scipy.special import ndtri

from layerscope.stats.trend import Run, decline, lowest_average, moving_average

ACCURACY = 0.7
RISE = (20.0, 0.12)
"""Points, and the share of the run in which all but 1/e of them are gained."""
SHAPES = ("late", "abrupt", "slow")
POINTS = (1, 2, 5)
SHARED = 0.5
"""Correlation of the snapshot noise of two layers."""


@dataclass(frozen=True)
class Setting:
    """What a study is made with."""

    snapshots: int
    noise: float
    """Standard deviation of a snapshot, in points."""
    rows: int
    """Of validation, and of test."""
    group: int = 1
    """Rows in each group."""
    lasting: float = 0.0
    """Autocorrelation of the snapshot noise."""


SNAPSHOTS = (5, 10, 30, 50)
GRID = [
    Setting(snapshots, noise, rows)
    for snapshots in SNAPSHOTS
    for noise, rows in (
        *((1.0, rows) for rows in (2_000, 10_000, 500)),
        (0.3, 2_000),
        *((0.0, rows) for rows in (2_000, 10_000, 500)),
    )
]
GROUPED = [Setting(one, noise, 2_000, group=20) for one in SNAPSHOTS for noise in (1.0, 0.0)]
LASTING = [Setting(one, 1.0, 2_000, lasting=0.5) for one in SNAPSHOTS]
PARTS = {"grid": GRID, "lasting": LASTING, "grouped": GROUPED}
QUIET = [f"{name} {which}" for name in ("flat", "rise") for which in ("last", "early", "contrast")]
QUIET += ["slow 5 contrast"]
POWER = [f"{shape} {points} last" for shape in SHAPES for points in POINTS]


def curve(snapshots: int, rises: bool, shape: str = "", points: float = 0.0) -> np.ndarray:
    """Return an underlying accuracy."""
    x = np.linspace(0, 1, snapshots)
    fallen = {
        "": 0 * x,
        "late": np.clip((x - 0.8) / 0.2, 0, 1),
        "abrupt": (x >= 0.7).astype(float),
        "slow": np.clip((x - 0.5) / 0.5, 0, 1),
    }[shape]
    gained = RISE[0] * np.exp(-x / RISE[1]) if rises else 0 * x
    return ACCURACY - (gained + points * fallen) / 100


def snapshot_noise(setting: Setting, rng: np.random.Generator) -> np.ndarray:
    """Return (2, T) noise of the accuracy of two layers."""
    common, own = rng.standard_normal((2, 2, setting.snapshots))
    found = sqrt(SHARED) * common[:1] + sqrt(1 - SHARED) * own
    for t in range(1, setting.snapshots):
        rest = sqrt(1 - setting.lasting**2)
        found[:, t] = setting.lasting * found[:, t - 1] + rest * found[:, t]
    return setting.noise / 100 * found


def latent(setting: Setting, rng: np.random.Generator) -> np.ndarray:
    """Return (2, T, n) standard normal: who errs is alike over snapshots and layers."""

    def normal(*shape: int) -> np.ndarray:
        own = rng.standard_normal((*shape, setting.rows), dtype=np.float32)
        if setting.group == 1:
            return own
        shared = rng.standard_normal((*shape, setting.rows // setting.group), dtype=np.float32)
        return sqrt(0.5) * (own + shared.repeat(setting.group, axis=-1))

    drift = normal(2, setting.snapshots)
    for t in range(1, setting.snapshots):
        drift[:, t] = 0.9 * drift[:, t - 1] + sqrt(1 - 0.9**2) * drift[:, t]
    own = normal(2, setting.snapshots)
    return sqrt(0.5) * normal() + sqrt(0.2) * drift + sqrt(0.3) * own


def run(setting: Setting, losses: np.ndarray) -> Run:
    """Return a run of (k, T, n) losses, with the covariance of their means over groups."""
    layers, snapshots, rows = losses.shape
    flat = losses.reshape(layers * snapshots, rows)
    centred = flat - flat.mean(1, keepdims=True)
    groups = rows // setting.group
    sums = centred.reshape(len(flat), groups, setting.group).sum(2)
    covariance = sums @ sums.T / rows**2 * groups / (groups - 1)
    shape = (layers, snapshots, layers, snapshots)
    means = flat.mean(1, dtype=np.float64).reshape(layers, snapshots)
    return Run(
        torch.from_numpy(means),
        torch.from_numpy(covariance.astype(np.float64)).reshape(shape),
        tuple(float(t) for t in range(snapshots)),
        groups,
    )


def of_layers(whole: Run, *layers: int) -> Run:
    """Return the run of some layers only."""
    some = list(layers)
    return replace(whole, losses=whole.losses[some], covariance=whole.covariance[some][:, :, some])


@dataclass(frozen=True)
class Outcome:
    """What one study found, by name of the question."""

    alarms: dict[str, bool]
    covered: dict[str, bool]


def study(setting: Setting, draws: int, seed: int) -> Outcome:
    """Judge runs without a decline, and each decline in turn on the same noise."""
    torch.set_num_threads(1)
    rng = np.random.default_rng(seed)
    moved = snapshot_noise(setting, rng)
    val, test = latent(setting, rng), latent(setting, rng)
    alarms, covered = {}, {}

    def judge(name: str, truth: np.ndarray, both: bool) -> None:
        wrong = ndtri(1 - np.clip(truth + moved, 1e-3, 1 - 1e-3)).astype(np.float32)
        count = 2 if both else 1
        chosen = (val[:count] < wrong[:count, :, None]).mean(2)
        whole = run(setting, (test[:count] < wrong[:count, :, None]).astype(np.float32))
        peaks = [lowest_average(torch.from_numpy(one)) for one in chosen]
        average = moving_average(setting.snapshots).numpy() @ truth.T
        falls = [average[peak, i] - average[-1, i] for i, peak in enumerate(peaks)]
        asked = {"last": ([0], falls[0])}
        if both:
            asked |= {"early": ([1], falls[1]), "contrast": ([0, 1], falls[0] - falls[1])}
        for which, (layers, true) in asked.items():
            part = of_layers(whole, *layers)
            found = decline(part, [peaks[i] for i in layers], draws=draws, seed=seed)
            alarms[f"{name} {which}"] = found.low > 0
            covered[f"{name} {which}"] = found.low - 1e-9 <= true <= found.high + 1e-9

    for name, rises in (("flat", False), ("rise", True)):
        level = curve(setting.snapshots, rises)
        judge(name, np.stack([level, level]), both=True)
    for shape in SHAPES:
        for points in POINTS:
            fallen = curve(setting.snapshots, True, shape, points)
            judge(
                f"{shape} {points}",
                np.stack([fallen, fallen]),
                both=shape == "slow" and points == 5,
            )
    return Outcome(alarms, covered)


def line(one: Setting, studies: int, draws: int, pool: ProcessPoolExecutor) -> str:
    """Return what was found in one setting, in percent."""
    found = list(pool.map(partial(study, one, draws), range(studies), chunksize=5))
    shares = [100 * np.mean([it.alarms[name] for it in found]) for name in [*QUIET, *POWER]]
    held = 100 * np.mean([list(it.covered.values()) for it in found])
    what = (one.snapshots, f"{one.noise:g}", one.rows, one.group, f"{one.lasting:g}")
    cells = [*map(str, what), *(f"{share:.0f}" for share in [*shares, held])]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("studies", 100), ("draws", 300), ("jobs", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=list(PARTS))
    chosen = parser.parse_args()
    header = ["T", "noise", "rows", "group", "AR", *QUIET, *POWER, "covered"]
    print("| " + " | ".join(header) + " |\n" + "|---" * len(header) + "|", flush=True)
    with ProcessPoolExecutor(chosen.jobs) as pool:
        for one in (setting for part in chosen.parts for setting in PARTS[part]):
            print(line(one, chosen.studies, chosen.draws, pool), flush=True)


if __name__ == "__main__":
    main()
