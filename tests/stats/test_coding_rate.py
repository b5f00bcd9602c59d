from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from layerscope.errors import EstimatorError
from layerscope.stats.class_moments import RunningClassMoments
from layerscope.stats.coding_rate import CodingRates, coding_rate, coding_rate_reduction
from layerscope.stats.moments import RunningMoments


def data(n: int, d: int, seed: int = 0, offset: float = 0.5) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=generator, dtype=torch.float64) + offset


def labels_of(n: int, classes: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(classes, (n,), generator=torch.Generator().manual_seed(seed))


def moments(rows: torch.Tensor, labels: torch.Tensor, classes: int):
    running = RunningClassMoments(rows.shape[1], classes, scatters=True)
    running.update(rows, labels)
    return running.compute()


def reduction(rows: torch.Tensor, labels: torch.Tensor, classes: int, eps_sq: float) -> CodingRates:
    found = moments(rows, labels, classes)
    return coding_rate_reduction(found.second_moments, found.counts, eps_sq)


def dense_rate(rows: torch.Tensor, eps_sq: float) -> float:
    n, d = rows.shape
    identity = torch.eye(d, dtype=torch.float64)
    return 0.5 * float(torch.linalg.slogdet(identity + d / (n * eps_sq) * rows.T @ rows)[1])


def golden() -> tuple[torch.Tensor, torch.Tensor]:
    """Rows on the unit sphere in four classes, made without random numbers."""
    i = torch.arange(1, 49, dtype=torch.float64)[:, None]
    j = torch.arange(1, 13, dtype=torch.float64)
    labels = torch.arange(48) % 4
    rows = torch.sin(i * j * 0.37) + 0.3 * torch.cos(i * 0.11 * j**2)
    rows = rows + 1.5 * torch.sin((labels[:, None] + 1) * j)
    return rows / rows.norm(dim=1, keepdim=True), labels


def test_the_rates_of_the_golden_rows_are_known():
    rows, labels = golden()
    found = reduction(rows, labels, 4, 0.5)
    assert found.rate == pytest.approx(5.2688056499, abs=1e-8)
    assert found.conditional == pytest.approx(3.7959864631, abs=1e-8)
    assert found.reduction == pytest.approx(1.4728191868, abs=1e-8)


def test_pairs_on_the_sphere_have_the_rate_of_their_closed_form():
    rows, _ = golden()
    found = reduction(rows, torch.arange(48) % 24, 24, 0.5)
    assert found.conditional == pytest.approx(2.2843873574, abs=1e-8)
    c, cosine = 12 / (2 * 0.5), (rows[:24] * rows[24:]).sum(1)
    closed = ((1 + c) ** 2 - c**2 * cosine**2).log().sum() / 48
    assert found.conditional == pytest.approx(float(closed), abs=1e-12)


@pytest.mark.parametrize(("n", "d"), [(200, 12), (5, 30), (1, 4)])
@pytest.mark.parametrize("eps_sq", [0.01, 0.5, 2.0])
def test_it_is_the_log_determinant_of_the_definition(n: int, d: int, eps_sq: float):
    rows = data(n, d)
    running = RunningMoments(d)
    running.update(rows)
    found = coding_rate(running.compute().second_moment, n, eps_sq)
    assert found == pytest.approx(dense_rate(rows, eps_sq), rel=1e-10)


@settings(max_examples=20, deadline=None)
@given(n=st.integers(1, 30), d=st.integers(1, 30), seed=st.integers(0, 1000))
def test_rows_and_columns_have_the_same_determinant(n: int, d: int, seed: int):
    rows = data(n, d, seed)
    identity = torch.eye(n, dtype=torch.float64)
    dual = 0.5 * float(torch.linalg.slogdet(identity + d / (n * 0.5) * rows @ rows.T)[1])
    assert coding_rate(rows.T @ rows, n, 0.5) == pytest.approx(dual, rel=1e-9)


@settings(max_examples=30, deadline=None)
@given(
    n=st.integers(1, 60),
    classes=st.integers(1, 8),
    seed=st.integers(0, 1000),
    eps_sq=st.floats(1e-3, 1e3),
)
def test_the_reduction_is_never_negative(n: int, classes: int, seed: int, eps_sq: float):
    rows = data(n, 6, seed)
    found = reduction(rows, labels_of(n, classes, seed), classes, eps_sq)
    assert found.reduction >= -1e-10 * found.rate


def test_one_class_reduces_nothing():
    rows = data(50, 6)
    found = reduction(rows, torch.full((50,), 2), 4, 0.5)
    assert found.rate == pytest.approx(dense_rate(rows, 0.5), rel=1e-10)
    assert found.reduction == 0


def test_classes_that_repeat_the_same_rows_reduce_nothing():
    rows = data(40, 6).repeat(3, 1)
    found = reduction(rows, torch.arange(3).repeat_interleave(40), 3, 0.5)
    assert found.reduction == pytest.approx(0, abs=1e-10)


def test_parts_that_are_merged_have_the_rates_of_the_whole():
    rows, labels = data(300, 6), labels_of(300, 5)
    merged = RunningClassMoments(6, 5, scatters=True)
    for part, answers in zip(rows.split(70), labels.split(70), strict=True):
        other = RunningClassMoments(6, 5, scatters=True)
        other.update(part, answers)
        merged.merge(other)
    found = merged.compute()
    rates = coding_rate_reduction(found.second_moments, found.counts, 0.5)
    whole = reduction(rows, labels, 5, 0.5)
    assert rates.rate == pytest.approx(whole.rate, rel=1e-12)
    assert rates.conditional == pytest.approx(whole.conditional, rel=1e-12)


def test_rotations_and_copies_of_the_rows_change_nothing():
    rows, labels = data(80, 6), labels_of(80, 3)
    turn, _ = torch.linalg.qr(data(6, 6, seed=1))
    plain = reduction(rows, labels, 3, 0.5)
    for moved, answers in ((rows @ turn, labels), (rows.repeat(2, 1), labels.repeat(2))):
        found = reduction(moved, answers, 3, 0.5)
        assert found.rate == pytest.approx(plain.rate, rel=1e-10)
        assert found.conditional == pytest.approx(plain.conditional, rel=1e-10)


def test_it_grows_with_the_scale_and_an_offset_counts():
    rows = data(80, 6)
    rates = [reduction(it, labels_of(80, 1), 1, 0.5).rate for it in (rows, 2 * rows, rows + 3)]
    assert rates[0] < rates[1]
    assert rates[0] < rates[2]


def test_the_distortion_is_the_squared_one():
    rows = data(80, 6)
    assert coding_rate(4 * rows.T @ rows, 80, 4 * 0.5) == pytest.approx(
        coding_rate(rows.T @ rows, 80, 0.5), rel=1e-12
    )


def test_no_rows_and_empty_classes_cost_nothing():
    assert coding_rate(torch.zeros(4, 4, dtype=torch.float64), 0, 0.5) == 0
    rows, labels = data(60, 6), labels_of(60, 3)
    assert reduction(rows, labels, 9, 0.5) == reduction(rows, labels, 3, 0.5)
    assert reduction(rows[:0], labels[:0], 3, 0.5) == CodingRates(0.0, 0.0)


@pytest.mark.parametrize("eps_sq", [0.0, -1.0, math.nan])
def test_a_distortion_that_is_not_positive_is_refused(eps_sq: float):
    with pytest.raises(EstimatorError, match="not positive"):
        coding_rate(torch.eye(3, dtype=torch.float64), 10, eps_sq)


def test_a_rate_that_is_lost_in_rounding_is_refused():
    rows = data(3, 8, offset=1e6)
    running = RunningMoments(8)
    running.update(rows)
    with pytest.raises(EstimatorError, match="rounding"):
        coding_rate(running.compute().second_moment, 3, 1e-12)
    with pytest.raises(EstimatorError, match="rounding"):
        coding_rate(torch.full((3, 3), torch.nan, dtype=torch.float64), 3, 0.5)
