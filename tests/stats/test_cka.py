from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from layerscope.errors import EstimatorError
from layerscope.stats import cka as module
from layerscope.stats.cka import cka
from tests.stats.golden import fixture, normal


def similarity(*layers: torch.Tensor):
    return cka([lambda a, b, rows=rows: rows[a:b] for rows in layers], len(layers[0]))


def by_features(x: torch.Tensor, y: torch.Tensor) -> float:
    """The definition: Kornblith et al., eq. 3 with HSIC of linear kernels."""
    x, y = x - x.mean(0), y - y.mean(0)
    return float((y.T @ x).norm() ** 2 / ((x.T @ x).norm() * (y.T @ y).norm()))


def hsic_1(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Song et al., eq. 5, from whole similarity matrices with zeros on their diagonals."""
    n = len(x)
    k, o = (rows @ rows.T for rows in (x, y))
    k.fill_diagonal_(0), o.fill_diagonal_(0)
    third = k.sum() * o.sum() / ((n - 1) * (n - 2))
    return ((k @ o).trace() + third - 2 / (n - 2) * (k @ o).sum()) / (n * (n - 3))


def test_the_golden_rows_have_the_similarity_of_the_fixture():
    rows, _ = fixture()
    found = similarity(rows, torch.tanh(rows[:, :7])).biased
    assert float(found[0, 1]) == pytest.approx(0.8040821254, abs=1e-8)


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(4, 40),
    d=st.integers(1, 12),
    other=st.integers(1, 12),
    seed=st.integers(0, 99),
    tile=st.sampled_from([3, 7, 64]),
)
def test_tiles_give_the_definitions(n, d, other, seed, tile):
    x = normal(n, d, seed=seed) + 3
    y = normal(n, other, seed=seed + 1) + x[:, :1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "TILE", tile)
        patch.setattr(module, "CHUNK", 5)
        found = similarity(x, y)
    assert float(found.biased[0, 1]) == pytest.approx(by_features(x, y), rel=1e-9)
    own = hsic_1(x, x) * hsic_1(y, y)
    assert hsic_1(x, x) <= 1e-9 or torch.isnan(found.unbiased[0, 1]) == (hsic_1(y, y) <= 1e-9)
    if hsic_1(x, x) > 1e-9 and hsic_1(y, y) > 1e-9:
        expected = float(hsic_1(x, y) / own.sqrt())
        assert float(found.unbiased[0, 1]) == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_rotations_offsets_and_scales_change_nothing_and_other_maps_do():
    x, y = normal(60, 5), normal(60, 7, seed=1)
    y[:, :5] += x
    turn, _ = torch.linalg.qr(normal(5, 5, seed=2))
    plain = similarity(x, y)
    moved = similarity(3 * x @ turn - 40, y)
    stretched = similarity(x * torch.linspace(0.1, 3, 5), y)
    for name in ("biased", "unbiased"):
        value = float(getattr(plain, name)[0, 1])
        assert float(getattr(moved, name)[0, 1]) == pytest.approx(value, rel=1e-9)
        assert float(getattr(stretched, name)[0, 1]) != pytest.approx(value, rel=1e-3)


def test_copies_change_the_unbiased_one_alone():
    x, y = normal(30, 5), normal(30, 5, seed=1)
    once, twice = similarity(x, y), similarity(x.repeat(2, 1), y.repeat(2, 1))
    assert float(twice.biased[0, 1]) == pytest.approx(float(once.biased[0, 1]), rel=1e-9)
    assert float(twice.unbiased[0, 1]) != pytest.approx(float(once.unbiased[0, 1]), rel=1e-3)


def test_unrelated_wide_layers_look_alike_to_the_biased_one_alone():
    found = similarity(normal(60, 2000), normal(60, 2000, seed=1))
    assert float(found.biased[0, 1]) > 0.9
    assert abs(float(found.unbiased[0, 1])) < 0.05


def test_the_unbiased_one_is_right_on_average():
    values = []
    for seed in range(60):
        x, y = normal(2, 40, 10, seed=seed)
        y[:, :3] = x[:, :3]
        values.append(similarity(x, y).unbiased[0, 1])
    # Three of ten directions of equal variance are shared.
    assert float(torch.stack(values).mean()) == pytest.approx(0.3, abs=0.02)


def test_a_layer_that_does_not_vary_has_no_similarity():
    found = similarity(normal(20, 3).float(), torch.full((20, 4), 0.1))
    assert found.biased.isnan().tolist() == [[False, True], [True, True]]


def test_float32_layers_lose_nothing_that_counts():
    x, y = normal(300, 40) + 20, normal(300, 30, seed=1)
    y += x[:, :30]
    exact, short = similarity(x, y), similarity(x.float(), y.float())
    torch.testing.assert_close(short.biased, exact.biased, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(short.unbiased, exact.unbiased, rtol=1e-5, atol=1e-6)


def test_fewer_than_four_images_are_refused():
    with pytest.raises(EstimatorError, match="at least 4 images, and there are 3"):
        similarity(normal(3, 2), normal(3, 2))
