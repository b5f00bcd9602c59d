from collections import Counter
from itertools import pairwise

import pytest

from layerscope.render import RenderSettings
from layerscope.render.catalogue import ObjectInstance, catalogue
from layerscope.render.splits import split_objects
from layerscope.render.table import as_csv, table
from layerscope.rendered_set import HEADER
from layerscope.types import SPLITS

FULL = catalogue(RenderSettings())


def test_the_default_set_is_split_as_promised():
    assert Counter(split_objects(FULL, 0).values()) == {"train": 280, "val": 60, "test": 60}


@pytest.mark.parametrize("seed", range(5))
def test_every_category_is_split_alike(seed: int):
    splits = split_objects(FULL, seed)
    by_category = Counter((instance.category, splits[instance.name]) for instance in FULL)
    for (_, split), count in by_category.items():
        share = {"train": 17.5, "val": 3.75, "test": 3.75}[split]
        assert abs(count - share) <= 1.3


@pytest.mark.parametrize("count", range(3, 30))
def test_no_split_is_empty_from_three_objects_on(count: int):
    splits = split_objects(catalogue(RenderSettings(objects=count)), 0)
    assert set(splits.values()) == set(SPLITS)


def test_one_object_is_for_training():
    assert set(split_objects([ObjectInstance(0, "a_0000", "a")], 0).values()) == {"train"}


def test_the_split_is_decided_by_the_seed():
    assert split_objects(FULL, 1) == split_objects(FULL, 1)
    assert split_objects(FULL, 1) != split_objects(FULL, 2)


def test_all_views_of_an_object_are_in_one_split():
    settings = RenderSettings(objects=20, views=4)
    rows = table(catalogue(settings), settings)
    pairs = {(row.instance.name, row.split) for row in rows}
    assert len(rows) == 80 and len(pairs) == 20


def test_the_table_has_the_promised_header_and_keeps_all_digits():
    settings = RenderSettings(objects=3, views=2)
    rows = table(catalogue(settings), settings)
    head, *lines = as_csv(rows).decode().splitlines()
    assert head == (
        "image,object,category,yaw,pitch,roll,floor_hue,spot_theta,spot_phi,spot_hue,split"
    )
    assert head == ",".join(HEADER)
    first = lines[0].split(",")
    assert first[:3] == ["images/bed_0000/000.jpg", "bed_0000", "bed"]
    assert tuple(map(float, first[3:10])) == rows[0].latents.values()


def test_categories_take_turns():
    assert all(first.category != second.category for first, second in pairwise(FULL))
    assert [instance.index for instance in FULL] == list(range(400))
