from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from layerscope.stats.moments import BLOCK, RunningCrossMoments, RunningMoments


def data(n: int, d: int, seed: int = 0, offset: float = 0.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=generator, dtype=torch.float64) + offset


def moments(*parts: torch.Tensor):
    running = RunningMoments(parts[0].shape[1])
    for part in parts:
        running.update(part)
    return running.compute()


def test_they_are_mean_and_population_covariance():
    rows = data(300, 5, offset=2.0)
    result = moments(rows)
    torch.testing.assert_close(result.mean, rows.mean(0))
    torch.testing.assert_close(result.covariance, torch.cov(rows.T, correction=0))
    torch.testing.assert_close(result.variance, rows.var(0, correction=0))


@settings(max_examples=30, deadline=None)
@given(cuts=st.lists(st.integers(0, 120), max_size=4), seed=st.integers(0, 1000))
def test_merging_parts_gives_the_whole(cuts: list[int], seed: int):
    rows = data(120, 4, seed, offset=10.0)
    running = RunningMoments(4)
    for part in torch.tensor_split(rows, sorted(cuts)):
        piece = RunningMoments(4)
        piece.update(part)
        running.merge(piece)
    merged, whole = running.compute(), moments(rows)
    assert merged.count == whole.count
    torch.testing.assert_close(merged.mean, whole.mean, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(merged.scatter, whole.scatter, rtol=1e-10, atol=1e-9)


def test_merging_commutes():
    first, second = RunningMoments(3), RunningMoments(3)
    first.update(data(50, 3))
    second.update(data(70, 3, seed=1, offset=5.0))
    left, right = RunningMoments(3), RunningMoments(3)
    for one, order in ((left, (first, second)), (right, (second, first))):
        for part in order:
            one.merge(part)
    torch.testing.assert_close(left.compute().scatter, right.compute().scatter)


def test_more_rows_than_a_block_are_no_different():
    rows = data(BLOCK + 100, 3, offset=1.0)
    torch.testing.assert_close(moments(rows).covariance, torch.cov(rows.T, correction=0))


def test_a_large_offset_costs_float32_no_digits():
    rows = data(2000, 3).float()
    moved = moments(rows + 4096.0)
    exact = torch.cov((rows + 4096.0).double().T, correction=0)
    torch.testing.assert_close(moved.covariance, exact, rtol=1e-5, atol=1e-5)


def test_no_rows_have_no_moments_and_one_row_has_no_variance():
    empty = moments(data(0, 2))
    assert empty.count == 0
    assert not bool(empty.scatter.any())
    single = moments(data(1, 2))
    torch.testing.assert_close(single.mean, data(1, 2)[0])
    assert float(single.variance.max()) == 0.0


def test_cross_moments_are_the_joint_covariance():
    rows, targets = data(200, 4, offset=3.0), data(200, 2, seed=1)
    running = RunningCrossMoments(4, 2)
    running.update(rows[:90], targets[:90])
    other = RunningCrossMoments(4, 2)
    other.update(rows[90:], targets[90:])
    running.merge(other)
    result = running.compute()
    joint = torch.cov(torch.cat((rows, targets), 1).T, correction=0)
    torch.testing.assert_close(result.cross / 200, joint[:4, 4:])
    torch.testing.assert_close(result.targets.variance, joint.diagonal()[4:])


def test_rows_and_targets_must_be_as_many():
    with pytest.raises(RuntimeError):
        RunningCrossMoments(2, 1).update(data(5, 2), data(4, 1))


def test_the_second_moment_is_the_product_of_the_rows_themselves():
    rows = data(200, 4, offset=3.0)
    torch.testing.assert_close(moments(rows[:70], rows[70:]).second_moment, rows.T @ rows)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_restored_state_goes_on_to_the_same_bits(dtype: torch.dtype):
    first, second = data(300, 5, offset=2.0).to(dtype), data(500, 5, seed=1).double()
    running = RunningMoments(5)
    running.update(first)
    state = running.state()
    running.update(second)
    resumed = RunningMoments.from_state(state)
    resumed.update(second)
    expected = moments(first, second)
    for found in (running.compute(), resumed.compute()):
        assert torch.equal(found.mean, expected.mean)
        assert torch.equal(found.scatter, expected.scatter)
        assert (found.count, found.precision) == (expected.count, expected.precision)


def test_restored_cross_moments_go_on_to_the_same_bits():
    rows, targets = data(200, 4, offset=3.0), data(200, 2, seed=1)
    running = RunningCrossMoments(4, 2)
    running.update(rows[:90], targets[:90])
    resumed = RunningCrossMoments.from_state(running.state())
    for one in (running, resumed):
        one.update(rows[90:], targets[90:])
    left, right = running.compute(), resumed.compute()
    assert torch.equal(left.cross, right.cross)
    assert torch.equal(left.features.scatter, right.features.scatter)
    assert torch.equal(left.targets.mean, right.targets.mean)


def test_a_state_is_numbers_of_full_width():
    for running in (RunningMoments(3), RunningCrossMoments(3, 2)):
        dtypes = {tensor.dtype for tensor in running.state().values()}
        assert dtypes == {torch.int64, torch.float64}
