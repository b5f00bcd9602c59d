from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from layerscope.stats import neighbours
from layerscope.stats.neighbours import nearest, unit_rows, vote

TEMPERATURE = 0.07


def rows(n: int, seed: int, d: int = 5) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=generator, dtype=torch.float64)


def found(queries, keys, k):
    parts = list(nearest(queries, keys, k))
    return torch.cat([a for a, _ in parts]), torch.cat([b for _, b in parts])


@pytest.mark.parametrize(("queries", "keys"), [(512, 8192), (7, 11), (1, 3)])
def test_blocks_find_what_all_pairs_at_once_find(monkeypatch, queries, keys):
    a, b = unit_rows(rows(40, 0)), unit_rows(rows(100, 1))
    dense = (a @ b.T).sort(dim=1, descending=True)
    monkeypatch.setattr(neighbours, "QUERIES", queries)
    monkeypatch.setattr(neighbours, "KEYS", keys)
    similar, places = found(a, b, 20)
    torch.testing.assert_close(similar, dense.values[:, :20])
    assert torch.equal(places, dense.indices[:, :20])


@pytest.mark.parametrize("k", [1, 10, 60])
def test_the_votes_are_those_of_scikit_learn(k):
    train, test = rows(60, 2), rows(30, 3)
    labels = torch.arange(60) % 4

    def weights(distances):
        return np.exp((1 - distances) / TEMPERATURE)

    model = KNeighborsClassifier(k, metric="cosine", weights=weights)
    model.fit(train.numpy(), labels.numpy())
    similar, places = found(unit_rows(test), unit_rows(train), k)
    votes = torch.softmax(vote(similar, labels[places], 4, [k], TEMPERATURE)[:, 0], 1)
    np.testing.assert_allclose(votes, model.predict_proba(test.numpy()), rtol=1e-9, atol=1e-12)


def test_several_numbers_of_neighbours_vote_as_each_alone():
    train, test, labels = unit_rows(rows(50, 4)), unit_rows(rows(9, 5)), torch.arange(50) % 3
    similar, places = found(test, train, 20)
    together = vote(similar, labels[places], 3, [1, 5, 20], TEMPERATURE)
    for i, k in enumerate((1, 5, 20)):
        alone = vote(similar[:, :k], labels[places[:, :k]], 3, [k], TEMPERATURE)
        assert torch.equal(together[:, i], alone[:, 0])


def test_no_temperature_is_too_low_and_zeros_are_like_nothing():
    train, test, labels = unit_rows(rows(50, 6)), unit_rows(rows(9, 7)), torch.arange(50) % 3
    test[0] = 0
    similar, places = found(unit_rows(test), train, 5)
    votes = torch.softmax(vote(similar, labels[places], 3, [5], 1e-6)[:, 0], 1)
    assert votes.isfinite().all()
    assert torch.equal(votes[1:].argmax(1), labels[places[1:, 0]])
    assert not similar[0].any()
