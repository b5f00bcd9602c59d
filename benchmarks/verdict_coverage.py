"""Do verdicts hold what they promise? Synthetic studies with known truth, through `verdict` itself.

A study has 8 to 20 layers with true losses that are all equal, have one clear best, or follow a
smooth curve over depth. Training moves each probe's loss from its layer's by normal noise of
standard deviation √(2d)/n, the same on validation and test rows, because it is the same probe; the
eight blocks of training rows each have a share in it, so that refits without one of them tell how
much it is. Rows are a probit model: an image has a difficulty, which its group shares in
part, a layer has an ability, and neighbouring layers err alike; the latent is normal with variance
1, so that the mean of the losses is exact. Squared errors are squares of the same latent.

    python benchmarks/verdict_coverage.py --studies 1000
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, fields
from math import sqrt

import numpy as np
from scipy.stats import norm

from layerscope.stats.training_noise import jackknife
from layerscope.types import Losses, Score, Verdict
from layerscope.verdicts.comparison import Comparison, verdict

SHAPES = ("equal", "one best", "smooth")
LAYERS, ROWS = (8, 20), (500, 2000)
TRAIN = (1_000, 20_000)
WIDTHS = (64, 128, 256, 512)
HEADS = 2
BLOCKS = 8
"""Layers behind the trunk."""


@dataclass(frozen=True)
class Truth:
    """What a study was made with."""

    shape: str
    classes: bool
    grouped: bool
    layer: np.ndarray
    """(k,) expected loss of each layer, over training samples."""
    probe: np.ndarray
    """(k,) expected loss of the probe that was trained."""


@dataclass(frozen=True)
class Outcome:
    """What one verdict got right; NaN where a question does not arise."""

    shape: str
    classes: bool
    grouped: bool
    holds_best: float
    holds_best_holm: float
    size: float
    size_holm: float
    single: float
    single_holm: float
    at_trunk: float
    layer_gain: float
    """Whether the gain's interval holds the difference of the layers."""
    probe_gain: float
    """Whether it holds the difference of the probes that were trained."""
    last_gain: float
    value: float
    width: float
    """Of the gain's interval, in units of the trunk's true loss."""
    chosen_bias: float
    """Reported loss minus the layer's true one, in percent of it, for the cut chosen on val."""
    naive_bias: float
    """The same for the best of the test split itself."""
    naive_gain_bias: float
    naive_gain: float
    """Whether an interval around the naive gain would hold the layers' difference."""


def truths(shape: str, layers: int, rng: np.random.Generator) -> np.ndarray:
    floor = rng.uniform(0.1, 0.5)
    if shape == "equal":
        return np.full(layers, floor)
    if shape == "one best":
        worse = floor * (1 + rng.uniform(0.05, 0.3, layers))
        worse[rng.integers(layers)] = floor
        return worse
    depth = np.linspace(0, 1, layers)
    return floor * (1 + rng.uniform(0.1, 1.0) * (depth - rng.uniform(0.2, 1)) ** 2)


def latent(layers: int, rows: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """Standard normal (rows, layers): groups share a part, images share more, neighbours too."""
    group = np.repeat(rng.standard_normal((rows // size + 1, 1)), size, 0)[:rows]
    image = rng.standard_normal((rows, 1))
    own = np.empty((rows, layers))
    own[:, 0] = rng.standard_normal(rows)
    for i in range(1, layers):
        own[:, i] = 0.8 * own[:, i - 1] + 0.6 * rng.standard_normal(rows)
    # The own part is shared by the group too: a group is hard for one layer and not for another.
    steps = rng.standard_normal((rows // size + 1, layers))
    common = np.repeat(steps, size, 0)[:rows]
    return sqrt(0.2) * group + sqrt(0.4) * image + sqrt(0.3) * own + sqrt(0.1) * common


def losses(means: np.ndarray, rows: int, size: int, classes: bool, rng) -> np.ndarray:
    return lost(latent(len(means), rows, size, rng), means, classes)


def lost(drawn: np.ndarray, means: np.ndarray, classes: bool) -> np.ndarray:
    return (drawn < norm.ppf(means)).astype(float) if classes else means * drawn**2


def study(
    seed: int, noise: bool = True, train: tuple[int, int] = TRAIN
) -> tuple[Comparison, Truth]:
    rng = np.random.default_rng(seed)
    shape = SHAPES[seed % 3]
    classes, grouped = bool(seed // 3 % 2), bool(rng.random() < 1 / 3)
    layers = int(rng.integers(LAYERS[0], LAYERS[1] + 1))
    n_val, n_test = (int(n) for n in rng.integers(ROWS[0], ROWS[1] + 1, 2))
    size = int(rng.integers(2, 9)) if grouped else 1
    n_train = int(np.exp(rng.uniform(*np.log(train))))
    widths = np.sort(rng.choice(WIDTHS, layers))
    layer = truths(shape, layers, rng)
    share = np.sqrt(2 * np.minimum(widths, n_train)) / n_train
    of_blocks = rng.standard_normal((BLOCKS, layers)) * share * sqrt(BLOCKS) * noise
    without = (of_blocks.sum(0) - of_blocks) / (BLOCKS - 1)
    probe, *refits = np.clip(layer * (1 + np.vstack((of_blocks.mean(0), without))), 1e-3, 0.95)
    val = losses(probe, n_val, size, classes, rng)
    drawn = latent(layers, n_test, size, rng)
    test, *others = (lost(drawn, means, classes) for means in (probe, *refits))
    return (
        comparison(val, test, widths, n_train, size, classes, np.stack(others)),
        Truth(shape, classes, grouped, layer, probe),
    )


def comparison(
    val, test, widths: Sequence[int], n_train: int, size: int, classes: bool, refits=None
) -> Comparison:
    """Return the comparison of layers; ``refits`` are (blocks, rows, layers) losses of others."""
    layers = test.shape[1]
    trunk = layers - 1 - HEADS
    scores = tuple(
        Score(
            checkpoint="synthetic",
            source="synthetic",
            cut="trunk" if i == trunk else f"layer.{i}" if i < trunk else f"head.{i - trunk}",
            index=i,
            part="trunk" if i <= trunk else "head",
            width=int(widths[i]),
            depth=i / (layers - 1),
            pooling="mean",
            task="synthetic",
            estimator="logistic" if classes else "ridge",
            metric="top-1" if classes else "mse",
            direction="maximise" if classes else "minimise",
            primary=True,
            val=0.0,
            test=0.0,
            stderr=0.0,
            n_train=n_train,
            n_val=len(val),
            n_test=len(test),
            n_groups=-(-len(test) // size),
            seed=0,
            settings={},
            fingerprint="made",
        )
        for i in range(layers)
    )
    made = [() if refits is None else (jackknife(refits[:, :, i]),) for i in range(layers)]
    rows = tuple(Losses(val[:, i], test[:, i], None, it) for i, it in enumerate(made))
    return Comparison(scores, rows, (np.arange(len(test)) // size).astype(str))


def judged(
    seed: int, resamples: int, noise: bool = True, train: tuple[int, int] = TRAIN
) -> Outcome:
    item, truth = study(seed, noise, train)
    return outcome(item, truth, verdict(item, seed=seed, resamples=resamples))


def outcome(item: Comparison, truth: Truth, found: Verdict) -> Outcome:
    names = [score.cut for score in item.scores]
    best, trunk = names.index(found.best), names.index(found.trunk)
    test = np.array([rows.test.mean() for rows in item.losses])
    equal = truth.shape == "equal"
    top = names[int(truth.layer.argmin())]
    gain = truth.layer[trunk] - truth.layer[best]
    nan, held = float("nan"), lambda interval, value: float(interval.low <= value <= interval.high)
    worth = 1 - truth.layer[best] if truth.classes else truth.layer[best]
    naive = int(test.argmin())
    naive_gain = test[trunk] - test[naive] - (truth.layer[trunk] - truth.layer[naive])
    spread = item.losses[trunk].test - item.losses[naive].test
    error = 1.96 * spread.std() / sqrt(len(spread))
    same = best == trunk
    last = len(names) - 1
    return Outcome(
        truth.shape,
        truth.classes,
        truth.grouped,
        holds_best=nan if equal else float(top in found.tied),
        holds_best_holm=nan if equal else float(top in found.tied_holm),
        size=len(found.tied) / len(names),
        size_holm=len(found.tied_holm) / len(names),
        single=float(len(found.tied) == 1) if equal else nan,
        single_holm=float(len(found.tied_holm) == 1) if equal else nan,
        at_trunk=float(same),
        layer_gain=nan if same else held(found.gain, gain),
        probe_gain=nan if same else held(found.gain, truth.probe[trunk] - truth.probe[best]),
        last_gain=nan
        if best == last
        else held(found.gain_over_last, truth.layer[last] - truth.layer[best]),
        value=held(found.value, worth),
        width=nan if same else (found.gain.high - found.gain.low) / truth.layer[trunk],
        chosen_bias=100 * (test[best] / truth.layer[best] - 1),
        naive_bias=100 * (test[naive] / truth.layer[naive] - 1),
        naive_gain_bias=100 * naive_gain / truth.layer[trunk],
        naive_gain=nan if naive == trunk else float(abs(naive_gain) <= error),
    )


def outcomes(
    studies: int,
    resamples: int,
    noise: bool = True,
    train: tuple[int, int] = TRAIN,
    jobs: int = 1,
) -> list[Outcome]:
    work = ([seed, resamples, noise, train] for seed in range(studies))
    if jobs == 1:
        return [judged(*one) for one in work]
    with ProcessPoolExecutor(jobs) as pool:
        return list(pool.map(judged, *zip(*work, strict=True), chunksize=8))


def share(found: Sequence[Outcome], name: str) -> tuple[float, float, int]:
    """Mean of a column, its Monte-Carlo standard error, and how many studies it is over."""
    known = np.array([getattr(one, name) for one in found])
    known = known[~np.isnan(known)]
    if not len(known):
        return float("nan"), float("nan"), 0
    return float(known.mean()), float(known.std() / sqrt(len(known))), len(known)


def lines(found: Sequence[Outcome]) -> Iterator[str]:
    parts = {
        "all": found,
        "right or wrong": [one for one in found if one.classes],
        "squared": [one for one in found if not one.classes],
        "grouped": [one for one in found if one.grouped],
        "equal": [one for one in found if one.shape == "equal"],
        "one best": [one for one in found if one.shape == "one best"],
        "smooth": [one for one in found if one.shape == "smooth"],
    }
    yield f"{'':18}" + "".join(f"{name:>17}" for name in parts)
    for column in [field.name for field in fields(Outcome)][3:]:
        cells = [share(part, column) for part in parts.values()]
        yield f"{column:18}" + "".join(f"{m:9.3f} ±{e:.3f} " for m, e, _ in cells)
        yield f"{'':18}" + "".join(f"{n:>17}" for _, _, n in cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("studies", 200), ("resamples", 2000), ("jobs", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--fixed", action="store_true", help="probes that no training moves")
    parser.add_argument("--train", type=int, nargs=2, default=TRAIN, help="fewest and most rows")
    chosen = parser.parse_args()
    train = (chosen.train[0], chosen.train[1])
    found = outcomes(chosen.studies, chosen.resamples, not chosen.fixed, train, chosen.jobs)
    print("\n".join(lines(found)))


if __name__ == "__main__":
    main()
