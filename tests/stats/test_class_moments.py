from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from layerscope.errors import EstimatorError
from layerscope.stats.class_moments import ClassMoments, RunningClassMoments
from layerscope.stats.moments import BLOCK, RunningMoments

WIDTH, CLASSES = 4, 6


def data(n: int, seed: int = 0, classes: int = CLASSES) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows around the mean of their class; some labels stand for no class."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(-1, classes + 1, (n,), generator=generator)
    rows = torch.randn(n, WIDTH, generator=generator, dtype=torch.float64)
    return rows * (1 + labels[:, None].abs()) + 3 * labels[:, None], labels


def running(*parts: tuple[torch.Tensor, torch.Tensor], scatters: bool = True):
    accumulator = RunningClassMoments(WIDTH, CLASSES, scatters)
    for rows, labels in parts:
        accumulator.update(rows, labels)
    return accumulator


def two_passes(rows: torch.Tensor, labels: torch.Tensor) -> ClassMoments:
    """The definition: first the mean of a class, then the products around it."""
    counts, means, scatters = [], [], []
    for label in range(CLASSES):
        own = rows[labels == label].double()
        mean = own.mean(0) if len(own) else torch.zeros(WIDTH, dtype=torch.float64)
        counts.append(len(own))
        means.append(mean)
        scatters.append((own - mean).T @ (own - mean))
    each = torch.stack(scatters)
    return ClassMoments(torch.tensor(counts), torch.stack(means), each.sum(0), each)


def assert_same(found: ClassMoments, expected: ClassMoments, rtol: float = 1e-10) -> None:
    assert torch.equal(found.counts, expected.counts)
    for name in ("means", "within", "scatters"):
        ours, theirs = getattr(found, name), getattr(expected, name)
        assert (ours is None) == (theirs is None)
        if ours is not None:
            scale = float(theirs.abs().max())
            torch.testing.assert_close(ours, theirs, rtol=rtol, atol=rtol * scale)


def split(rows: torch.Tensor, labels: torch.Tensor, cuts: list[int]):
    return zip(
        torch.tensor_split(rows, sorted(cuts)),
        torch.tensor_split(labels, sorted(cuts)),
        strict=True,
    )


cut_lists = st.lists(st.integers(0, 120), max_size=5)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), n=st.integers(0, 60))
def test_they_are_the_moments_of_the_definition(seed: int, n: int):
    rows, labels = data(n, seed)
    assert_same(running((rows, labels)).compute(), two_passes(rows, labels))


@settings(max_examples=30, deadline=None)
@given(cuts=cut_lists, seed=st.integers(0, 1000), scatters=st.booleans())
def test_batches_of_any_size_give_the_whole(cuts: list[int], seed: int, scatters: bool):
    rows, labels = data(120, seed)
    whole = running((rows, labels), scatters=scatters).compute()
    assert_same(running(*split(rows, labels, cuts), scatters=scatters).compute(), whole)


@settings(max_examples=30, deadline=None)
@given(cuts=cut_lists, seed=st.integers(0, 1000), scatters=st.booleans())
def test_merging_parts_gives_the_whole(cuts: list[int], seed: int, scatters: bool):
    rows, labels = data(120, seed)
    merged = running(scatters=scatters)
    for part in split(rows, labels, cuts):
        merged.merge(running(part, scatters=scatters))
    assert_same(merged.compute(), running((rows, labels), scatters=scatters).compute())


def test_merging_commutes_and_leaves_the_other_alone():
    first, second = running(data(50)), running(data(70, seed=1))
    left, right = running(), running()
    left.merge(first)
    left.merge(second)
    right.merge(second)
    right.merge(first)
    assert_same(left.compute(), right.compute())
    left.update(*data(10, seed=2))
    assert_same(second.compute(), running(data(70, seed=1)).compute(), rtol=0)


def test_the_pooled_scatter_needs_no_scatter_of_a_class():
    rows, labels = data(300)
    pooled = running((rows, labels), scatters=False).compute()
    assert pooled.scatters is None
    torch.testing.assert_close(pooled.within, two_passes(rows, labels).within, rtol=1e-12, atol=0)


@pytest.mark.parametrize("scatters", [True, False])
def test_a_large_offset_costs_float32_rows_no_digits(scatters: bool):
    rows, labels = data(3000)
    moved = (rows + 1e6).float()
    parts = zip(torch.split(moved, 64), torch.split(labels, 64), strict=True)
    found, expected = running(*parts, scatters=scatters).compute(), two_passes(moved, labels)
    torch.testing.assert_close(found.means, expected.means, rtol=1e-14, atol=0)
    torch.testing.assert_close(found.within, expected.within, rtol=1e-10, atol=1e-4)
    whole = torch.cov(moved[(labels >= 0) & (labels < CLASSES)].double().T, correction=0)
    torch.testing.assert_close(found.total.covariance, whole, rtol=1e-10, atol=1e-9)


def test_within_a_block_an_offset_costs_nothing_at_all():
    labels = data(1000)[1]
    rows = torch.randint(-3, 4, (1000, WIDTH), generator=torch.Generator().manual_seed(0)).double()
    plain, moved = running((rows, labels)).compute(), running((rows + 2.0**40, labels)).compute()
    torch.testing.assert_close(moved.scatters, plain.scatters, rtol=1e-12, atol=1e-10)


def test_float32_rows_are_multiplied_in_float64():
    rows, labels = data(2000)
    assert_same(
        running((rows.float(), labels)).compute(), two_passes(rows.float(), labels), rtol=1e-12
    )


def test_more_rows_than_a_block_are_no_different():
    rows, labels = data(2 * BLOCK + 100)
    assert_same(running((rows, labels)).compute(), two_passes(rows, labels))


def test_the_names_of_the_classes_do_not_matter():
    rows, labels = data(200)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    known = (labels >= 0) & (labels < CLASSES)
    renamed = torch.where(known, order[labels.clamp(0, CLASSES - 1)], -1)
    left, right = running((rows, labels)).compute(), running((rows, renamed)).compute()
    torch.testing.assert_close(right.means[order], left.means)
    torch.testing.assert_close(right.within, left.within)


def test_rows_of_no_class_change_nothing():
    rows, labels = data(200)
    known = (labels >= 0) & (labels < CLASSES)
    assert 0 < int(known.sum()) < 200
    left, right = running((rows, labels)), running((rows[known], labels[known]))
    assert_same(left.compute(), right.compute())
    left.update(torch.full((3, WIDTH), torch.nan), torch.tensor([-1, CLASSES, -100]))
    assert_same(left.compute(), right.compute())


def test_a_class_of_one_row_has_its_row_as_mean_and_no_scatter():
    rows = data(CLASSES)[0] + 1e3
    found = running((rows, torch.arange(CLASSES))).compute()
    torch.testing.assert_close(found.means, rows, rtol=1e-14, atol=0)
    assert not bool((found.within.abs() > 1e-20).any())


def test_empty_classes_stay_empty_in_updates_and_merges():
    rows, _ = data(20)
    low, high = running((rows, torch.zeros(20).long())), running((rows, torch.full((20,), 4)))
    low.merge(high)
    low.merge(running())
    found = low.compute()
    assert found.counts.tolist() == [20, 0, 0, 0, 20, 0]
    assert not bool(found.means[[1, 2, 3, 5]].any())
    assert bool(found.second_moments.isfinite().all())


def test_no_rows_have_no_moments():
    found = running((torch.zeros(0, WIDTH), torch.zeros(0).long())).compute()
    assert found.total.count == 0
    assert not bool(found.total.scatter.any())
    assert not bool(found.total.mean.any())


def test_within_and_between_are_the_total():
    rows, labels = data(300)
    known = (labels >= 0) & (labels < CLASSES)
    plain = RunningMoments(WIDTH)
    plain.update(rows[known])
    found, expected = running((rows, labels), scatters=False).compute().total, plain.compute()
    assert found.count == expected.count
    torch.testing.assert_close(found.mean, expected.mean)
    torch.testing.assert_close(found.scatter, expected.scatter)


def test_second_moments_are_the_products_of_the_rows_themselves():
    rows, labels = data(300)
    found = running((rows, labels)).compute()
    for label, moment in enumerate(found.second_moments):
        own = rows[labels == label]
        torch.testing.assert_close(moment, own.T @ own)
    torch.testing.assert_close(found.second_moments.sum(0), found.total.second_moment)


def test_second_moments_of_classes_need_their_scatters():
    with pytest.raises(EstimatorError, match="only their sum"):
        _ = running(data(20), scatters=False).compute().second_moments


@pytest.mark.parametrize("scatters", [True, False])
def test_a_restored_state_goes_on_to_the_same_bits(scatters: bool):
    first, second = data(500), data(700, seed=1)
    one_go = running(first, second, scatters=scatters)
    stopped = running(first, scatters=scatters)
    state = stopped.state()
    assert {tensor.dtype for tensor in state.values()} == {torch.int64, torch.float64}
    stopped.update(*second)
    resumed = RunningClassMoments.from_state(state)
    resumed.update(*second)
    for found in (stopped, resumed):
        for name, tensor in one_go.state().items():
            assert torch.equal(found.state()[name], tensor), name


def test_a_single_class_is_restored_with_what_it_keeps():
    for scatters in (True, False):
        accumulator = RunningClassMoments(WIDTH, 1, scatters)
        restored = RunningClassMoments.from_state(accumulator.state())
        assert (restored.compute().scatters is not None) == scatters


def test_results_do_not_change_under_later_updates():
    accumulator = running(data(50))
    found = accumulator.compute()
    accumulator.update(*data(50, seed=1))
    assert_same(found, running(data(50)).compute(), rtol=0)


@pytest.mark.parametrize(
    "other",
    [
        RunningClassMoments(WIDTH, 1, True),
        RunningClassMoments(1, CLASSES, True),
        RunningClassMoments(WIDTH, CLASSES, False),
    ],
)
def test_unlike_statistics_are_not_merged(other: RunningClassMoments):
    with pytest.raises(EstimatorError, match="cannot be added"):
        running().merge(other)


def test_rows_and_labels_must_be_as_many():
    with pytest.raises(IndexError):
        running((torch.zeros(5, WIDTH), torch.full((4,), -1)))
    with pytest.raises(ValueError, match="zip"):
        running((torch.zeros(BLOCK + 1, WIDTH), torch.zeros(BLOCK).long()))
