from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax
from sklearn.metrics import roc_auc_score

from layerscope.stats.auroc import auroc, log_odds, mean_auroc
from layerscope.stats.standard_error import standard_errors


def problem(n: int, share: float, ties: bool, columns: int = 1, seed: int = 0):
    """Scores that know the rare kind somewhat, and which rows are of it: at least two of each."""
    rng = np.random.default_rng(seed)
    positive = rng.random(n) < share
    positive[:4] = True, True, False, False
    scores = positive[:, None] + rng.standard_normal((n, columns))
    return (np.round(2 * scores) if ties else scores), positive


def rows_of(scores: np.ndarray, positive: np.ndarray) -> torch.Tensor:
    return auroc(torch.from_numpy(scores), torch.from_numpy(positive)[:, None])


def error_of(rows: torch.Tensor) -> float:
    return float(standard_errors(rows[:, None], torch.arange(len(rows))))


def placements(scores: np.ndarray, positive: np.ndarray):
    """V10 of the positive rows and V01 of the negative ones, by DeLong's eqs. 4 and 5."""
    first, second = scores[positive][:, None], scores[~positive][None]
    psi = (first > second) + 0.5 * (first == second)
    return psi.mean(1), psi.mean(0)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(("n", "share"), [(4, 0.5), (60, 0.5), (400, 0.02), (1000, 0.9)])
def test_it_is_scikit_learns(n, share, ties):
    scores, positive = problem(n, share, ties)
    expected = roc_auc_score(positive, scores[:, 0])
    assert float(rows_of(scores, positive).mean()) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(("n", "share"), [(4, 0.5), (60, 0.5), (400, 0.02), (1000, 0.9)])
def test_its_standard_error_is_that_of_delong(n, share, ties):
    scores, positive = problem(n, share, ties)
    v10, v01 = placements(scores[:, 0], positive)
    variance = v10.var(ddof=1) / len(v10) + v01.var(ddof=1) / len(v01)
    found = error_of(rows_of(scores, positive)[:, 0])
    assert found == pytest.approx(math.sqrt(variance), rel=1e-12)


def test_the_error_of_a_difference_is_that_of_delong():
    scores, positive = problem(300, 0.2, True, 2)
    (v10, v01), (w10, w01) = (placements(column, positive) for column in scores.T)
    variance = (v10 - w10).var(ddof=1) / len(v10) + (v01 - w01).var(ddof=1) / len(v01)
    rows = rows_of(scores, positive)
    assert error_of(rows[:, 0] - rows[:, 1]) == pytest.approx(math.sqrt(variance), rel=1e-12)


@pytest.mark.parametrize("share", [0.5, 0.1])
def test_its_standard_error_is_that_of_a_bootstrap(share):
    scores, positive = problem(300, share, False)
    rng = np.random.default_rng(1)
    drawn = torch.from_numpy(rng.integers(0, 300, (300, 2000)))
    every = torch.from_numpy(scores[:, 0])[drawn], torch.from_numpy(positive)[drawn]
    spread = float(auroc(*every).mean(0).std())
    assert error_of(rows_of(scores, positive)[:, 0]) == pytest.approx(spread, rel=0.1)


def test_columns_are_problems_of_their_own():
    scores, positive = problem(80, 0.3, True, 3)
    together = rows_of(scores, positive)
    for i in range(3):
        alone = rows_of(scores[:, i : i + 1], positive)[:, 0]
        torch.testing.assert_close(together[:, i], alone)


def test_a_turned_score_has_the_rest_of_the_area():
    scores, positive = problem(80, 0.3, True)
    turned = rows_of(-scores, positive)
    torch.testing.assert_close(turned.mean(), 1 - rows_of(scores, positive).mean())
    torch.testing.assert_close(turned, 1 - rows_of(scores, positive))


def test_scores_that_are_all_alike_are_a_guess():
    _, positive = problem(50, 0.3, False)
    assert rows_of(np.zeros((50, 1)), positive).unique().tolist() == [0.5]


def test_a_single_row_of_a_kind_leaves_its_own_spread_out():
    scores, positive = problem(50, 0.0, False)
    positive[1:] = False
    rows = rows_of(scores, positive)
    assert float(rows.mean()) == pytest.approx(roc_auc_score(positive, scores[:, 0]), abs=1e-12)
    assert math.isfinite(error_of(rows[:, 0]))


@pytest.mark.parametrize("alike", [0, 1])
def test_rows_of_one_kind_and_scores_that_are_none_have_no_area(alike):
    scores, positive = problem(10, 0.5, False, 2)
    assert rows_of(scores, np.full(10, bool(alike))).isnan().all()
    scores[3, 1] = np.nan
    found = rows_of(scores, positive)
    assert found[:, 0].isfinite().all()
    assert found[:, 1].isnan().all()


def test_the_mean_is_over_the_labels_of_which_there_are_both_kinds():
    scores, _ = problem(60, 0.5, False, 4)
    labels = np.random.default_rng(5).random((60, 4)) < 0.3
    labels[:, 1], labels[:, 2] = False, True
    found = mean_auroc(torch.from_numpy(scores), torch.from_numpy(labels))
    expected = roc_auc_score(labels[:, [0, 3]], scores[:, [0, 3]], average="macro")
    assert float(found.mean()) == pytest.approx(expected, abs=1e-12)
    some = slice(1, 3)
    alone = mean_auroc(torch.from_numpy(scores[:, some]), torch.from_numpy(labels[:, some]))
    assert alone.isnan().all()


@pytest.mark.parametrize("classes", [2, 5])
def test_log_odds_are_those_of_the_softmax(classes):
    scores = 3 * np.random.default_rng(0).standard_normal((40, classes))
    p = softmax(scores, 1)
    found = log_odds(torch.from_numpy(scores))
    np.testing.assert_allclose(found, np.log(p / (1 - p)), rtol=1e-9, atol=1e-9)


def test_log_odds_tell_apart_what_the_probability_rounds_to_one():
    margins = torch.tensor([40.0, 400.0, 4000.0], dtype=torch.float64)
    scores = torch.stack((torch.zeros(3, dtype=torch.float64), margins), 1)
    assert len(np.unique(log_softmax(scores.numpy(), 1)[:, 1])) < 3
    torch.testing.assert_close(log_odds(scores), torch.stack((-margins, margins), 1))
    certain = torch.tensor([[0.0, -torch.inf]])
    assert log_odds(certain).tolist() == [[math.inf, -math.inf]]
