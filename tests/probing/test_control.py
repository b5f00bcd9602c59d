import numpy as np
import pytest

from layerscope.errors import SettingsError
from layerscope.estimators import estimators
from layerscope.probing import Arrangement, arranged
from layerscope.probing.control import controlled
from layerscope.types import SPLITS, Control, Draw, Task

KIND = Task("y", "memory", "classes", "top-1", "maximise")


@pytest.fixture
def layer(view):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 900)
    rows = rng.standard_normal((900, 12))
    rows[:, :3] += 6 * np.eye(3)[labels]
    return view(rows * np.logspace(-3, 3, 12) + 5, y=labels)


def accuracy(layer):
    scores = estimators["logistic"](0).score(layer, [KIND])
    return next(it.test for it in scores if it.metric == "top-1")


@pytest.mark.parametrize("name", ["width=8", "pca=8"])
def test_features_are_as_many_as_asked_and_the_same_map_serves_every_split(layer, name):
    seen = controlled(layer, Control.parse(name), 0)
    assert seen.cut.width == 8
    assert seen.features("test").shape == (180, 8)
    joint = np.concatenate([layer.features(split) for split in ("train", "val", "test")])
    mapped = np.concatenate([seen.features(split) for split in ("train", "val", "test")])
    solved, *_ = np.linalg.lstsq(joint.astype(float), mapped.astype(float), rcond=None)
    np.testing.assert_allclose(joint @ solved, mapped, atol=2e-3)
    assert accuracy(seen) > 0.6


def test_a_projection_depends_on_no_features_scale(layer, view):
    rows = np.concatenate([layer.features(split) for split in ("train", "val", "test")])
    moved = view(rows * np.logspace(2, -1, 12, dtype=np.float32), y=layer.targets["y"])
    one, other = (controlled(it, Control.parse("width=4"), 3) for it in (layer, moved))
    gap = one.features("test") - one.features("test").mean(0)
    other_gap = other.features("test") - other.features("test").mean(0)
    np.testing.assert_allclose(gap, other_gap, atol=2e-2)


def test_principal_components_come_in_their_order_and_uncorrelated(layer):
    rows = controlled(layer, Control.parse("pca=5"), 0).features("train").astype(float)
    covariance = np.cov(rows.T)
    assert (np.diff(np.diag(covariance)) <= 1e-6).all()
    assert abs(covariance - np.diag(np.diag(covariance))).max() < 1e-3


def test_shuffled_targets_leave_nothing_to_learn(layer):
    assert accuracy(layer) > 0.95
    assert accuracy(controlled(layer, Control.parse("shuffled"), 0)) < 0.45


def disturbed(layer, places):
    noise = np.random.default_rng(1).standard_normal((len(places), 12)) * 1e4
    return layer.with_rows(places, layer.rows[places] + noise)


@pytest.mark.parametrize("name", ["width=8", "pca=8"])
def test_only_rows_that_are_drawn_decide_how_features_are_seen(layer, name):
    way = Arrangement(Draw.parse("20%"), control=Control.parse(name))
    (usual,) = arranged(layer, KIND, way)
    undrawn = np.delete(np.arange(540), usual.train)
    (seen,) = arranged(disturbed(layer, undrawn), KIND, way)
    assert np.array_equal(seen.train, usual.train)
    for split in SPLITS:
        assert np.array_equal(seen.features(split), usual.features(split))
    assert accuracy(seen) > 0.6


@pytest.mark.parametrize("name", ["width=8", "pca=8"])
def test_only_rows_that_train_a_fold_decide_how_features_are_seen(layer, name):
    way = Arrangement(folds=3, control=Control.parse(name))
    usual = arranged(layer, KIND, way)
    seen = arranged(disturbed(layer, usual[0].val), KIND, way)
    assert np.array_equal(seen[0].features("train"), usual[0].features("train"))
    assert np.array_equal(seen[0].features("test"), usual[0].features("test"))
    assert not np.allclose(seen[1].features("test"), usual[1].features("test"), rtol=0.1)


def test_components_that_the_drawn_rows_do_not_have_are_zero(layer):
    # 7 rows have 6 directions; a probe would scale up what rounding makes of two more.
    way = Arrangement(Draw(share=7 / 540), control=Control.parse("pca=8"))
    task = Task("z", "memory", "latents", "mse", "minimise", encoding="raw")
    (seen,) = arranged(layer, task, way)
    assert len(seen.features("train")) == 7
    assert seen.features("test").shape == (180, 8)
    assert (seen.features("test").std(0)[:6] > 0.01).all()
    assert (seen.features("test")[:, 6:] == 0).all()


def test_groups_of_one_target_change_it_as_a_whole(view):
    groups = np.repeat(np.arange(180), 5)
    labels = groups % 4
    seen = controlled(view(np.eye(900, 6), 5, y=labels), Control.parse("shuffled"), 0)
    for split in SPLITS:
        found = seen.target("y", split).reshape(-1, 5)
        assert (found == found[:, :1]).all()
        assert np.bincount(found[:, 0]).tolist() == np.bincount(labels[: found.size : 5]).tolist()
    assert (seen.target("y", "train")[::5] != np.arange(108) % 4).sum() > 60


def test_rows_change_targets_where_a_group_has_several(view):
    labels = np.arange(900) % 5
    seen = controlled(view(np.eye(900, 6), 5, y=labels), Control.parse("shuffled"), 0)
    found = seen.target("y", "train").reshape(-1, 5)
    assert np.bincount(found.ravel()).tolist() == [108] * 5
    assert (np.sort(found, 1) != np.arange(5)).any()


def test_a_layer_that_is_too_narrow_is_named(layer):
    with pytest.raises(SettingsError, match="'stem' has 12 features, fewer than 'width=13'"):
        controlled(layer, Control.parse("width=13"), 0)


@pytest.mark.parametrize("name", ["width", "width=0", "wide=3", "shuffle"])
def test_an_unknown_control_is_refused(name):
    with pytest.raises(SettingsError, match="There is no control"):
        Control.parse(name)
