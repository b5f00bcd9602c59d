"""Rows that two splits share are found by what is in them, and nothing else is."""

from dataclasses import dataclass

import numpy as np
import pytest

from layerscope.probing import find_shared_rows
from layerscope.results.shared_rows import (
    LISTED,
    SharedRows,
    keep_shared_rows,
    read_shared_rows,
    sentences,
)
from tests.probing.test_sweep import CATEGORY, LATENT, USUAL, Cache, View

N = 1200
DEAD = np.full((N, 3), 0.25)


def cache(*layers: np.ndarray, **more) -> Cache:
    named = {f"layer{i}": rows for i, rows in enumerate(layers)}
    return Cache(named, {CATEGORY.name: np.zeros(N, np.int64)}, [CATEGORY], **more)


def distinct(width: int = 5) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((N, width))


def copied(rows: np.ndarray, copies: dict[int, int]) -> np.ndarray:
    """Return the rows with some that have the content of others."""
    rows = rows.copy()
    rows[list(copies)] = rows[list(copies.values())]
    return rows


# Rows 0 to 719 train, 720 to 959 validate, 960 to 1199 are tested.
COPIES = {960: 7, 965: 719, 1199: 7, 720: 0, 1000: 800}


def test_planted_copies_are_found_in_every_pair_of_splits_with_their_ids():
    records = find_shared_rows(cache(copied(distinct(), COPIES)))
    found = {(it.split, it.within): it for it in records}
    assert {pair: it.ids for pair, it in found.items()} == {
        ("test", "train"): (
            ("test row 0", "train row 7"),
            ("test row 5", "train row 719"),
            ("test row 239", "train row 7"),
        ),
        ("test", "val"): (("test row 40", "val row 80"),),
        ("val", "train"): (("val row 0", "train row 0"),),
    }
    assert {(it.count, it.rows) for it in found.values()} == {(3, 240), (1, 240)}
    assert {(it.checkpoint, it.source, it.task, it.cut) for it in found.values()} == {
        ("planted", "memory", "", "layer0@mean")
    }


def test_nothing_is_found_in_clean_data():
    assert find_shared_rows(cache(distinct())) == []


@pytest.mark.parametrize("dead", [DEAD, np.where(distinct(3) > 2, distinct(3), 0)])
@pytest.mark.parametrize("first", [True, False])
def test_a_layer_of_constant_or_of_mostly_zero_rows_makes_no_duplicates(dead, first):
    for rows, expected in ((distinct(), 0), (copied(distinct(), COPIES), 3)):
        layers = (dead, rows) if first else (rows, dead)
        found = find_shared_rows(cache(*layers))
        assert [it.count for it in found if it.within == "train" and it.split == "test"] == (
            [expected] if expected else []
        )


def test_where_no_layer_tells_images_apart_nothing_is_said():
    assert find_shared_rows(cache(DEAD)) == []


def test_the_sign_of_zero_is_no_difference():
    rows = distinct()
    rows[[3, 970], 0] = 0.0, -0.0
    rows[970, 1:] = rows[3, 1:]
    assert [it.ids for it in find_shared_rows(cache(rows))] == [(("test row 10", "train row 3"),)]


def test_a_task_with_splits_of_its_own_is_looked_at_under_them():
    rows = copied(distinct(), {1100: 1150})  # both of the source's test split
    own = USUAL.copy()
    own[1150] = 0
    two = Cache(
        {"layer0": rows},
        {CATEGORY.name: np.zeros(N), LATENT.name: np.zeros(N)},
        [CATEGORY, LATENT],
        splits={LATENT.name: own},
    )
    (found,) = find_shared_rows(two)
    assert (found.task, found.count) == (LATENT.name, 1)
    assert found.ids == (("test row 140", "train row 720"),)


@dataclass
class NamedView(View):
    def ids(self, split):
        return self.part(np.array([f"{row}.png" for row in range(len(self.splits))]), split)


class NamedCache(Cache):
    def view(self, cut, pooling=None, task=None):
        plain = super().view(cut, pooling, task)
        return NamedView(plain.cache, plain.cut, plain.splits)


def test_ids_are_those_of_the_images_where_the_cache_has_them():
    named = NamedCache({"layer0": copied(distinct(), {960: 7})}, {}, [])
    assert [it.ids for it in find_shared_rows(named)] == [(("960.png", "7.png"),)]


def test_all_are_counted_and_the_first_are_listed():
    many = 2 * LISTED + 600
    splits = np.repeat(np.int8([0, 1, 2]), [LISTED + 300, 0, LISTED + 300])
    rows = np.tile(np.random.default_rng(0).standard_normal((many // 2, 2)), (2, 1))
    big = NamedCache({"layer0": rows}, {}, [CATEGORY], splits={CATEGORY.name: splits})
    (found,) = find_shared_rows(big)
    assert (found.count, len(found.ids)) == (LISTED + 300, LISTED)


def record(checkpoint: str = "net", count: int = 2) -> SharedRows:
    pairs = tuple((f"{i}.png", f"{i + 9}.png") for i in range(count))
    return SharedRows(checkpoint, "toy", "", "stem@mean", "test", "train", count, 80, pairs)


def test_what_was_found_is_kept_and_replaced(tmp_path):
    keep_shared_rows(tmp_path, "net", "toy", [record()])
    keep_shared_rows(tmp_path, "a/b", "toy", [record("a/b", 5)])
    assert read_shared_rows(tmp_path) == [record("a/b", 5), record()]
    keep_shared_rows(tmp_path, "net", "toy", [])
    assert read_shared_rows(tmp_path) == [record("a/b", 5)]


def test_checkpoints_that_say_the_same_say_it_once():
    found = [record(), record("other"), record("odd", 5)]
    assert sentences(found) == [
        "toy: 2 of 80 test rows have the very features of train rows, at stem@mean of net "
        "(and 1 more): 0.png = 9.png, 1.png = 10.png.",
        "toy: 5 of 80 test rows have the very features of train rows, at stem@mean of odd: "
        "0.png = 9.png, 1.png = 10.png, 2.png = 11.png, +2.",
    ]
