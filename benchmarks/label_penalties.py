"""By which rule should each label's λ be chosen? Planted labels, judged on many test rows.

A share of the labels nobody can learn; the others lie in the leading directions of the features, in
the trailing ones, or in all, and are as rare as asked for. Reported is the mean over the learnable
labels of the average precision (or the area under the ROC curve) on 3,000 test rows, and how much
the best λ of the grid by the test rows themselves would give.

    python benchmarks/label_penalties.py --studies 4
"""

from __future__ import annotations

import argparse
from dataclasses import astuple, dataclass

import torch
from torch import Tensor

from layerscope.stats.auroc import auroc
from layerscope.stats.average_precision import average_precision
from layerscope.stats.moments import RunningCrossMoments
from layerscope.stats.ridge import GRID, grid, ridge_path

LABELS, TEST = 12, 3_000
METRICS = {"mean-average-precision": average_precision, "auroc": auroc}
SLACK = (0.5, 1.0)
"""Standard errors within which λ are called equal, in the rules that do."""


@dataclass(frozen=True)
class Case:
    """What a study is made with."""

    train: int
    val: int
    width: int
    hopeless: float
    """Share of labels that nobody can learn."""
    frequency: float
    """Of a label, times 0.4 to 2.7."""
    decay: float
    """Eigenvalue i of the features falls as i to minus this."""


CASES = (
    Case(1000, 300, 64, 0.0, 0.1, 0),
    Case(1000, 300, 64, 0.75, 0.1, 1),
    Case(1000, 300, 128, 0.75, 0.03, 2),
    Case(300, 150, 128, 0.5, 0.1, 1),
    Case(300, 150, 256, 0.9, 0.05, 1),
    Case(3000, 1000, 128, 0.75, 0.02, 2),
    Case(3000, 1000, 256, 0.5, 0.3, 1),
    Case(500, 100, 256, 0.75, 0.02, 1),
)


def study(case: Case, seed: int) -> tuple[tuple[Tensor, Tensor], ...]:
    """Return (p, n, k) predictions and (n, k) labels of val and of test, of learnable labels first.

    Labels that training or test lacks are left out.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    d, parts = case.width, [case.train, case.val, TEST]
    hidden = normal(sum(parts), d)
    scale = torch.arange(1, d + 1, dtype=torch.float64) ** (-case.decay / 2)
    rows = (hidden * scale) @ torch.linalg.qr(normal(d, d)).Q
    weights = normal(d, LABELS)
    weights[d // 8 :, ::3], weights[: d // 2, 1::3] = 0, 0
    strength = torch.rand(LABELS, generator=generator) * 2 + 0.5
    strength[LABELS - round(case.hopeless * LABELS) :] = 0
    latent = hidden @ (weights / weights.norm(dim=0)) * strength + normal(sum(parts), LABELS)
    spread = torch.rand(LABELS, generator=generator, dtype=torch.float64) * 2 - 1
    share = (case.frequency * spread.exp()).clamp(max=0.5)
    marks = latent > torch.stack([
        column.quantile(1 - it) for column, it in zip(latent.T, share, strict=True)
    ])  # fmt: skip
    split = [*zip(torch.split(rows, parts), torch.split(marks.double(), parts), strict=True)]
    running = RunningCrossMoments(d, LABELS)
    running.update(*split[0])
    path = ridge_path(running.compute())
    known = (strength > 0) & split[0][1].bool().any(0) & split[2][1].bool().any(0)
    order = torch.cat((known.nonzero()[:, 0], (strength == 0).nonzero()[:, 0]))
    return tuple(
        (path.predict(held, grid(*GRID))[..., order], own[:, order]) for held, own in split[1:]
    )


def chosen(predicted: Tensor, marks: Tensor, metric: str) -> dict[str, Tensor]:
    """Return by rule the (k,) places of the λ that the validation rows choose."""
    squares = (predicted - marks).square().mean(1)
    rows = METRICS[metric](predicted.transpose(0, 1), marks[:, None]).nan_to_num(0.0)
    values = rows.mean(0)
    best, at = values.max(0)
    off = rows - rows.gather(1, at.expand(len(rows), 1, -1))
    error = off.std(0) / len(rows) ** 0.5

    def least_square(near: Tensor) -> Tensor:
        return squares.masked_fill(~near, torch.inf).argmin(0)

    rules = {
        "one λ, pooled squared error": squares.mean(1).argmin().expand(len(at)),
        "own λ, squared error": squares.argmin(0),
        "own λ, metric": least_square(values >= best - 1e-9),
    }
    for slack in SLACK:
        rules[f"within {slack:g} errors"] = least_square(values >= best - slack * error)
    return rules


def main() -> None:
    """Print one line for each case, and the oracle's gain over each rule."""
    asked = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    asked.add_argument("--studies", type=int, default=4)
    asked.add_argument("--metric", choices=METRICS, default="mean-average-precision")
    options = asked.parse_args()
    torch.set_num_threads(1)
    for case in CASES:
        found: dict[str, list[Tensor]] = {}
        for seed in range(options.studies):
            (on_val, val), (on_test, test) = study(case, seed)
            learnable = LABELS - round(case.hopeless * LABELS) - (LABELS - val.shape[1])
            rows = METRICS[options.metric](on_test.transpose(0, 1), test[:, None])
            worth = rows.mean(0)[:, :learnable]
            for rule, places in chosen(on_val, val, options.metric).items():
                picked = worth.gather(0, places[None, :learnable])[0]
                found.setdefault(rule, []).append(picked)
            found.setdefault("oracle", []).append(worth.max(0).values)
        means = {rule: float(torch.cat(it).mean()) for rule, it in found.items()}
        words = (f"{rule} {mean:.3f};" for rule, mean in means.items())
        print(astuple(case), *words, flush=True)


if __name__ == "__main__":
    main()
