import numpy as np
import pytest

from layerscope.errors import SettingsError
from layerscope.probing.draw import drawn
from layerscope.types import Draw

LABELS = np.repeat([0, 1, 2], [100, 50, 7])


def test_a_share_is_that_share_of_every_class_and_never_nothing():
    rows = drawn(Draw.parse("10%"), LABELS, 157, 0)
    assert np.bincount(LABELS[rows]).tolist() == [10, 5, 1]
    assert (np.diff(rows) > 0).all()
    assert np.bincount(LABELS[drawn(Draw.parse("1%"), LABELS, 157, 0)]).tolist() == [1, 1, 1]


def test_a_number_of_each_class_is_that_number():
    rows = drawn(Draw.parse("5/class"), LABELS, 157, 0)
    assert np.bincount(LABELS[rows]).tolist() == [5, 5, 5]


@pytest.mark.parametrize(("small", "large"), [("10%", "50%"), ("2/class", "6/class")])
def test_the_smaller_draw_is_part_of_the_larger(small, large):
    few, many = (set(drawn(Draw.parse(it), LABELS, 157, 3).tolist()) for it in (small, large))
    assert few < many


def test_seeds_draw_otherwise_and_the_same_seed_the_same():
    one, again, other = (drawn(Draw.parse("20%"), LABELS, 157, seed).tolist() for seed in (1, 1, 2))
    assert one == again != other


def test_without_classes_a_share_is_of_the_rows():
    assert len(drawn(Draw.parse("10%"), None, 200, 0)) == 20


@pytest.mark.parametrize("name", ["", "0%", "101%", "ten", "0/class", "10", "5/classes", "-1%"])
def test_what_says_nothing_is_refused(name):
    with pytest.raises(SettingsError, match="does not say which training rows") as caught:
        Draw.parse(name)
    assert "10%" in caught.value.hint


def test_a_class_that_is_too_small_is_named():
    with pytest.raises(SettingsError, match="asks for 8 training rows of class 2, which has 7"):
        drawn(Draw.parse("8/class"), LABELS, 157, 0)
    with pytest.raises(SettingsError, match="has no classes"):
        drawn(Draw.parse("8/class"), None, 157, 0)
