"""Splits: exact shares, every class left with one, groups whole, the same on every machine."""

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layerscope.data.splits import carve, carve_val, codes, hash_order, hashed_splits, with_val


def names(count):
    return [f"image{row}.jpg" for row in range(count)]


@settings(max_examples=60, deadline=None)
@given(
    labels=st.lists(st.integers(0, 6), min_size=1, max_size=120),
    share=st.floats(0, 0.6),
    seed=st.integers(0, 3),
)
def test_a_share_is_exact_and_leaves_every_class_one(labels, share, seed):
    labels = np.array(labels)
    chosen = carve(names(len(labels)), labels, share=share, seed=seed)
    candidates = len(labels) - len(np.unique(labels))
    assert chosen.sum() == min(round(share * len(labels)), candidates)
    for label in np.unique(labels):
        members = labels == label
        assert not chosen[members].all()
        # Evenly along the classes: each gives its share, to within one image on either side.
        expected = chosen.sum() * (members.sum() - 1) / max(candidates, 1)
        assert abs(chosen[members].sum() - expected) < 2


@settings(max_examples=40, deadline=None)
@given(labels=st.lists(st.integers(0, 5), min_size=1, max_size=80), count=st.integers(0, 9))
def test_so_many_of_each_class_or_all_but_one(labels, count):
    labels = np.array(labels)
    chosen = carve(names(len(labels)), labels, per_class=count)
    for label in np.unique(labels):
        members = labels == label
        assert chosen[members].sum() == min(count, members.sum() - 1)


@settings(max_examples=40, deadline=None)
@given(groups=st.lists(st.integers(0, 9), min_size=1, max_size=60), share=st.floats(0, 0.6))
def test_groups_stay_whole(groups, share):
    groups = np.array(groups).astype(str)
    chosen = carve(names(len(groups)), groups.astype(int) % 2, share=share, groups=groups)
    for group in np.unique(groups):
        assert len(np.unique(chosen[groups == group])) == 1


def test_it_depends_on_names_and_seed_and_not_on_the_order():
    labels = np.arange(60) % 3
    first = carve(names(60), labels, share=0.2)
    order = np.random.default_rng(0).permutation(60)
    shuffled = carve([names(60)[row] for row in order], labels[order], share=0.2)
    assert (shuffled == first[order]).all()
    assert (carve(names(60), labels, share=0.2, seed=1) != first).any()
    assert carve(names(60), None, share=0.2).sum() == 12


def test_the_order_is_that_of_a_published_hash():
    listed = ["größe.jpg", "b/1.jpg", "b/2.jpg"]
    keys = [hashlib.sha256(f"7:{name}".encode()).digest()[:8] for name in listed]
    assert hash_order(listed, 7).tolist() == sorted(range(3), key=keys.__getitem__)


def test_the_order_looks_random():
    places = np.argsort(hash_order(names(4000), 0))
    # A rank correlation with the row has a deviation of 1/√n.
    assert abs(np.corrcoef(places, np.arange(4000))[0, 1]) < 4 / np.sqrt(4000)
    low = (places < 2000).reshape(40, 100).sum(1)
    assert abs(low - 50).max() < 20


def test_splits_made_up_are_60_20_and_20_in_every_class():
    labels = np.repeat([0, 1, 2], [100, 50, 10])
    splits = hashed_splits(names(160), labels)
    for label, count in ((0, 100), (1, 50), (2, 10)):
        members = splits[labels == label]
        for split, share in (("train", 0.6), ("val", 0.2), ("test", 0.2)):
            assert abs((members == split).sum() - share * count) <= 1.5
    groups = (np.arange(160) // 4).astype(str)
    whole = hashed_splits(names(160), None, groups)
    assert all(len(np.unique(whole[groups == group])) == 1 for group in np.unique(groups))
    assert set(whole) == {"train", "val", "test"}


def test_with_val_and_codes_say_the_same():
    train = np.array([True, False, True, True, False])
    splits = with_val(train, np.array([False, True, False]))
    assert splits.tolist() == ["train", "test", "val", "train", "test"]
    assert codes(splits).tolist() == [0, 2, 1, 0, 2]
    assert codes(np.array(["dev"])).tolist() == [-1]


def test_validation_rows_are_carved_from_training_rows_alone():
    labels, groups = np.arange(60) % 3, (np.arange(60) // 2).astype(str)
    train = np.arange(60) % 5 > 0
    rows = np.flatnonzero(train)
    own = [names(60)[row] for row in rows]
    for how in ({"share": 0.25}, {"per_class": 4}, {"share": 0.5, "seed": 3}):
        splits = carve_val(train, names(60), labels, groups=groups, **how)
        val = carve(own, labels[rows], groups=groups[rows], **how)
        assert val.any() and np.flatnonzero(splits == "val").tolist() == rows[val].tolist()
        assert (splits == "test").tolist() == (~train).tolist()


@pytest.mark.parametrize("count", [1, 2])
def test_a_class_with_hardly_any_image_keeps_one(count):
    labels = np.array([0] * 20 + [1] * count)
    chosen = carve(names(len(labels)), labels, share=0.5)
    assert chosen[labels == 1].sum() < count
