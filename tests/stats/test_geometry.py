"""Class geometry, LiDAR, the hypersphere and intrinsic dimension."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from layerscope.errors import EstimatorError
from layerscope.stats.class_geometry import (
    class_moments_without_blocks,
    class_separation,
    discriminant_ratio,
    fisher_ratio,
    neural_collapse,
    self_duality,
    spread_of,
)
from layerscope.stats.class_moments import RunningClassMoments
from layerscope.stats.hypersphere import alignment_by_image, potential_by_row
from layerscope.stats.intrinsic_dimension import (
    levina_bickel,
    nearest_distances,
    two_nn,
    two_nn_by_line,
)
from layerscope.stats.lidar import lidar
from tests.stats.golden import fixture, normal


def moments(rows: torch.Tensor, labels: torch.Tensor):
    running = RunningClassMoments(rows.shape[1], int(labels.max()) + 1, scatters=False)
    running.update(rows, labels)
    return running.compute()


def separation(rows: torch.Tensor, labels: torch.Tensor) -> float:
    unit = torch.nn.functional.normalize(rows, dim=1)
    counts = torch.bincount(labels)
    sums = torch.zeros(len(counts), rows.shape[1], dtype=torch.float64).index_add_(0, labels, unit)
    return class_separation(sums, counts)


def test_the_golden_rows_have_the_values_of_the_fixture():
    rows, labels = fixture()
    found = moments(rows, labels)
    assert separation(rows, labels) == pytest.approx(0.6424313576, abs=1e-8)
    assert neural_collapse(found).variability == pytest.approx(0.1235058978, abs=1e-8)
    assert lidar(found) == pytest.approx(2.3911306791, abs=1e-8)
    assert two_nn(nearest_distances(rows, 2).distances) == pytest.approx(9.7190096178, abs=1e-8)


@settings(max_examples=25, deadline=None)
@given(n=st.integers(6, 30), classes=st.integers(2, 5), seed=st.integers(0, 999))
def test_separation_is_that_of_all_pairs_of_rows(n, classes, seed):
    rows, labels = normal(n, 4, seed=seed), torch.arange(n) % classes
    unit = rows / rows.norm(dim=1, keepdim=True)
    distance = 1 - unit @ unit.T
    by_pair = torch.stack([
        torch.stack([distance[labels == a][:, labels == b].mean() for b in range(classes)])
        for a in range(classes)
    ])  # fmt: skip
    expected = 1 - float(by_pair.diagonal().mean() / by_pair.mean())
    assert separation(rows, labels) == pytest.approx(expected, abs=1e-9)


def test_collapsed_classes_in_a_simplex_have_collapsed():
    corners = torch.eye(4, dtype=torch.float64) - 0.25
    labels = torch.arange(40) % 4
    found = neural_collapse(moments(corners[labels] + 1e-9 * normal(40, 4), labels))
    assert found.variability == pytest.approx(0, abs=1e-12)
    assert found.equinorm == pytest.approx(0, abs=1e-8)
    assert found.equiangularity == pytest.approx(0, abs=1e-8)
    assert separation(corners[labels], labels) == pytest.approx(1)
    assert self_duality(3 * corners.T, corners, 1.0) == pytest.approx(0, abs=1e-12)
    assert self_duality(-corners.T, corners, 1.0) == pytest.approx(4)


def test_variability_grows_with_the_spread_within_classes():
    labels = torch.arange(200) % 4
    centres = normal(4, 6)
    values = [
        neural_collapse(moments(centres[labels] + s * normal(200, 6, seed=1), labels)).variability
        for s in (0.1, 0.3, 1.0)
    ]
    assert values == sorted(values)
    assert values[1] / values[0] == pytest.approx(9, rel=0.2)


def test_fishers_ratio_of_planted_variances_is_theirs():
    labels = torch.arange(4000) % 2
    rows = normal(4000, 1) + 3.0 * labels[:, None]
    found = moments(rows, labels)
    assert fisher_ratio(found) == pytest.approx(2.25, rel=0.1)  # (3/2)² over 1
    assert discriminant_ratio(found, 1e-9) == pytest.approx(fisher_ratio(found), rel=1e-6)


def test_the_discriminant_ratio_alone_is_invariant_to_linear_maps():
    labels = torch.arange(300) % 3
    rows = normal(300, 4) + normal(3, 4, seed=1)[labels]
    mapped = rows @ (normal(4, 4, seed=2) + 3 * torch.eye(4))
    before, after = moments(rows, labels), moments(mapped, labels)
    assert discriminant_ratio(after, 1e-12) == pytest.approx(
        discriminant_ratio(before, 1e-12), rel=1e-6
    )
    assert fisher_ratio(after) != pytest.approx(fisher_ratio(before), rel=1e-2)


@settings(max_examples=20, deadline=None)
@given(n=st.integers(12, 60), seed=st.integers(0, 999))
def test_moments_without_a_block_are_those_of_the_other_rows(n, seed):
    rows = normal(n, 3, seed=seed) + 100
    labels, blocks = torch.arange(n) % 3, torch.arange(n) % 4
    whole, *without = class_moments_without_blocks(rows, labels, blocks)
    assert fisher_ratio(whole) == pytest.approx(fisher_ratio(moments(rows, labels)), rel=1e-9)
    for block, found in enumerate(without):
        kept = blocks != block
        direct = moments(rows[kept], labels[kept])
        assert fisher_ratio(found) == pytest.approx(fisher_ratio(direct), rel=1e-7)
        assert found.counts.tolist() == direct.counts.tolist()


def test_what_geometry_cannot_be_told_of_is_refused():
    labels = torch.arange(10) % 2
    with pytest.raises(EstimatorError, match="at least 2 of them"):
        neural_collapse(moments(normal(10, 3), torch.zeros(10, dtype=torch.int64)))
    with pytest.raises(EstimatorError, match="has one row"):
        neural_collapse(moments(normal(10, 3), torch.arange(10)))
    same = moments(normal(5, 3).repeat_interleave(2, dim=0), labels)
    with pytest.raises(EstimatorError, match="means of 2 classes are the same"):
        neural_collapse(same)
    with pytest.raises(EstimatorError, match="No feature varies within"):
        fisher_ratio(moments(normal(2, 3)[labels], labels))
    with pytest.raises(EstimatorError, match="in one direction"):
        separation(torch.full((10, 3), 2.0, dtype=torch.float64), labels)


# LiDAR.


def views(directions: int, noise: float, images: int = 300, q: int = 4, width: int = 8):
    seen = torch.zeros(images, width, dtype=torch.float64)
    seen[:, :directions] = normal(images, directions)
    rows = seen.repeat_interleave(q, 0) + noise * normal(images * q, width, seed=1)
    return moments(rows, torch.arange(images).repeat_interleave(q))


@pytest.mark.parametrize("directions", [1, 3, 8])
def test_lidar_counts_the_directions_that_tell_images_apart(directions):
    assert lidar(views(directions, 0.05)) == pytest.approx(directions, rel=0.1)


def test_lidar_has_the_images_side_where_they_are_few():
    assert 1 < lidar(views(40, 0.5, images=10, width=40)) < 9.01


def test_lidar_is_refused_without_views_and_without_variance():
    with pytest.raises(EstimatorError, match="several views"):
        lidar(moments(normal(10, 3), torch.arange(10)))
    with pytest.raises(EstimatorError, match="same features"):
        lidar(moments(torch.zeros(10, 3, dtype=torch.float64), torch.arange(10) // 2))


# The hypersphere.


@settings(max_examples=20, deadline=None)
@given(n=st.integers(4, 30), images=st.integers(2, 6), seed=st.integers(0, 99))
def test_alignment_is_the_mean_over_all_pairs_of_views(n, images, seed):
    rows, of = normal(n, 3, seed=seed), torch.arange(n) % images
    unit = rows / rows.norm(dim=1, keepdim=True)
    expected, names = [], []
    for image in range(images):
        own = unit[of == image]
        if len(own) > 1:
            pairs = [(a - b).square().sum() for i, a in enumerate(own) for b in own[:i]]
            expected.append(float(torch.stack(pairs).mean()))
            names.append(image)
    if expected:
        found, which = alignment_by_image(rows, of)
        assert which.tolist() == names
        assert found.tolist() == pytest.approx(expected, abs=1e-9)


def test_alignment_needs_two_views():
    with pytest.raises(EstimatorError, match="two views, and 5 rows show 5"):
        alignment_by_image(normal(5, 3), torch.arange(5))


def test_uniformity_is_the_mean_over_pairs_of_images():
    rows, images = normal(30, 3), torch.arange(30) // 3
    unit = rows / rows.norm(dim=1, keepdim=True)
    kernel = (-2 * torch.cdist(unit, unit).square()).exp()
    apart = images[:, None] != images
    expected = float(kernel[apart].mean())
    assert float(potential_by_row(rows, images).mean()) == pytest.approx(expected, rel=1e-9)


def test_uniformity_of_a_circle_is_that_of_the_integral():
    angle = torch.arange(5000).double() / 5000 * 2 * math.pi
    rows = torch.stack((angle.cos(), angle.sin()), 1)
    # The mean of exp(−2 · (2 − 2 cos θ)) over the circle: e⁻⁴ I₀(4).
    expected = math.exp(-4) * float(torch.special.i0(torch.tensor(4.0, dtype=torch.float64)))
    found = potential_by_row(rows, torch.arange(5000)).mean()
    assert float(found) == pytest.approx(expected, rel=1e-2)


def test_rows_of_zeros_are_at_right_angles_to_all():
    rows = torch.zeros(4, 3, dtype=torch.float64)
    assert alignment_by_image(rows, torch.arange(4) // 2)[0].tolist() == [2, 2]
    assert potential_by_row(rows, torch.arange(4)).tolist() == pytest.approx([math.exp(-4)] * 4)


def test_one_image_is_not_uniform():
    with pytest.raises(EstimatorError, match="at least 2 images"):
        potential_by_row(normal(5, 3), torch.zeros(5, dtype=torch.int64))


# Intrinsic dimension.


@settings(max_examples=20, deadline=None)
@given(n=st.integers(6, 40), d=st.integers(2, 6), seed=st.integers(0, 99))
def test_neighbours_are_those_of_all_distances(n, d, seed):
    rows = normal(n, d, seed=seed) + 10
    found = nearest_distances(rows.float(), 4).distances
    exact = torch.cdist(rows.float().double(), rows.float().double())
    expected = exact.fill_diagonal_(torch.inf).sort(1).values[:, :4]
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)


def test_blocks_of_queries_and_keys_change_nothing(monkeypatch):
    from layerscope.stats import intrinsic_dimension

    rows = normal(50, 3)
    whole = nearest_distances(rows, 5)
    monkeypatch.setattr(intrinsic_dimension, "QUERIES", 7)
    monkeypatch.setattr(intrinsic_dimension, "KEYS", 11)
    torch.testing.assert_close(nearest_distances(rows, 5).distances, whole.distances)


@pytest.mark.parametrize("dimension", [1, 2, 5])
def test_a_planted_dimension_is_found_wherever_the_rows_lie(dimension):
    cube = torch.rand(3000, dimension, generator=torch.Generator().manual_seed(0)).double()
    turn, _ = torch.linalg.qr(normal(20, dimension))
    near = nearest_distances((cube @ turn.T + 5).float(), 20).distances
    for function in (two_nn, two_nn_by_line, levina_bickel):
        assert function(near) == pytest.approx(dimension, rel=0.12)


def test_a_curved_surface_has_its_own_dimension():
    angle = torch.rand(3000, 2, generator=torch.Generator().manual_seed(0)).double() * 6.28
    torus = torch.cat((angle.cos(), angle.sin()), 1)
    assert two_nn(nearest_distances(torus, 2).distances) == pytest.approx(2, rel=0.08)


def test_copies_of_rows_are_counted_once():
    rows = normal(100, 3)
    once, twice = nearest_distances(rows, 3), nearest_distances(rows.repeat(2, 1), 3)
    torch.testing.assert_close(once.distances, twice.distances)
    assert (once.copies, twice.copies) == (0, 100)
    assert twice.rows.tolist() == list(range(100))


def test_too_few_different_rows_and_grids_are_refused():
    with pytest.raises(EstimatorError, match="need 4 different rows, and there are 3 of 9"):
        nearest_distances(normal(3, 2).repeat(3, 1), 3)
    with pytest.raises(EstimatorError, match="equally far"):
        two_nn(nearest_distances(torch.eye(9), 2).distances)
    with pytest.raises(EstimatorError, match="equally far"):
        levina_bickel(nearest_distances(torch.eye(9), 5).distances)


def test_self_duality_is_refused_where_weights_are_all_the_same():
    found = moments(normal(10, 3), torch.arange(10) % 2)
    with pytest.raises(EstimatorError, match="are the same"):
        self_duality(torch.ones(3, 2, dtype=torch.float64), found.means, spread_of(found))
