"""The fingerprint changes exactly with what changes the features."""

from dataclasses import replace
from pathlib import Path

import pytest

from layerscope.cache import cache_name, differences, fingerprint_of, ingredients


def recorded(header, **changes):
    checkpoint = replace(header.checkpoint, **changes.pop("checkpoint", {}))
    arguments = {
        "cuts": header.cuts,
        "source": replace(header.source, **changes.pop("source", {})),
        "preprocessing": header.checkpoint.preprocessing,
        "decoder": "pillow",
        "precision": "float32",
    }
    return ingredients(checkpoint, **(arguments | changes))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"checkpoint": {"sha256": "b" * 64}}, "weights"),
        ({"checkpoint": {"architecture": {"widths": (3, 5, 5)}}}, "architecture"),
        ({"checkpoint": {"family": "other"}}, "family"),
        ({"source": {"manifest": "n" * 64}}, "images"),
        ({"source": {"annotations": "n" * 64}}, "annotations"),
        ({"decoder": "ffcv"}, "decoder"),
        ({"precision": "bfloat16"}, "precision"),
        ({"limit": 5}, "limit"),
        ({"checkpoint": {"declared": {"branch": "momentum"}}}, "declared"),
        ({"checkpoint": {"declared": {"head_act": "gelu"}}}, "declared"),
    ],
)
def test_each_ingredient_changes_the_fingerprint_and_is_named(header, change, named):
    there, asked = recorded(header), recorded(header, **change)
    assert fingerprint_of(there) != fingerprint_of(asked)
    assert differences(there, asked) == (named,)


def test_preprocessing_and_cuts_are_ingredients(header):
    sharper = replace(header.checkpoint.preprocessing, interpolation="bicubic")
    there = recorded(header)
    assert differences(there, recorded(header, preprocessing=sharper)) == ("preprocessing",)
    assert differences(there, recorded(header, cuts=header.cuts[:2])) == ("cuts",)
    renamed = (replace(header.cuts[0], module="trunk.layer1.1"), *header.cuts[1:])
    assert differences(there, recorded(header, cuts=renamed)) == ("cuts",)


@pytest.mark.parametrize(
    "change", [{"pooling": "max"}, {"layout": "map-last"}, {"prefix_tokens": 1}, {"width": 9}]
)
def test_how_a_cut_is_pooled_is_an_ingredient(header, change):
    changed = (replace(header.cuts[0], **change), *header.cuts[1:])
    assert differences(recorded(header), recorded(header, cuts=changed)) == ("cuts",)


def test_naming_the_family_that_would_have_been_found_changes_nothing(header):
    named = {"declared": {"family": "toy"}}
    assert fingerprint_of(recorded(header)) == fingerprint_of(recorded(header, checkpoint=named))


def test_where_a_checkpoint_lies_and_what_is_said_of_it_do_not_matter(header):
    moved = {"weights": Path("/elsewhere/x.pt"), "citation": "me", "licence": "MIT"}
    assert fingerprint_of(recorded(header)) == fingerprint_of(recorded(header, checkpoint=moved))


def test_the_fingerprint_is_the_same_on_every_machine_and_run(header):
    # Pinned: a change of this value makes every cache that exists foreign.
    assert fingerprint_of({"b": [1, "größe"], "a": {"y": None, "x": 0.1}}) == (
        "853648f1cf94b7a5f70910925eb46dcb631be1deb1d8e3fccbfa492662bfb4df"
    )


def test_names_of_files_hold_no_separators():
    assert cache_name("runs/a b", "objects3d") == "runs-a-b@objects3d.h5"
