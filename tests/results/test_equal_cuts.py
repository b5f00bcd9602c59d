from __future__ import annotations

from dataclasses import replace

from layerscope.results.equal_cuts import group_equal_cuts, other_names, without_repeats
from tests.report.planted import CUTS, probe

CONTENTS = {"stem": "a", "layer1": "b", "layer2": "a", "layer3": "c", "trunk": "c"}


def scores(contents: dict[str, str]):
    rows = [replace(probe(cut, 0.5), losses=None) for cut in CUTS]
    return [replace(row, content=contents.get(row.cut, "")) for row in rows]


def test_equal_cuts_are_one_at_the_place_of_the_first_and_called_the_trunk_if_it_is_one():
    rows = scores(CONTENTS)
    groups = group_equal_cuts(rows)
    assert [[CUTS[place] for place in group] for group in groups] == [
        ["stem", "layer2"],
        ["layer1"],
        ["trunk", "layer3"],
        ["head.1"],
        ["head.2"],
    ]
    assert other_names(rows, groups) == {"stem": ("layer2",), "trunk": ("layer3",)}


def test_what_is_not_known_is_equal_to_nothing():
    rows = scores({})
    assert group_equal_cuts(rows) == [[place] for place in range(len(CUTS))]
    assert without_repeats(rows) == rows


def test_repeats_are_told_within_one_network_and_source_alone():
    rows = scores(CONTENTS)
    other = [replace(row, checkpoint="other", content="a") for row in rows[1:2]]
    kept = without_repeats([*rows, *other])
    assert [(it.checkpoint, it.cut) for it in kept] == [
        ("net", "stem"),
        ("net", "layer1"),
        ("net", "trunk"),
        ("net", "head.1"),
        ("net", "head.2"),
        ("other", "layer1"),
    ]
