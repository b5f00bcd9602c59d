"""The regularisation path of softmax regression: from strong penalties to weak ones, in groups.

Each group of λ begins where the last ones point to, carried on along log λ, and with the curvature
that was learnt there: the pairs of L-BFGS at one λ are those at another, up to the penalty's own
part, which is known. With both, a group of three λ takes a third to two thirds of the passes that
it takes from zero; larger groups share products better, but begin further away.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from layerscope.stats.rows import Rows
from layerscope.stats.softmax import GAP, Convergence, Labelling, Solution, Start, solve
from layerscope.stats.spectrum import Spectrum

GROUP = 3
"""λ that are solved in the same passes."""
TOGETHER = 1 << 20
"""Parameters of the problems that are solved at a time: pairs of more would fill the memory."""


class WarmStart:
    """What one labelling's last solutions tell of the next ones."""

    def __init__(self) -> None:
        self._logs = torch.zeros(0, dtype=torch.float64)
        self._last: Solution | None = None

    def add(self, penalties: Tensor, solution: Solution) -> None:
        """Take in the solution at (l,) weaker penalties than those before."""
        joined = solution if self._last is None else _joined([self._last, solution])
        self._logs = torch.cat((self._logs, penalties.log().to(self._logs)))[-2:]
        rotated, intercept = joined.rotated[:, -2:], joined.intercept[:, -2:]
        self._last = Solution(rotated, intercept, solution.convergence, solution.curvature)

    def ahead(self, penalties: Tensor) -> Start | None:
        """Return where to begin at (l,) penalties: at most a step further along log λ, or None."""
        if self._last is None:
            return None
        size, last = len(penalties), self._last
        weights, intercept = last.rotated[:, -1:], last.intercept[:, -1:]
        if len(self._logs) < 2:
            weights, intercept = weights.expand(-1, size, -1, -1), intercept.expand(-1, size, -1)
            return Start(weights, intercept, last.curvature)
        before, here = self._logs
        steps = ((penalties.log() - here) / (here - before)).clamp(max=1.0).to(weights)
        slope = weights - last.rotated[:, -2:-1]
        drift = torch.nan_to_num(intercept - last.intercept[:, -2:-1])
        weights = weights + steps[:, None, None] * slope
        return Start(weights, intercept + steps[:, None] * drift, last.curvature)


def solve_path(
    rows: Rows,
    basis: Spectrum,
    labellings: Sequence[Labelling],
    penalties: Tensor,
    *,
    gap: float = GAP,
    warm_starts: Sequence[WarmStart] | None = None,
) -> list[Solution]:
    """Solve all draws of all labellings at all penalties, some of them at a time.

    Args:
        rows: As for :func:`layerscope.stats.softmax.solve`.
        basis: As there.
        labellings: As there.
        penalties: (l,) λ > 0 in descending order.
        gap: As there.
        warm_starts: Of each labelling, from solutions at stronger penalties; they are carried on.

    Returns:
        One solution for each labelling, its convergence beside it.
    """
    kept = warm_starts if warm_starts is not None else [WarmStart() for _ in labellings]
    found: list[list[Solution]] = [[] for _ in labellings]
    for part in torch.split(penalties, _together(labellings, basis.rank)):
        starts = [warm_start.ahead(part) for warm_start in kept]
        solutions = solve(rows, basis, labellings, part, gap=gap, starts=starts)
        for warm_start, mine, solution in zip(kept, found, solutions, strict=True):
            warm_start.add(part, solution)
            mine.append(solution)
    return [_joined(mine) for mine in found]


def _together(labellings: Sequence[Labelling], rank: int) -> int:
    each = sum(len(it.counts) * it.classes for it in labellings) * (rank + 1)
    return min(GROUP, max(1, TOGETHER // each))


def _joined(found: Sequence[Solution]) -> Solution:
    ends = [it.convergence for it in found]
    return Solution(
        torch.cat([it.rotated for it in found], 1),
        torch.cat([it.intercept for it in found], 1),
        Convergence(
            torch.cat([it.objective for it in ends], 1),
            torch.cat([it.gap for it in ends], 1),
            torch.cat([it.passes for it in ends], 1),
            torch.cat([it.converged for it in ends], 1),
        ),
        found[-1].curvature,
    )
