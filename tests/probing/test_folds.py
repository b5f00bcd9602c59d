import numpy as np
import pytest

from layerscope.errors import SettingsError
from layerscope.probing import Arrangement, arranged, joined
from layerscope.types import Losses, Task

KIND = Task("y", "memory", "classes", "top-1", "maximise")
POSE = Task("z", "memory", "latents", "mse", "minimise", encoding="raw")


@pytest.fixture
def layer(view):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 400)
    rows = rng.standard_normal((400, 5)) + 2 * np.eye(5)[labels]
    return view(rows, 4, y=labels, z=rng.standard_normal((400, 1)))


@pytest.mark.parametrize("task", [KIND, POSE])
def test_every_row_that_is_no_test_row_is_validated_on_once(layer, task):
    views = arranged(layer, task, Arrangement(folds=5))
    val = np.concatenate([part.val for part in views])
    assert sorted(val.tolist()) == list(range(320))
    for part in views:
        assert not set(part.train) & set(part.val)
        assert not set(part.groups("train")) & set(part.groups("val"))
        whole = np.concatenate((layer.features("train"), layer.features("val")))
        assert np.array_equal(part.features("val"), whole[part.val])
        assert np.array_equal(part.features("test"), layer.features("test"))
        assert np.array_equal(part.target("y", "test"), layer.target("y", "test"))
        # Places and numbers of images are the same in this layer.
        assert np.array_equal(part.instances("val"), part.val)
        assert np.array_equal(part.instances("test"), layer.instances("test"))
        assert len(part.views("train")) == len(part.train)


def test_more_folds_than_groups_are_refused(layer):
    with pytest.raises(SettingsError, match="81 folds cannot be made of 80 independent groups"):
        arranged(layer, KIND, Arrangement(folds=81))


def test_folds_are_joined_in_the_order_of_the_rows(score):
    places = [np.array([0, 3]), np.array([1, 2, 4])]
    parts = [
        [score(val=1.0, test=0.5, losses=Losses(np.array([10.0, 13.0]), np.array([0.0, 1.0])))],
        [score(val=0.5, test=1.0, losses=Losses(np.array([11.0, 12, 14]), np.array([0.0, 0.0])))],
    ]
    (found,) = joined(parts, places)
    assert found.losses.val.tolist() == [10, 11, 12, 13, 14]
    assert found.losses.test.tolist() == [0, 0.5]
    assert (found.val, found.test, found.n_val) == (pytest.approx(0.7), 0.75, 5)
