from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.neighbors import NearestCentroid

from layerscope.errors import EstimatorError
from layerscope.stats.class_moments import RunningClassMoments
from layerscope.stats.discriminant import linear_discriminant_analysis, nearest_class_mean


def data(n: int, d: int, classes: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of overlapping classes of unequal size, with correlated features of unequal scale."""
    generator = torch.Generator().manual_seed(seed)
    labels = (torch.rand(n, generator=generator) ** 2 * classes).long()
    centres = torch.randn(classes, d, generator=generator, dtype=torch.float64)
    mixing = torch.randn(d, d, generator=generator, dtype=torch.float64)
    rows = torch.randn(n, d, generator=generator, dtype=torch.float64) @ mixing
    return (rows + centres[labels]) * torch.logspace(-1, 1, d, dtype=torch.float64), labels


def moments(rows: torch.Tensor, labels: torch.Tensor, classes: int):
    running = RunningClassMoments(rows.shape[1], classes, scatters=False)
    running.update(rows, labels)
    return running.compute()


def between_classes(scores: torch.Tensor) -> torch.Tensor:
    """What is left of discriminant functions without the part that all classes share."""
    return scores - scores.mean(1, keepdim=True)


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_the_nearest_class_mean_is_that_of_scikit_learn(classes: int):
    rows, labels = data(600, 8, classes)
    ours = nearest_class_mean(moments(rows, labels, classes))
    theirs = NearestCentroid().fit(rows.numpy(), labels.numpy())
    fresh, _ = data(400, 8, classes, seed=1)
    assert np.array_equal(ours.predict(fresh).numpy(), theirs.predict(fresh.numpy()))


def test_its_scores_are_half_the_squared_distances_to_the_means():
    rows, labels = data(300, 5, 4)
    found = moments(rows, labels, 4)
    half = -torch.cdist(rows, found.means).square() / 2
    scores = nearest_class_mean(found).scores(rows)
    torch.testing.assert_close(between_classes(scores), between_classes(half), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("classes", [2, 3, 10])
@pytest.mark.parametrize("shrinkage", [0.0, 0.1, 1.0])
def test_discriminant_analysis_is_that_of_scikit_learn(classes: int, shrinkage: float):
    rows, labels = data(600, 8, classes)
    ours = linear_discriminant_analysis(moments(rows, labels, classes), shrinkage)
    theirs = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage or None)
    theirs.fit(rows.numpy(), labels.numpy())
    fresh, _ = data(400, 8, classes, seed=1)
    assert np.array_equal(ours.predict(fresh).numpy(), theirs.predict(fresh.numpy()))
    expected = torch.from_numpy(theirs.decision_function(fresh.numpy()))
    found = ours.scores(fresh)
    if classes == 2:  # of two classes scikit-learn keeps the difference
        found = found[:, 1] - found[:, 0]
        torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8)
    else:
        torch.testing.assert_close(
            between_classes(found), between_classes(expected), rtol=1e-8, atol=1e-8
        )
    probability = torch.from_numpy(theirs.predict_proba(fresh.numpy()))
    torch.testing.assert_close(ours.scores(fresh).softmax(1), probability, rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("rule", [nearest_class_mean, linear_discriminant_analysis])
def test_a_class_without_rows_has_no_vote(rule):
    rows, labels = data(300, 5, 3)
    spread = torch.tensor([1, 4, 6])[labels]
    found = rule(moments(rows, spread, 8))
    compact = rule(moments(rows, labels, 3))
    assert found.weights.shape == (5, 8)
    assert found.intercept[[0, 2, 3, 5, 7]].tolist() == [-math.inf] * 5
    assert not bool(found.weights[:, [0, 2, 3, 5, 7]].any())
    assert torch.equal(found.predict(rows), torch.tensor([1, 4, 6])[compact.predict(rows)])
    assert bool(found.scores(rows * 1e6)[:, [1, 4, 6]].isfinite().all())


@pytest.mark.parametrize("rule", [nearest_class_mean, linear_discriminant_analysis])
def test_a_large_offset_changes_no_score_between_classes(rule):
    rows, labels = data(500, 6, 5)
    plain, moved = rule(moments(rows, labels, 5)), rule(moments(rows + 1e8, labels, 5))
    expected = between_classes(plain.scores(rows))
    found = between_classes(moved.scores(rows + 1e8))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(plain.predict(rows), moved.predict(rows + 1e8))


def test_discriminant_analysis_does_not_see_the_features_units():
    rows, labels = data(500, 6, 5)
    scale = torch.tensor([1e-9, 1.0, 1e9, 3.0, 1e-4, 7.0])
    plain = linear_discriminant_analysis(moments(rows, labels, 5))
    scaled = linear_discriminant_analysis(moments(rows * scale, labels, 5))
    torch.testing.assert_close(
        scaled.scores(rows * scale), plain.scores(rows), rtol=1e-7, atol=1e-7
    )


def test_features_that_do_not_vary_or_repeat_others_change_nothing():
    rows, labels = data(500, 6, 5)
    wide = torch.cat((rows, torch.full((500, 1), 0.1), rows[:, :2] * 3 + 1), 1)
    plain = linear_discriminant_analysis(moments(rows, labels, 5))
    found = linear_discriminant_analysis(moments(wide, labels, 5))
    torch.testing.assert_close(found.scores(wide), plain.scores(rows), rtol=1e-6, atol=1e-6)


def test_full_shrinkage_and_equal_classes_are_the_nearest_class_mean():
    rows, _ = data(400, 5, 4)
    labels = torch.arange(400) % 4
    found = moments(rows, labels, 4)
    assert torch.equal(
        linear_discriminant_analysis(found, 1.0).predict(rows),
        nearest_class_mean(found).predict(rows),
    )


def test_float32_rows_are_scored_in_float64():
    rows, labels = data(300, 5, 3)
    rule = nearest_class_mean(moments(rows, labels, 3))
    assert torch.equal(rule.scores(rows.float()), rule.scores(rows.float().double()))


@pytest.mark.parametrize("rule", [nearest_class_mean, linear_discriminant_analysis])
@pytest.mark.parametrize("label", [-1, 2])
def test_fewer_than_two_classes_are_refused(rule, label: int):
    rows, _ = data(20, 3, 2)
    with pytest.raises(EstimatorError, match="at least 2 classes") as caught:
        rule(moments(rows, torch.full((20,), label), 4))
    assert str(int(label >= 0)) in caught.value.message


def test_classes_of_one_row_have_no_covariance():
    rows, _ = data(4, 3, 4)
    with pytest.raises(EstimatorError, match="No feature varies"):
        linear_discriminant_analysis(moments(rows, torch.arange(4), 4))


@pytest.mark.parametrize("shrinkage", [-0.1, 1.1, math.nan])
def test_a_shrinkage_out_of_its_range_is_refused(shrinkage: float):
    rows, labels = data(50, 3, 2)
    with pytest.raises(EstimatorError, match="not between 0 and 1"):
        linear_discriminant_analysis(moments(rows, labels, 2), shrinkage)
