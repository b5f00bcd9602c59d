"""Words select tasks, limits select rows, and misses show what is near."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from layerscope.data import all_tasks, open_source, select_tasks, thin_source
from layerscope.data.sources import source_options, sources
from layerscope.errors import SettingsError, UnknownNameError
from layerscope.types import Source, Task

OBJECTS3D = tuple(task for task in all_tasks() if task.source == "objects3d")
KNOWN = (*OBJECTS3D, Task("objects-count", "objects", "classes", "top-1", "maximise"))


def names(pattern):
    return [task.name for task in select_tasks(pattern, KNOWN)]


def test_a_sources_name_names_all_of_its_tasks_and_no_other_sources():
    assert names("objects3d") == [task.name for task in OBJECTS3D]
    assert names("objects") == ["objects-count"]


def test_prefixes_end_at_a_dash():
    assert names("objects3d-spot") == [
        "objects3d-spot-hue",
        "objects3d-spot-phi",
        "objects3d-spot-theta",
    ]
    with pytest.raises(UnknownNameError):
        names("objects3d-sp")


def test_a_tasks_own_name_names_it_alone_and_a_number_may_follow_a_prefix():
    def chosen(pattern):
        return [task.name for task in select_tasks(pattern, all_tasks())]

    assert chosen("in1k") == ["in1k"]
    assert chosen("places") == ["places205", "places365"]
    assert chosen("cifar") == ["cifar10", "cifar100"]
    assert chosen("inat,clevr") == ["clevr-count", "clevr-dist", "inat"]


def test_lists_and_globs_keep_the_known_order_and_repeat_nothing():
    assert names("objects3d-spot-hue, *hue,objects-count") == [
        "objects3d-floor-hue",
        "objects3d-spot-hue",
        "objects-count",
    ]


@pytest.mark.parametrize("pattern", ["objects3d-rotatoin", "objects3d,objects3d-rotatoin"])
def test_an_unknown_task_shows_the_nearest_three(pattern):
    with pytest.raises(UnknownNameError) as caught:
        names(pattern)
    assert caught.value.near[0] == "objects3d-rotation"
    assert len(caught.value.near) == 3


def test_a_pattern_that_selects_nothing_is_refused():
    with pytest.raises(UnknownNameError):
        names(" , ")


def test_an_unknown_source_shows_the_known_ones(tmp_path):
    assert "objects3d" in sources
    with pytest.raises(UnknownNameError, match=r"image source called 'object3d'.*objects3d"):
        open_source("object3d", tmp_path)


def source_of(counts):
    splits = np.repeat(list(counts), list(counts.values()))
    splits = splits[np.random.default_rng(0).permutation(len(splits))]
    index = np.arange(len(splits))
    return Source(
        name="toy",
        ids=tuple(map(str, index)),
        splits=splits,
        groups=index.astype(str),
        tasks=(),
        targets={"toy-x": index},
        manifest="m",
        annotations="a",
        root=Path(),
    )


@pytest.mark.parametrize(
    ("counts", "limit", "expected"),
    [
        ({"train": 30, "val": 30, "test": 30}, 12, {"train": 4, "val": 4, "test": 4}),
        ({"train": 30, "val": 2, "test": 30}, 12, {"train": 5, "val": 2, "test": 5}),
        ({"train": 30, "test": 30}, 10, {"train": 5, "test": 5}),
        ({"train": 3, "val": 3, "test": 3}, 100, {"train": 3, "val": 3, "test": 3}),
    ],
)
def test_a_limit_takes_an_equal_share_of_every_split(counts, limit, expected):
    thinned = thin_source(source_of(counts), limit)
    found = {split: int((thinned.splits == split).sum()) for split in counts}
    assert found == expected


def test_a_limit_is_never_exceeded_and_keeps_rows_together():
    source = source_of({"train": 7, "val": 5, "test": 11})
    for limit in range(1, 24):
        thinned = thin_source(source, limit)
        rows = thinned.targets["toy-x"]
        assert len(rows) == limit
        assert (np.diff(rows) > 0).all()
        assert [source.ids[row] for row in rows] == list(thinned.ids) == list(thinned.groups)
        assert (source.splits[rows] == thinned.splits).all()


def test_limited_rows_are_spread_over_the_split():
    source = replace(source_of({"train": 100}), splits=np.repeat("train", 100))
    assert thin_source(source, 4).ids == ("0", "25", "50", "75")


def test_a_limit_of_nothing_is_refused():
    with pytest.raises(SettingsError, match="limit of 0 rows"):
        thin_source(source_of({"train": 3}), 0)


def test_options_have_their_types_whether_annotations_are_postponed_or_not():
    def at_once(root, *, list_1p: Path | None = None, only: str = "", raw: bool = False): ...

    def postponed(
        root, *, list_1p: "Path | None" = None, only: "str" = "", raw: "bool" = False
    ): ...

    expected = {"list_1p": Path, "only": str, "raw": bool}
    assert source_options(at_once) == source_options(postponed) == expected
