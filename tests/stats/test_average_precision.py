from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from layerscope.stats.average_precision import average_precision, mean_average_precision


def problem(n: int, ties: bool, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 5, n) if ties else rng.standard_normal(n)
    relevant = rng.integers(0, 2, n)
    relevant[0] = 1
    return torch.from_numpy(scores).double(), torch.from_numpy(relevant)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("n", [1, 2, 40, 300])
def test_it_is_scikit_learns(n, ties):
    scores, relevant = problem(n, ties)
    expected = average_precision_score(relevant, scores)
    assert float(average_precision(scores, relevant).mean()) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("ties", [False, True])
def test_the_rows_are_the_derivatives_by_their_weights(ties):
    scores, relevant = problem(30, ties)
    value = average_precision_score(relevant, scores)
    step = 1e-6
    for row, found in enumerate(average_precision(scores, relevant)):
        ends = []
        for sign in (1, -1):
            weights = np.ones(30)
            weights[row] += sign * step
            ends.append(average_precision_score(relevant, scores, sample_weight=weights))
        influence = (ends[0] - ends[1]) / (2 * step)
        assert float(found) == pytest.approx(value + 30 * influence, abs=1e-6)


def test_the_mean_is_over_the_labels_that_a_row_has():
    scores = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    relevant = (torch.rand(50, 4, generator=torch.Generator().manual_seed(1)) > 0.7).long()
    relevant[:, 2] = 0
    kept = [0, 1, 3]
    expected = average_precision_score(relevant[:, kept], scores[:, kept], average="macro")
    found = mean_average_precision(scores, relevant)
    assert float(found.mean()) == pytest.approx(expected, rel=1e-12)
    assert mean_average_precision(scores, relevant * 0).isnan().all()


def test_columns_are_problems_of_their_own():
    scores, relevant = problem(30, True)
    both = average_precision(torch.stack((scores, -scores), 1), relevant[:, None])
    torch.testing.assert_close(both[:, 0], average_precision(scores, relevant))
    torch.testing.assert_close(both[:, 1], average_precision(-scores, relevant))


def test_scores_that_are_no_numbers_have_none():
    scores, relevant = problem(30, False)
    scores[3] = torch.nan
    assert average_precision(scores, relevant).isnan().all()
    assert average_precision(-relevant.double(), relevant * 0).isnan().all()
