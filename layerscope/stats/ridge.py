"""Ridge regression in closed form: the whole λ path and all targets from one decomposition.

The objective is (1/n)‖y − Zw − b‖² + λ‖w‖² on standardised features Z with a free intercept, so
that λ means the same at every layer and for every n. scikit-learn's ``Ridge(alpha)`` minimises
‖y − Zw − b‖² + alpha‖w‖²: alpha = n λ. With ZᵀZ/n = V diag(s) Vᵀ the solution is
w = V diag(1/(s + λ)) Vᵀ Zᵀ(y − ȳ)/n (Hastie, Tibshirani and Friedman, "The Elements of
Statistical Learning", eq. 3.47); λ → 0 is ordinary least squares of smallest norm.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from layerscope.stats.moments import BLOCK, CrossMoments
from layerscope.stats.spectrum import Spectrum, spectrum

GRID = (1e-6, 1e3)
"""First ends of the λ grid."""
PER_DECADE = 2
EXTENSIONS = 3
"""How many decades the grid may grow beyond an end that keeps winning."""
CACHED = 1024
"""Rows whose predictions under all λ stay in a processor's cache."""
ROUNDING = 1e-9
"""Relative difference of errors below which two λ are equally good."""


@dataclass(frozen=True, slots=True)
class RidgePath:
    """Every ridge solution of k targets on one layer's training rows."""

    spectrum: Spectrum
    projection: Tensor
    """(r, k) float64: covariance with the targets, in the eigenvectors' coordinates."""
    intercept: Tensor
    """(k,) float64: the targets' training means."""

    def weights(self, penalties: Tensor) -> Tensor:
        """Return (p, d, k) weights on standardised features, for (p,) values of λ."""
        return self.spectrum.vectors @ self._coefficients(penalties)

    def predict_each(self, rows: Tensor, penalties: Tensor) -> Tensor:
        """Return (n, k) predictions for (n, d) rows, where each target has its own of (k,) λ."""
        shrunk = self.projection / (self.spectrum.values[:, None] + penalties)
        weights = self.spectrum.vectors @ shrunk
        blocks = [self.spectrum.standardiser(block) @ weights for block in torch.split(rows, BLOCK)]
        return torch.cat(blocks) + self.intercept

    def predict(self, rows: Tensor, penalties: Tensor) -> Tensor:
        """Return (p, n, k) predictions for (n, d) rows of raw features."""
        weights = self.weights(penalties)
        blocks = [self.spectrum.standardiser(block) @ weights for block in torch.split(rows, BLOCK)]
        return torch.cat(blocks, dim=1) + self.intercept

    def only(self, components: slice) -> RidgePath:
        """Return the path of some of the target components."""
        return RidgePath(self.spectrum, self.projection[:, components], self.intercept[components])

    def errors(self, rows: Tensor, targets: Tensor, penalties: Tensor) -> Tensor:
        """Return (p, k) mean squared errors over (n, d) rows with their (n, k) targets."""
        return self._mean_squares(rows, targets, self.weights(penalties), None)

    def leave_one_out(self, rows: Tensor, targets: Tensor, penalties: Tensor) -> Tensor:
        """Return (p, k) mean squared leave-one-out errors over the training rows.

        Exact and without refitting: the residual of a row divided by one minus its leverage
        1/n + Σ a²/(n(s + λ)), where a are the rotated features (Golub, Heath and Wahba 1979,
        eq. 1.4). n λ and the standardisation are those of all rows, as in ``RidgeCV``.
        """
        shrunk = 1 / (self.spectrum.count * (self.spectrum.values + penalties[:, None]))
        return self._mean_squares(rows, targets, self._coefficients(penalties), shrunk)

    def _mean_squares(
        self, rows: Tensor, targets: Tensor, weights: Tensor, shrunk: Tensor | None
    ) -> Tensor:
        """Return (p, k) mean squared residuals; with (p, r) ``shrunk`` over 1 less leverages."""
        # Side by side, so that all penalties and targets are one product.
        wide, columns = len(weights), weights.permute(1, 0, 2).flatten(1)
        turn = self.spectrum.standardiser if shrunk is None else self.spectrum.rotate
        total = torch.zeros(wide, targets.shape[1], dtype=torch.float64)
        for block, answers in zip(
            torch.split(rows, CACHED), torch.split(targets, CACHED), strict=True
        ):
            turned = turn(block)
            predicted = (turned @ columns).view(len(block), wide, -1)
            residual = predicted.add_((self.intercept - answers)[:, None])
            if shrunk is not None:
                leverage = turned.square_() @ shrunk.T
                residual.div_((1 - 1 / self.spectrum.count - leverage)[..., None])
            total += residual.square_().sum(0)
        return total / len(rows)

    def _coefficients(self, penalties: Tensor) -> Tensor:
        return self.projection / (self.spectrum.values + penalties[:, None])[..., None]


def ridge_path(moments: CrossMoments) -> RidgePath:
    """Solve ridge for every λ and target from the training moments.

    Args:
        moments: Of (n, d) raw features and (n, k) targets; n may be below d.

    Returns:
        The path, which evaluates any λ ≥ 0 by a division.
    """
    basis = spectrum(moments.features)
    standardised = moments.cross * (basis.standardiser.scale[:, None] / moments.features.count)
    return RidgePath(basis, basis.vectors.T @ standardised, moments.targets.mean)


@dataclass(frozen=True, slots=True)
class Choice:
    """A λ chosen on a grid, and whether the grid was wide enough."""

    penalty: float
    error: float
    low: float
    """Smallest λ that was tried."""
    high: float
    """Largest λ that was tried."""
    edge: Literal["none", "low", "high"]
    """The end of the extended grid that still won; ``low`` is least squares in effect."""


def grid(low: float, high: float) -> Tensor:
    """Return (p,) float64 values of λ from ``low`` to ``high``, evenly spaced on a log scale."""
    first, last = torch.tensor([low, high], dtype=torch.float64).log10().tolist()
    steps = round((last - first) * PER_DECADE) + 1
    return torch.logspace(first, last, steps, dtype=torch.float64)


def choose_penalty(error_at: Callable[[Tensor], Tensor]) -> Choice:
    """Return the λ of least error, as :func:`choose_penalties` does.

    Args:
        error_at: Maps (p,) values of λ to their (p,) errors on rows held out from the fit.
    """
    (choice,) = choose_penalties(lambda penalties: [error_at(penalties)[:, None]])
    return choice


def choose_penalties(errors_at: Callable[[Tensor], Sequence[Tensor]]) -> list[Choice]:
    """Return the λ of least error for each of g targets.

    A target's grid grows by decades while one of its own ends wins. Errors within rounding count as
    equal; of equals those of least second error count, where there is one, and of these the
    strongest penalty is taken.

    Args:
        errors_at: Maps (p,) values of λ to (p, g) errors on rows held out from the fit, and to
            further ones that decide between equals.
    """
    tried = grid(*GRID)
    errors = list(errors_at(tried))
    lower = upper = torch.zeros(errors[0].shape[1], dtype=torch.int64)
    while True:
        first = PER_DECADE * (lower.max() - lower)
        last = len(tried) - 1 - PER_DECADE * (upper.max() - upper)
        best = _best_between(first, last, errors)
        downward = (best == first) & (lower < EXTENSIONS)
        upward = (best == last) & (upper < EXTENSIONS)
        if not bool((downward | upward).any()):
            return _choices(tried, errors[0], best, first, last)
        if (lower + downward).max() > lower.max():
            more = grid(float(tried[0]) / 10, float(tried[0]))[:-1]
            tried, errors = _joined([more, tried], [errors_at(more), errors])
        if (upper + upward).max() > upper.max():
            more = grid(float(tried[-1]), float(tried[-1]) * 10)[1:]
            tried, errors = _joined([tried, more], [errors, errors_at(more)])
        lower, upper = lower + downward, upper + upward


def strongest_of_least(errors: Tensor, dim: int) -> Tensor:
    """Return the places of the least errors along a dimension of ascending λ, of equals the last.

    Errors within rounding count as equal.
    """
    near = errors <= errors.amin(dim, keepdim=True) * (1 + ROUNDING)
    size = [1] * errors.dim()
    size[dim] = -1
    place = torch.arange(1, errors.shape[dim] + 1).view(size)
    return (near * place).argmax(dim)


def _joined(
    penalties: Sequence[Tensor], errors: Sequence[Sequence[Tensor]]
) -> tuple[Tensor, list[Tensor]]:
    """Return values of λ behind each other, with their errors."""
    return torch.cat(list(penalties)), [torch.cat(it) for it in zip(*errors, strict=True)]


def _best_between(first: Tensor, last: Tensor, errors: Sequence[Tensor]) -> Tensor:
    """Return the (g,) places of the best λ between each target's own ends."""
    place = torch.arange(len(errors[0]))[:, None]
    near = (place >= first) & (place <= last)
    for error in errors:
        least = error.masked_fill(~near, torch.inf).min(0).values
        near &= error <= least * (1 + ROUNDING)
    return (near * (place + 1)).argmax(0)


def _choices(
    tried: Tensor, errors: Tensor, best: Tensor, first: Tensor, last: Tensor
) -> list[Choice]:
    found = []
    for target, places in enumerate(zip(best.tolist(), first.tolist(), last.tolist(), strict=True)):
        at, low, high = places
        edge: Literal["none", "low", "high"] = "none"
        if at in (low, high):
            edge = "high" if at == high else "low"
        penalty, least, most = (float(tried[it]) for it in places)
        found.append(Choice(penalty, float(errors[at, target]), least, most, edge))
    return found
