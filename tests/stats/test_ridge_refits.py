from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from layerscope.stats.moments import RunningCrossMoments
from layerscope.stats.ridge import RidgePath, ridge_path
from layerscope.stats.ridge_refits import without_rows


def planted(n: int, d: int) -> tuple[torch.Tensor, torch.Tensor, RidgePath]:
    rng = np.random.default_rng(n + d)
    rows = torch.tensor(rng.standard_normal((n, d)) * rng.uniform(0.1, 9, d) + 5)
    targets = torch.tensor(rng.standard_normal((n, 3))) + rows[:, :3] / 4
    running = RunningCrossMoments(d, 3)
    running.update(rows, targets)
    return rows, targets, ridge_path(running.compute())


@pytest.mark.parametrize(("n", "d"), [(60, 5), (60, 40), (40, 70)])
def test_it_is_ridge_on_the_rows_that_are_left(n: int, d: int):
    rows, targets, path = planted(n, d)
    penalties = torch.tensor([0.01, 0.5, 0.01], dtype=torch.float64)
    out = torch.arange(0, n, 6)
    left = np.setdiff1d(np.arange(n), out.numpy())
    weights, intercept = without_rows(path, rows[out], targets[out], penalties)
    z = path.spectrum.standardiser(rows)
    found = (z @ weights + intercept).numpy()
    for i, penalty in enumerate(penalties.tolist()):
        model = Ridge(alpha=penalty * len(left)).fit(z.numpy()[left], targets.numpy()[left, i])
        np.testing.assert_allclose(found[:, i], model.predict(z.numpy()), rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("share", [0.25, 0.5])
def test_rows_may_count_for_less(share: float):
    rows, targets, path = planted(60, 5)
    penalty = 0.3
    weight = np.where(np.arange(60) % 6 == 0, 1 - share, 1.0)
    found, intercept = without_rows(
        path, rows[::6], targets[::6], torch.full((3,), penalty, dtype=torch.float64), share
    )
    z = path.spectrum.standardiser(rows).numpy()
    model = Ridge(alpha=penalty * weight.sum()).fit(z, targets.numpy(), sample_weight=weight)
    np.testing.assert_allclose(found.T, model.coef_, rtol=1e-7, atol=1e-8)
    np.testing.assert_allclose(intercept, model.intercept_, rtol=1e-7)
