"""The whole λ path of many cuts and targets: one eigendecomposition against RidgeCV per cut.

Both choose λ for all targets of a cut together by exact leave-one-out, on the same standardised
float64 features and the same grid, and must reach the same errors before times are compared.

    python benchmarks/ridge.py --rows 5000 --width 256
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from sklearn.linear_model import RidgeCV

from layerscope.stats.moments import RunningCrossMoments
from layerscope.stats.ridge import ridge_path

PENALTIES = torch.logspace(-6, 3, 22, dtype=torch.float64)


def cuts(count: int, rows: int, width: int, targets: int):
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    answers = normal(rows, targets)
    for _ in range(count):
        spectrum = torch.logspace(0, -2, width, dtype=torch.float64)
        features = normal(rows, width) * spectrum @ normal(width, width)
        features[:, :targets] += answers
        mean, deviation = features.mean(0), features.std(0, correction=0)
        yield (features - mean) / deviation, answers


def ours(features: torch.Tensor, answers: torch.Tensor) -> np.ndarray:
    running = RunningCrossMoments(features.shape[1], answers.shape[1])
    running.update(features, answers)
    return ridge_path(running.compute()).leave_one_out(features, answers, PENALTIES).numpy()


def theirs(features: torch.Tensor, answers: torch.Tensor) -> np.ndarray:
    alphas = (PENALTIES * len(features)).numpy()
    model = RidgeCV(alphas=alphas, store_cv_results=True)
    return model.fit(features.numpy(), answers.numpy()).cv_results_.mean(0).T


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("cuts", 12), ("rows", 5000), ("width", 256), ("targets", 12)):
        parser.add_argument(f"--{name}", type=int, default=default)
    chosen = parser.parse_args()
    seconds = {"ours": 0.0, "RidgeCV": 0.0}
    worst = 0.0
    for solve in (ours, theirs):  # loads what is loaded once
        solve(*next(cuts(1, 2_000, 64, 2)))
    for features, answers in cuts(chosen.cuts, chosen.rows, chosen.width, chosen.targets):
        errors = []
        for name, solve in (("ours", ours), ("RidgeCV", theirs)):
            start = time.perf_counter()
            errors.append(solve(features, answers))
            seconds[name] += time.perf_counter() - start
        worst = max(worst, float(np.abs(errors[0] / errors[1] - 1).max()))
    assert worst < 1e-6, f"the errors differ by {worst:.1e}"
    print(f"{chosen.cuts} cuts × {len(PENALTIES)} λ × {chosen.targets} targets, {chosen.rows} rows")
    for name, taken in seconds.items():
        print(f"{name:8} {taken:8.2f} s")
    print(f"ratio    {seconds['RidgeCV'] / seconds['ours']:8.1f}, errors equal to {worst:.0e}")


if __name__ == "__main__":
    main()
