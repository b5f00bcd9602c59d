"""Rows that share neighbours: the stated error of a dimension is its spread over samples."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from layerscope.errors import EstimatorError
from layerscope.estimators.dimension import MORE, NeighboursByScale
from layerscope.stats.half_samples import halves_of, standard_error_of_halves
from layerscope.stats.intrinsic_dimension import (
    levina_bickel,
    nearest_distances,
    two_nn,
    two_nn_by_line,
)
from layerscope.stats.standard_error import standard_errors

K = 8


def found(rows: torch.Tensor, groups: torch.Tensor) -> NeighboursByScale:
    return NeighboursByScale((nearest_distances(rows, K, MORE * K),), (len(rows),), groups, rows)


@pytest.mark.parametrize(("n", "each"), [(160, 1), pytest.param(240, 2, marks=pytest.mark.slow)])
def test_it_is_the_spread_over_samples(n: int, each: int):
    rng = np.random.default_rng(0)
    turn = rng.standard_normal((4, 12)) / 2
    groups, values, errors, by_row = torch.arange(n) // each, [], [], []
    for seed in range(100):
        images = rng.uniform(-1, 1, (n // each, 4)).repeat(each, 0)
        images += (each > 1) * 0.5 * rng.standard_normal(images.shape)
        near = found(torch.from_numpy(np.tanh(images @ turn)), groups)
        pair, several = near.distances(2), near.distances(K)
        values.append([two_nn(pair), two_nn_by_line(pair), levina_bickel(several)])
        errors.append(
            near.errors(2, (two_nn, two_nn_by_line), seed) + near.errors(K, [levina_bickel], seed)
        )
        inverse = (several[:, -1:] / several[:, :-1]).log().mean(1)
        by_row.append(float(standard_errors(inverse[:, None], groups) / inverse.mean() ** 2))
    spread = np.std(values, axis=0, ddof=1)
    ratio = np.sqrt(np.mean(np.square(errors), axis=0)) / spread
    # Where neighbours are partly of the same group a half of the groups is another scale.
    least = 0.85 if each == 1 else 0.75
    assert ((ratio > least) & (ratio < 1.2)).all(), ratio
    if each == 1:
        assert np.mean(by_row) / spread[2] < 0.85  # as if rows were independent


@pytest.mark.parametrize("more", [0, MORE * K])
def test_neighbours_in_a_half_are_those_of_its_rows_alone(more: int):
    rng = np.random.default_rng(1)
    rows = torch.from_numpy(rng.standard_normal((90, 5)))
    near = nearest_distances(rows, K, more)
    for half in halves_of(torch.arange(90) // 3, 0, 5):
        assert half.view(30, 3).all(1).sum() == half.view(30, 3).any(1).sum() == 15
        known = near.among(half, K)
        direct = nearest_distances(rows[half], K).distances
        assert (known is None) == (more == 0)  # eight of eight are never all in one half
        if known is not None:
            torch.testing.assert_close(known, direct)


def test_where_the_known_neighbours_do_not_tell_others_are_looked_for():
    """Groups of many near copies: all the known neighbours of a row are in its own group."""
    rng = np.random.default_rng(2)
    centres = rng.standard_normal((6, 1, 4))
    rows = torch.from_numpy((centres + 1e-3 * rng.standard_normal((6, 50, 4))).reshape(-1, 4))
    groups = torch.arange(50).repeat(6)  # a group has one row in every cloud
    near = found(rows, groups)
    by_hand = []
    for half in halves_of(groups, 0):
        by_hand.append([[levina_bickel(nearest_distances(rows[it], K).distances)]
                        for it in (half, ~half)])  # fmt: skip
    expected = standard_error_of_halves(torch.tensor(by_hand, dtype=torch.float64))
    assert near.errors(K, [levina_bickel], 0) == pytest.approx(expected.tolist())


def test_a_single_group_has_no_error():
    rows = torch.from_numpy(np.random.default_rng(3).standard_normal((40, 3)))
    with pytest.raises(EstimatorError, match="at least 2 independent groups"):
        found(rows, torch.zeros(40, dtype=torch.int64)).errors(K, [levina_bickel], 0)
