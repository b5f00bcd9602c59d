from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from layerscope.errors import EstimatorError
from layerscope.stats import partitioned_rate
from layerscope.stats.coding_rate import rate_bound
from layerscope.stats.partitioned_rate import conditional_rate, pair_terms, partitioned_rates
from tests.stats.test_coding_rate import data, golden, labels_of


def rates(rows, labels, eps_sq=0.5, **options):
    return partitioned_rates(rows, labels, eps_sq, **options).whole


def determinant(rows: torch.Tensor, eps_sq: float) -> float:
    n, d = rows.shape
    identity = torch.eye(d, dtype=torch.float64)
    wide = rows.double()
    return 0.5 * float(torch.linalg.slogdet(identity + d / (n * eps_sq) * wide.T @ wide)[1])


def class_by_class(rows: torch.Tensor, labels: torch.Tensor, eps_sq: float) -> float:
    """R_c by the definition: one d × d determinant for each class."""
    parts = [rows[labels == label] for label in labels.unique()]
    return sum(len(part) / len(rows) * determinant(part, eps_sq) for part in parts)


def unit(rows: torch.Tensor) -> torch.Tensor:
    return rows / rows.norm(dim=1, keepdim=True)


def test_the_golden_rows_have_the_rates_of_the_fixture():
    rows, labels = golden()
    found = rates(7 * rows, labels)
    assert found.rate == pytest.approx(5.2688056499, abs=1e-8)
    assert found.conditional == pytest.approx(3.7959864631, abs=1e-8)
    assert found.reduction == pytest.approx(1.4728191868, abs=1e-8)


def test_golden_pairs_have_one_rate_by_determinants_and_without():
    rows, _ = golden()
    generic = rates(rows, torch.arange(48) % 24).conditional
    assert generic == pytest.approx(2.2843873574, abs=1e-8)
    assert float(pair_terms(rows[:24], rows[24:], 0.5).mean()) == pytest.approx(generic, abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(1, 50),
    d=st.integers(1, 20),
    classes=st.integers(1, 12),
    seed=st.integers(0, 999),
    eps_sq=st.sampled_from([0.01, 0.5, 20.0]),
    held=st.sampled_from([1, 300, 1 << 22]),
)
def test_it_is_the_definition_class_by_class(n, d, classes, seed, eps_sq, held):
    rows, labels = data(n, d, seed), labels_of(n, classes, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(partitioned_rate, "HELD", held)  # in how many stacks the classes come
        found = rates(rows, labels, eps_sq, normalisation="none")
    assert found.rate == pytest.approx(determinant(rows, eps_sq), rel=1e-9)
    assert found.conditional == pytest.approx(class_by_class(rows, labels, eps_sq), rel=1e-9)
    assert found.reduction >= -1e-9 * found.rate
    alone = conditional_rate(rows, labels, eps_sq, normalisation="none")
    assert alone == pytest.approx(found.conditional, rel=1e-12)


@pytest.mark.parametrize("name", ["sphere", "frobenius", "none"])
@settings(max_examples=12, deadline=None)
@given(n=st.integers(6, 40), d=st.integers(1, 12), seed=st.integers(0, 999))
def test_without_a_block_is_the_rate_of_the_other_rows(name, n, d, seed):
    rows, labels = data(n, d, seed), labels_of(n, 4, seed)
    blocks = torch.arange(n) % 5
    found = partitioned_rates(rows, labels, 0.5, normalisation=name, blocks=blocks)
    assert len(found.without) == 5
    for block, one in enumerate(found.without):
        kept = blocks != block
        direct = rates(rows[kept], labels[kept], normalisation=name)
        assert one.rate == pytest.approx(direct.rate, rel=1e-9)
        assert one.conditional == pytest.approx(direct.conditional, rel=1e-9)


def test_spheres_forget_the_length_of_rows_and_frobenius_that_of_classes():
    rows, labels = data(60, 8), labels_of(60, 3)
    lengths = torch.linspace(0.1, 9, 60, dtype=torch.float64)[:, None]
    by_class = torch.tensor([0.1, 2.0, 50.0], dtype=torch.float64)[labels][:, None]
    assert rates(lengths * rows, labels).reduction == pytest.approx(rates(rows, labels).reduction)
    for name, factor, same in (("frobenius", by_class, True), ("frobenius", lengths, False),
                               ("none", by_class, False)):  # fmt: skip
        moved = rates(factor * rows, labels, normalisation=name).conditional
        plain = rates(rows, labels, normalisation=name).conditional
        assert (moved == pytest.approx(plain, rel=1e-9)) == same


def test_frobenius_gives_each_class_a_mean_squared_length_of_one():
    rows, labels = data(60, 8), labels_of(60, 3)
    scaled = rows.clone()
    for label in range(3):
        of_class = labels == label
        scaled[of_class] *= math.sqrt(int(of_class.sum())) / rows[of_class].norm()
    found = rates(rows, labels, normalisation="frobenius")
    expected = rates(scaled, labels, normalisation="none")
    assert found.rate == pytest.approx(expected.rate, rel=1e-12)
    assert found.conditional == pytest.approx(expected.conditional, rel=1e-12)


def test_rotations_and_copies_change_nothing():
    rows, labels = data(80, 6), labels_of(80, 3)
    turn, _ = torch.linalg.qr(data(6, 6, seed=1))
    plain = rates(rows, labels)
    for moved, answers in ((rows @ turn, labels), (rows.repeat(2, 1), labels.repeat(2))):
        found = rates(moved, answers)
        assert found.rate == pytest.approx(plain.rate, rel=1e-10)
        assert found.conditional == pytest.approx(plain.conditional, rel=1e-10)


def test_one_class_reduces_nothing_and_no_labels_are_one_class():
    rows = data(30, 6)
    for labels in (torch.full((30,), 7), None):
        found = rates(rows, labels)
        assert found.rate == pytest.approx(determinant(unit(rows), 0.5), rel=1e-10)
        assert found.reduction == pytest.approx(0, abs=1e-12)


def test_classes_of_one_row_cost_what_a_unit_row_costs():
    rows, d = data(30, 6), 6
    found = rates(rows, torch.arange(30))
    assert found.conditional == pytest.approx(0.5 * math.log1p(d / 0.5), rel=1e-12)


def test_orthogonal_classes_reach_the_bound():
    # k classes in k orthogonal directions: R is at its bound, and R_c that of one direction.
    labels = torch.arange(40) % 8
    rows = torch.eye(8, dtype=torch.float64)[labels]
    found = rates(rows, labels)
    assert found.rate == pytest.approx(rate_bound(40, 8, 0.5), rel=1e-12)
    assert found.conditional == pytest.approx(0.5 * math.log1p(8 / 0.5), rel=1e-12)


@settings(max_examples=30, deadline=None)
@given(n=st.integers(1, 40), d=st.integers(1, 40), seed=st.integers(0, 999))
def test_no_rows_on_the_sphere_exceed_the_bound(n, d, seed):
    assert rates(data(n, d, seed), None).rate <= rate_bound(n, d, 0.5) * (1 + 1e-12)


def test_rows_of_zeros_cost_nothing_of_their_own():
    rows = torch.cat((data(10, 4), torch.zeros(5, 4, dtype=torch.float64)))
    found = rates(rows, torch.arange(15) // 5)
    expected = torch.cat((unit(rows[:10]), rows[10:]))
    assert found.rate == pytest.approx(determinant(expected, 0.5), rel=1e-10)
    assert rates(torch.zeros(4, 3), torch.arange(4)).reduction == 0


def test_constant_features_have_the_rate_of_one_direction():
    found = rates(torch.full((20, 5), 3.0), labels_of(20, 2))
    assert found.rate == pytest.approx(0.5 * math.log1p(5 / 0.5), rel=1e-6)
    assert found.reduction == pytest.approx(0, abs=1e-9)


def test_rows_of_float32_are_multiplied_in_float64():
    rows, labels = data(600, 80, offset=2.0).float(), labels_of(600, 20)
    assert rates(rows, labels) == rates(rows.double(), labels)


def test_what_rounding_would_add_to_is_refused_and_what_it_would_not_is_not():
    rows = data(400, 30)
    flat = torch.cat((rows[:, :20], rows[:, :10] + rows[:, 10:20]), 1)
    for large, rank in ((1e12 * rows, 30), (torch.cat((1e12 * rows, 0 * rows), 1), 30)):
        expected = torch.linalg.svdvals(large).square()[:rank] * large.shape[1] / (400 * 0.5)
        found = rates(large, None, normalisation="none").rate
        assert found == pytest.approx(0.5 * float(expected.log1p().sum()), rel=1e-12)
    with pytest.raises(EstimatorError, match="lost in rounding"):
        rates(1e12 * flat, None, normalisation="none")


def test_tiny_features_cost_half_their_trace():
    rows = 1e-9 * data(50, 8)
    expected = 8 / (2 * 50 * 0.5) * float(rows.square().sum())
    found = rates(rows, labels_of(50, 3), normalisation="none")
    assert found.rate == pytest.approx(expected, rel=1e-12)
    assert found.conditional == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("eps_sq", [0.0, -1.0, math.nan, math.inf])
def test_a_distortion_that_is_not_positive_is_refused(eps_sq):
    with pytest.raises(EstimatorError, match="not positive"):
        rates(data(4, 3), None, eps_sq)
    with pytest.raises(EstimatorError, match="not positive"):
        pair_terms(data(4, 3), data(4, 3), eps_sq)


def test_features_that_are_not_finite_are_refused():
    broken = torch.full((4, 3), torch.nan)
    with pytest.raises(EstimatorError, match="rounding"):
        rates(broken, None, normalisation="none")
    with pytest.raises(EstimatorError, match="not finite"):
        pair_terms(broken, broken, 0.5)


@settings(max_examples=30, deadline=None)
@given(n=st.integers(1, 20), d=st.integers(1, 9), seed=st.integers(0, 99))
def test_pairs_of_any_length_have_the_closed_form(n, d, seed):
    first, second = data(n, d, seed), data(n, d, seed + 1)
    generic = rates(torch.cat((first, second)), torch.arange(n).repeat(2), normalisation="none")
    found = float(pair_terms(first, second, 0.5).mean())
    assert found == pytest.approx(generic.conditional, rel=1e-9)
