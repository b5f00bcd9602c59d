from itertools import pairwise

import numpy as np
import pytest

from layerscope.errors import SettingsError
from layerscope.probing.draw import drawn
from layerscope.types import Draw

LABELS = np.repeat([0, 1, 2], [100, 50, 7])
ALONE = np.array([f"{row}.png" for row in range(157)])


def whole(rows, groups):
    """Return whether no group is in part among the rows."""
    return set(groups[rows]).isdisjoint(np.delete(groups, rows))


def test_a_share_is_that_share_of_every_class_and_never_nothing():
    rows = drawn(Draw.parse("10%"), LABELS, ALONE, 0)
    assert np.bincount(LABELS[rows]).tolist() == [10, 5, 1]
    assert (np.diff(rows) > 0).all()
    assert np.bincount(LABELS[drawn(Draw.parse("1%"), LABELS, ALONE, 0)]).tolist() == [1, 1, 1]


def test_a_number_of_each_class_is_that_number():
    rows = drawn(Draw.parse("5/class"), LABELS, ALONE, 0)
    assert np.bincount(LABELS[rows]).tolist() == [5, 5, 5]


@pytest.mark.parametrize(("small", "large"), [("10%", "50%"), ("2/class", "6/class")])
def test_the_smaller_draw_is_part_of_the_larger(small, large):
    few, many = (set(drawn(Draw.parse(it), LABELS, ALONE, 3).tolist()) for it in (small, large))
    assert few < many


def test_seeds_draw_otherwise_and_the_same_seed_the_same():
    one, again, other = (
        drawn(Draw.parse("20%"), LABELS, ALONE, seed).tolist() for seed in (1, 1, 2)
    )
    assert one == again != other


def test_without_classes_a_share_is_of_the_rows():
    assert len(drawn(Draw.parse("10%"), None, np.arange(200), 0)) == 20


@pytest.mark.parametrize("words", ["10%", "33%", "4/class"])
def test_where_every_row_is_a_group_the_first_rows_of_a_permutation_are_drawn(words):
    draw = Draw.parse(words)
    order = np.random.default_rng(2).permutation(157)
    expected = []
    for label in range(3):
        rows = order[LABELS[order] == label]
        expected += rows[: draw.each or max(1, round(draw.share * len(rows)))].tolist()
    assert drawn(draw, LABELS, ALONE, 2).tolist() == sorted(expected)


SIZES = np.random.default_rng(0).integers(1, 12, 90)
GROUPS = np.repeat([f"object{it}" for it in range(90)], SIZES)
OF_GROUP = np.repeat(np.arange(90) % 3, SIZES)
MIXED = np.random.default_rng(1).integers(0, 4, len(GROUPS))


@pytest.mark.parametrize("labels", [OF_GROUP, MIXED, None], ids=["one class", "mixed", "none"])
@pytest.mark.parametrize("words", ["2%", "10%", "40%", "90%"])
def test_groups_are_drawn_whole_and_the_share_is_right_within_one_of_each_class(labels, words):
    draw = Draw.parse(words)
    shuffled = np.random.default_rng(3).permutation(len(GROUPS))
    groups = GROUPS[shuffled]
    kinds = None if labels is None else labels[shuffled]
    rows = drawn(draw, kinds, groups, 0)
    assert whole(rows, groups)
    if labels is MIXED:
        assert set(kinds[rows]) == set(range(4))
        assert abs(len(rows) - draw.share * len(groups)) <= 4 * SIZES.max()
        return
    kinds = np.zeros(len(groups)) if kinds is None else kinds
    for kind in np.unique(kinds):
        gap = abs((kinds[rows] == kind).sum() - draw.share * (kinds == kind).sum())
        assert gap <= SIZES.max()


@pytest.mark.parametrize("labels", [OF_GROUP, MIXED], ids=["one class", "mixed"])
@pytest.mark.parametrize("seed", range(5))
def test_draws_of_groups_are_nested(labels, seed):
    for steps in (("2%", "10%", "11%", "50%"), ("1/class", "5/class", "6/class", "30/class")):
        taken = [set(drawn(Draw.parse(it), labels, GROUPS, seed).tolist()) for it in steps]
        assert all(few <= many for few, many in pairwise(taken))
        assert taken[0] < taken[-1]


def test_a_small_share_of_few_groups_keeps_every_class():
    groups, labels = np.repeat(np.arange(6), 50), np.repeat([0, 1, 2, 0, 1, 2], 50)
    rows = drawn(Draw.parse("1%"), labels, groups, 0)
    assert whole(rows, groups)
    assert np.bincount(labels[rows]).tolist() == [50, 50, 50]


def test_a_number_of_each_class_is_as_near_as_whole_groups_allow():
    groups, labels = np.repeat(np.arange(30), 4), np.repeat(np.arange(30) % 3, 4)
    found = [
        np.bincount(labels[drawn(Draw.parse(it), labels, groups, 0)]).tolist()
        for it in ("1/class", "5/class", "7/class", "8/class")
    ]
    assert found == [[4] * 3, [4] * 3, [8] * 3, [8] * 3]


@pytest.mark.parametrize("name", ["", "0%", "101%", "ten", "0/class", "10", "5/classes", "-1%"])
def test_what_says_nothing_is_refused(name):
    with pytest.raises(SettingsError, match="does not say which training rows") as caught:
        Draw.parse(name)
    assert "10%" in caught.value.hint


def test_a_class_that_is_too_small_is_named():
    with pytest.raises(SettingsError, match="asks for 8 training rows of class 2, which has 7"):
        drawn(Draw.parse("8/class"), LABELS, ALONE, 0)
    with pytest.raises(SettingsError, match="has no classes"):
        drawn(Draw.parse("8/class"), None, ALONE, 0)
