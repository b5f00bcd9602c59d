from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from layerscope.errors import EstimatorError
from layerscope.stats.bootstrap import (
    difference,
    p_values,
    resample,
    resamples_won,
    satterthwaite,
)
from layerscope.stats.training_noise import TrainingNoise, jackknife, training_noise


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def clustered(groups: int, size: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows that share most of their variation with their group."""
    shared = normal(groups, 1, seed=seed).repeat_interleave(size, 0)
    return shared + 0.3 * normal(groups * size, 1, seed=seed + 1), torch.arange(
        groups
    ).repeat_interleave(size)


def test_the_standard_error_is_the_analytic_one_for_balanced_groups():
    rows, groups = clustered(40, 5)
    analytic = rows.view(40, 5).mean(1).std() / math.sqrt(40)
    error = resample(rows, groups).standard_error()[0]
    assert float(error) == pytest.approx(float(analytic), rel=0.03)


def test_without_shared_groups_it_is_that_of_independent_rows():
    rows = normal(200, 3)
    error = resample(rows, torch.arange(200)).standard_error()
    torch.testing.assert_close(error, rows.std(0) / math.sqrt(200), rtol=0.03, atol=0)


def test_ignoring_groups_claims_too_much_and_heeding_them_is_right():
    studies = [clustered(30, 10, seed=2 * s) for s in range(300)]
    truth = float(torch.stack([rows.mean() for rows, _ in studies]).std())
    heeded, ignored = (
        sum(
            float(resample(rows, by(groups), resamples=500).standard_error()[0])
            for rows, groups in studies[:40]
        )
        / 40
        for by in (lambda groups: groups, lambda groups: torch.arange(len(groups)))
    )
    assert heeded == pytest.approx(truth, rel=0.12)
    assert ignored < 0.5 * truth


def test_groups_of_unequal_size_are_a_ratio():
    sizes = torch.randint(1, 12, (60,), generator=torch.Generator().manual_seed(0))
    groups = torch.arange(60).repeat_interleave(sizes)
    rows = normal(len(groups), 1) + normal(60, 1, seed=1)[groups]
    sums = torch.zeros(60, dtype=torch.float64).index_add_(0, groups, rows[:, 0])
    influence = (sums - rows.mean() * sizes) / sizes.double().mean()
    analytic = float(influence.std() / math.sqrt(60))
    assert float(resample(rows, groups).standard_error()[0]) == pytest.approx(analytic, rel=0.06)


def test_the_same_seed_gives_the_same_draws_whatever_the_rows():
    groups = torch.arange(30)
    rows = normal(30, 2)
    first, second = resample(rows, groups, seed=5), resample(rows[:, :1], groups, seed=5)
    torch.testing.assert_close(first.draws[:, :1], second.draws)
    assert not torch.equal(first.draws, resample(rows, groups, seed=6).draws)


def test_names_and_order_of_groups_do_not_matter():
    rows, groups = clustered(12, 4)
    shuffled = torch.randperm(48, generator=torch.Generator().manual_seed(1))
    plain = resample(rows, groups)
    moved = resample(rows[shuffled], groups[shuffled] * 7 + 100)
    torch.testing.assert_close(plain.draws, moved.draws)


@pytest.mark.parametrize("groups", [[], [3, 3, 3]])
def test_fewer_than_two_groups_are_refused(groups: list[int]):
    with pytest.raises(EstimatorError, match="at least 2") as caught:
        resample(torch.zeros(len(groups), 1), torch.tensor(groups, dtype=torch.int64))
    assert caught.value.hint


def test_intervals_cover_the_truth_as_often_as_they_say():
    covered = 0
    for study in range(300):
        rows, groups = clustered(12, 3, seed=1000 + 2 * study)
        low, high = resample(rows, groups, resamples=500, seed=study).interval(0.95)
        covered += bool(low <= 0 <= high)
    assert covered / 300 >= 0.92


def test_a_paired_difference_is_surer_than_its_parts():
    shared = normal(100, 1)
    rows = torch.cat((shared, shared + 0.1 + 0.05 * normal(100, 1, seed=1)), 1)
    both = resample(rows, torch.arange(100))
    gap = difference(both, 1, 0)
    assert float(gap.estimate[0]) == pytest.approx(float((rows[:, 1] - rows[:, 0]).mean()))
    assert float(gap.standard_error()[0]) < 0.1 * float(both.standard_error()[0])
    low, _ = gap.interval(0.95)
    assert float(low[0]) > 0


def test_resamples_won_sum_to_one_and_follows_the_means():
    share = resamples_won(
        resample(normal(80, 4) + torch.tensor([0, 0.2, 0.4, 5.0]), torch.arange(80))
    )
    assert float(share.sum()) == pytest.approx(1.0)
    assert float(share[3]) == 0.0


def test_layers_that_are_equal_share_the_resamples_and_are_tied():
    rows = normal(50, 1).abs().expand(50, 3)
    losses = resample(rows, torch.arange(50))
    torch.testing.assert_close(resamples_won(losses), torch.full((3,), 1 / 3).double())
    assert bool((p_values(losses) == 1).all())


def test_differences_within_rounding_are_a_tie():
    rows = normal(50, 1).abs() * (1 + 1e-9 * torch.arange(3.0, dtype=torch.float64))
    assert bool((p_values(resample(rows, torch.arange(50))) == 1).all())


def test_losses_of_zero_are_a_tie():
    assert bool((p_values(resample(torch.zeros(20, 3), torch.arange(20))) == 1).all())


def test_a_layer_worse_by_the_same_amount_everywhere_is_rejected():
    rows = torch.cat((torch.ones(20, 1), torch.full((20, 1), 1.25)), 1)
    p = p_values(resample(rows, torch.arange(20)))
    assert float(p[0]) == 1.0
    assert float(p[1]) < 0.001


def test_a_single_layer_is_the_best():
    losses = resample(normal(20, 1), torch.arange(20))
    assert p_values(losses).tolist() == [1.0]
    assert resamples_won(losses).tolist() == [1.0]


def test_two_layers_are_a_one_sided_paired_test():
    rows = normal(400, 1) + torch.cat((torch.zeros(400, 1), 0.1 + normal(400, 1, seed=4)), 1)
    losses = resample(rows.double(), torch.arange(400))
    gap = difference(losses, 1, 0)
    z = float(gap.estimate[0] / gap.standard_error()[0])
    expected = 0.5 * math.erfc(z / math.sqrt(2))
    assert float(p_values(losses)[1]) == pytest.approx(expected, abs=0.015)


def test_the_tied_set_holds_the_truly_best_layer():
    # Six layers that share most of their noise, in 25 groups of 4 rows. All are equally good, which
    # is the hardest case for the one that stands for the best.
    kept, groups = 0, torch.arange(25).repeat_interleave(4)
    for study in range(200):
        shared = normal(25, 1, seed=study)[groups] + normal(100, 1, seed=5000 + study)
        rows = shared + normal(100, 6, seed=9000 + study)
        kept += bool(p_values(resample(rows, groups, resamples=400, seed=study))[0] > 0.05)
    assert kept / 200 >= 0.92


def test_the_tied_set_shrinks_to_the_best_when_the_rest_are_clearly_worse():
    rows = normal(300, 1) + 0.1 * normal(300, 4, seed=1) + torch.tensor([0.3, 0.0, 0.3, 0.6])
    assert (p_values(resample(rows, torch.arange(300))) > 0.05).tolist() == [
        False,
        True,
        False,
        False,
    ]


def test_noise_adds_its_variance_and_moves_no_estimate():
    plain = resample(normal(100, 2), torch.arange(100))
    noisy = plain.with_noise(TrainingNoise.assumed(torch.tensor([0.0, 0.5])), seed=1)
    torch.testing.assert_close(noisy.estimate, plain.estimate)
    torch.testing.assert_close(noisy.draws[:, 0], plain.draws[:, 0])
    expected = plain.draws[:, 1].var() + 0.25
    assert float(noisy.draws[:, 1].var()) == pytest.approx(float(expected), rel=0.05)


def test_with_few_groups_the_standard_error_is_the_samples_not_the_populations():
    means = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)
    groups = torch.arange(3).repeat_interleave(5)
    found = resample(means[groups][:, None], groups, resamples=20_000).standard_error()
    torch.testing.assert_close(found[0], means.std() / 3**0.5, rtol=0.03, atol=0.0)


def test_the_standard_error_with_noise_is_that_of_both():
    noise = TrainingNoise.assumed(torch.tensor([0.3]))
    plain = resample(normal(100, 1), torch.arange(100), resamples=20_000)
    both = plain.with_noise(noise, seed=1)
    expected = (plain.standard_error().square() + 0.09).sqrt()
    torch.testing.assert_close(both.standard_error(), expected, rtol=0.02, atol=0.0)
    assert float(both.degrees()) > 99  # what is assumed is not estimated


def test_degrees_of_freedom_are_those_of_the_variance_that_counts():
    one, nothing = torch.ones(1), torch.zeros(1)
    assert float(satterthwaite(one, nothing, nothing, 9.0, 7.0)) == pytest.approx(9)
    assert float(satterthwaite(nothing, one, one, 9.0, 7.0)) == pytest.approx(7)
    # Welch's two samples of equal variance and size.
    assert float(satterthwaite(one, one, one, 9.0, 9.0)) == pytest.approx(18)
    # What was subtracted is known, and leaves the rest the less sure.
    assert float(satterthwaite(nothing, one, 2 * one, 9.0, 8.0)) == pytest.approx(2)


@pytest.mark.parametrize("groups", [3, 5, 10])
def test_of_few_groups_each_of_equal_layers_stays_tied(groups: int):
    kept = []
    for study in range(60):
        shared = normal(groups, 1, seed=study) + normal(groups, 12, seed=1000 + study)
        rows = shared.repeat_interleave(4, 0) + normal(4 * groups, 12, seed=2000 + study)
        membership = torch.arange(groups).repeat_interleave(4)
        found = p_values(resample(rows, membership, resamples=400, seed=study))
        kept.append(float((found > 0.05).double().mean()))
    assert sum(kept) / len(kept) >= 0.93


def test_a_much_worse_layer_is_rejected_though_most_of_its_noise_is_the_test_rows():
    # Offsets of refits that agree on average and vary from row to row.
    rng = np.random.default_rng(0)
    losses = [rng.standard_normal(36) ** 2 + shift for shift in (0.0, 4.0)]
    made = [(jackknife(it + 0.3 * rng.standard_normal((8, 36))),) for it in losses]
    groups = torch.arange(36)
    drawn = resample(torch.tensor(np.stack(losses, 1)), groups, resamples=2000)
    p = p_values(drawn.with_noise(training_noise(made, groups), seed=1))
    assert float(p[1]) < 0.01
