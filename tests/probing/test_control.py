import numpy as np
import pytest

from layerscope.errors import SettingsError
from layerscope.estimators import estimators
from layerscope.probing.control import controlled
from layerscope.types import Control, Task

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


def test_a_layer_that_is_too_narrow_is_named(layer):
    with pytest.raises(SettingsError, match="'stem' has 12 features, fewer than 'width=13'"):
        controlled(layer, Control.parse("width=13"), 0)


@pytest.mark.parametrize("name", ["width", "width=0", "wide=3", "shuffle"])
def test_an_unknown_control_is_refused(name):
    with pytest.raises(SettingsError, match="There is no control"):
        Control.parse(name)
