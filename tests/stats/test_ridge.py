from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge, RidgeCV

from layerscope.stats.moments import RunningCrossMoments
from layerscope.stats.ridge import (
    EXTENSIONS,
    GRID,
    RidgePath,
    choose_penalties,
    choose_penalty,
    grid,
    ridge_path,
)

PENALTIES = torch.logspace(-6, 3, 19, dtype=torch.float64)


def problem(n: int = 150, d: int = 12, k: int = 3, noise: float = 0.5):
    generator = torch.Generator().manual_seed(n + d)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    rows = normal(n, d) @ normal(d, d) + 2
    return rows, rows @ normal(d, k) * 0.3 + noise * normal(n, k) + 5


def fit(rows: torch.Tensor, targets: torch.Tensor) -> RidgePath:
    running = RunningCrossMoments(rows.shape[1], targets.shape[1])
    running.update(rows, targets)
    return ridge_path(running.compute())


def standardised(rows: torch.Tensor) -> torch.Tensor:
    return (rows - rows.mean(0)) / rows.std(0, correction=0)


@pytest.mark.parametrize("shape", [(150, 12), (20, 40)])
def test_the_path_is_the_direct_solution_at_every_penalty(shape: tuple[int, int]):
    rows, targets = problem(*shape)
    z, y = standardised(rows), targets - targets.mean(0)
    weights = fit(rows, targets).weights(PENALTIES)
    for penalty, found in zip(PENALTIES, weights, strict=True):
        gram = z.T @ z / len(z) + penalty * torch.eye(z.shape[1], dtype=torch.float64)
        torch.testing.assert_close(
            found, torch.linalg.solve(gram, z.T @ y / len(z)), rtol=1e-8, atol=1e-8
        )


@pytest.mark.parametrize("shape", [(150, 12), (20, 40)])
def test_predictions_are_those_of_scikit_learn_with_alpha_n_lambda(shape: tuple[int, int]):
    rows, targets = problem(*shape)
    z = standardised(rows).numpy()
    predictions = fit(rows, targets).predict(rows, PENALTIES)
    for penalty, found in zip(PENALTIES.tolist(), predictions, strict=True):
        reference = Ridge(alpha=penalty * len(z), solver="svd").fit(z, targets.numpy()).predict(z)
        np.testing.assert_allclose(found, reference, rtol=1e-7, atol=1e-7)


def test_errors_are_the_mean_squares_of_the_predictions():
    rows, targets = problem()
    path = fit(rows[:100], targets[:100])
    residual = path.predict(rows[100:], PENALTIES) - targets[100:]
    torch.testing.assert_close(
        path.errors(rows[100:], targets[100:], PENALTIES), residual.square().mean(1)
    )


def test_some_components_alone_are_no_different():
    rows, targets = problem()
    torch.testing.assert_close(
        fit(rows, targets).only(slice(1, 3)).predict(rows, PENALTIES),
        fit(rows, targets[:, 1:3]).predict(rows, PENALTIES),
    )


def test_targets_with_a_penalty_each_are_the_columns_of_the_path():
    rows, targets = problem()
    path, own = fit(rows, targets), [0, 7, 18]
    found = path.predict_each(rows, PENALTIES[own])
    every = path.predict(rows, PENALTIES)
    expected = torch.stack([every[place, :, target] for target, place in enumerate(own)], 1)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("shape", [(150, 12), (30, 40)])
def test_leave_one_out_is_that_of_ridge_cv(shape: tuple[int, int]):
    rows, targets = problem(*shape)
    penalties = PENALTIES[PENALTIES > 1e-4]
    errors = fit(rows, targets).leave_one_out(rows, targets, penalties)
    reference = RidgeCV(alphas=(penalties * len(rows)).numpy(), store_cv_results=True)
    reference.fit(standardised(rows).numpy(), targets.numpy())
    np.testing.assert_allclose(errors.T, reference.cv_results_.mean(0), rtol=1e-8)


def test_leave_one_out_is_what_leaving_one_out_gives():
    rows, targets = problem(25, 4, 1)
    z, penalty = standardised(rows), 0.1
    residuals = []
    for out in range(25):
        kept = [i for i in range(25) if i != out]
        model = Ridge(alpha=penalty * 25).fit(z[kept].numpy(), targets[kept].numpy())
        residuals.append(float(targets[out, 0]) - model.predict(z[out : out + 1].numpy()).item())
    errors = fit(rows, targets).leave_one_out(rows, targets, torch.tensor([penalty]).double())
    assert float(errors[0, 0]) == pytest.approx(np.square(residuals).mean(), rel=1e-9)


def test_the_limit_of_no_penalty_is_least_squares_even_without_full_rank():
    rows, targets = problem(60, 5)
    rows = torch.cat((rows, rows[:, :2]), 1)
    design = torch.cat((standardised(rows), torch.ones(60, 1, dtype=torch.float64)), 1)
    reference = design @ torch.linalg.pinv(design) @ targets
    found = fit(rows, targets).predict(rows, torch.tensor([1e-12, 0.0], dtype=torch.float64))
    torch.testing.assert_close(found[0], reference, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(found[1], reference, rtol=1e-7, atol=1e-7)


def test_a_constant_feature_changes_nothing():
    rows, targets = problem()
    wider = torch.cat((rows, torch.full((150, 1), 0.1, dtype=torch.float64)), 1)
    torch.testing.assert_close(
        fit(rows, targets).predict(rows, PENALTIES), fit(wider, targets).predict(wider, PENALTIES)
    )


def test_rotating_white_features_changes_nothing():
    # Standardised features of identity correlation stay so under a rotation, and the penalty is
    # blind to it; in general only the limit of no penalty is.
    rows, targets = problem()
    values, vectors = torch.linalg.eigh(torch.cov(rows.T, correction=0))
    white = (rows - rows.mean(0)) @ vectors / values.sqrt()
    generator = torch.Generator().manual_seed(1)
    turn = torch.linalg.qr(torch.randn(12, 12, generator=generator, dtype=torch.float64)).Q
    torch.testing.assert_close(
        fit(white, targets).predict(white, PENALTIES),
        fit(white @ turn, targets).predict(white @ turn, PENALTIES),
    )
    least = torch.zeros(1, dtype=torch.float64)
    torch.testing.assert_close(
        fit(rows, targets).predict(rows, least),
        fit(rows @ turn, targets).predict(rows @ turn, least),
    )


def test_the_grid_has_round_ends_and_two_steps_a_decade():
    penalties = grid(*GRID)
    assert len(penalties) == 19
    assert float(penalties[0]) == pytest.approx(1e-6)
    assert float(penalties[-1]) == pytest.approx(1e3)


def test_the_chosen_penalty_is_that_of_a_search_with_scikit_learn():
    rows, targets = problem(120, 40, 2, noise=8.0)
    train, val = slice(0, 60), slice(60, 120)
    path = fit(rows[train], targets[train])
    choice = choose_penalty(lambda p: path.errors(rows[val], targets[val], p).mean(1))
    mean, deviation = rows[train].mean(0), rows[train].std(0, correction=0)
    z = ((rows - mean) / deviation).numpy()
    errors = {}
    for penalty in grid(*GRID).tolist():
        model = Ridge(alpha=60 * penalty, solver="svd").fit(z[train], targets[train].numpy())
        errors[penalty] = np.square(model.predict(z[val]) - targets[val].numpy()).mean()
    assert choice.penalty == min(errors, key=errors.__getitem__)
    assert choice.edge == "none"


def test_a_winning_edge_widens_the_grid_until_it_no_longer_wins():
    choice = choose_penalty(lambda p: (p.log10() - 4.0).square())
    assert choice.penalty == pytest.approx(1e4)
    assert choice.edge == "none"
    assert choice.high == pytest.approx(1e5)


def test_an_edge_that_never_stops_winning_is_recorded():
    choice = choose_penalty(lambda p: p)
    assert choice.edge == "low"
    assert choice.low == pytest.approx(GRID[0] / 10**EXTENSIONS)
    assert choose_penalty(lambda p: 1 / p).edge == "high"


def test_of_equal_penalties_the_strongest_wins():
    choice = choose_penalty(lambda p: (p > 2.0).double())
    assert choice.penalty == pytest.approx(1.0)


MINIMA = (-11.0, -7.5, -6.0, -0.5, 3.0, 4.0, 9.0)
"""Decadic logarithms of λ, inside the grid, at its ends and beyond all that it may grow to."""


def test_every_target_has_the_penalty_that_it_has_alone():
    minima = torch.tensor(MINIMA, dtype=torch.float64)

    def errors(penalties: torch.Tensor, some: slice = slice(None)) -> list[torch.Tensor]:
        return [(penalties.log10()[:, None] - minima[some]).square()]

    together = choose_penalties(errors)
    for target, choice in enumerate(together):
        own = slice(target, target + 1)
        assert choose_penalties(lambda penalties, own=own: errors(penalties, own)) == [choice]
    assert [choice.edge for choice in together] == ["low", *["none"] * 5, "high"]
    for choice, wanted in zip(together[1:-1], MINIMA[1:-1], strict=True):
        assert choice.penalty == pytest.approx(10**wanted)
        assert choice.low < choice.penalty < choice.high


def test_of_equal_errors_the_second_ones_decide():
    def errors(penalties: torch.Tensor) -> list[torch.Tensor]:
        first = (penalties > 2.0).double()[:, None].expand(-1, 2)
        second = (penalties.log10()[:, None] - torch.tensor([-3.0, 5.0])).square()
        return [first, second]

    assert [it.penalty for it in choose_penalties(errors)] == pytest.approx([1e-3, 1.0])


def test_no_penalty_is_tried_twice():
    tried: list[float] = []

    def errors(penalties: torch.Tensor) -> torch.Tensor:
        tried.extend(penalties.tolist())
        return penalties

    choose_penalty(errors)
    assert sorted(tried) == pytest.approx(grid(GRID[0] / 10**EXTENSIONS, GRID[1]).tolist())
