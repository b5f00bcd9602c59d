"""A source is checked as a whole: what no probe could notice never gets past here."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from layerscope.data.assembly import assemble
from layerscope.errors import SourceError
from layerscope.types import Task

KIND = Task("toy-kind", "toy", "classes", "top-1", "maximise", classes=("cup", "mug"))
MARKS = Task("toy-marks", "toy", "multilabel", "mse", "minimise", classes=("red", "big", "new"))
POSE = Task("toy-pose", "toy", "latents", "mse", "minimise", encoding="raw")
ROWS = 9


@pytest.fixture
def parts(tmp_path):
    ids = [f"{row}.jpg" for row in range(ROWS)]
    for row, name in enumerate(ids):
        (tmp_path / name).write_bytes(b"x" * (row + 1))
    return {
        "name": "toy",
        "root": tmp_path,
        "ids": ids,
        "splits": np.array(["train", "val", "test"])[np.arange(ROWS) % 3],
        "targets": {
            KIND: np.arange(ROWS) % 2,
            MARKS: (np.arange(ROWS)[:, None] >> np.arange(3)) & 1,
            POSE: np.linspace(0, 1, 2 * ROWS).reshape(ROWS, 2),
        },
    }


def test_everything_is_in_its_place(parts):
    source = assemble(**parts)
    assert source.ids == tuple(parts["ids"])
    assert source.tasks == (KIND, MARKS, POSE)
    assert source.targets["toy-pose"].shape == (ROWS, 2)
    assert len(set(source.groups)) == ROWS
    assert not source.missing
    assert source.framing == "checkpoint"


def test_features_depend_on_names_and_sizes_and_scores_on_the_rest(parts):
    first = assemble(**parts)
    relabelled = assemble(**parts | {"targets": {KIND: 1 - parts["targets"][KIND]}})
    assert relabelled.manifest == first.manifest
    assert relabelled.annotations != first.annotations
    resplit = assemble(**parts | {"splits": np.roll(parts["splits"], 1)})
    assert (resplit.manifest, resplit.annotations != first.annotations) == (first.manifest, True)
    own = assemble(**parts, task_splits={"toy-kind": np.zeros(ROWS, np.int8)})
    assert own.annotations != first.annotations
    grouped = assemble(**parts, groups=parts["splits"])
    assert grouped.annotations != first.annotations
    (parts["root"] / "3.jpg").write_bytes(b"longer")
    grown = assemble(**parts)
    assert (grown.manifest != first.manifest, grown.annotations) == (True, first.annotations)


def test_missing_and_empty_files_are_known_beforehand(parts):
    (parts["root"] / "2.jpg").unlink()
    (parts["root"] / "5.jpg").write_bytes(b"")
    source = assemble(**parts)
    assert source.missing == {2: "the file is not there", 5: "the file is empty"}


def changed(parts, task, row, value):
    target = parts["targets"][task].copy()
    target[row] = value
    return parts | {"targets": {**parts["targets"], task: target}}


@pytest.mark.parametrize(
    ("task", "value", "message"),
    [
        (KIND, 2, "'4.jpg' has a label out of range: 2 classes are known; its toy-kind is 2"),
        (KIND, -1, "a label out of range"),
        (MARKS, [0, 1, 2], "labels other than 0 and 1"),
        (POSE, [0.0, np.nan], "a value that is not finite"),
        (POSE, [0.0, np.inf], "a value that is not finite"),
    ],
)
def test_a_target_that_cannot_be_is_named(parts, task, value, message):
    wrong = changed(parts, task, 4, value)
    with pytest.raises(SourceError, match=message):
        assemble(**wrong)
    # A row that the task leaves out may hold anything.
    codes = np.array([0, 1, 2] * 3, np.int8)
    codes[4] = -1
    assert assemble(**wrong, task_splits={task.name: codes})


def test_what_contradicts_itself_is_refused(parts):
    cases = [
        ({"ids": []}, "holds no image"),
        ({"ids": [*parts["ids"][:-1], "0.jpg"]}, "names the image '0.jpg' 2 times"),
        ({"splits": np.full(ROWS, "train")}, "The val split of .* is empty: 9 images"),
        ({"groups": np.array(["a"] * ROWS)}, "images of 'a' in several splits: test, train, val"),
        ({"targets": {KIND: np.zeros(3, np.int64)}}, "toy-kind has 3 targets for 9 images"),
        ({"ids": [os.fsdecode(b"\xe9.jpg"), *parts["ids"][1:]]}, "is not UTF-8"),
    ]
    for change, message in cases:
        with pytest.raises(SourceError, match=message) as caught:
            assemble(**parts | change)
        assert caught.value.hint


def test_without_questions_a_single_split_is_enough(parts):
    nothing = Task("toy-none", "toy", "none", "", "maximise")
    one = np.full(ROWS, "train")
    assert assemble(**parts | {"splits": one, "targets": {nothing: np.zeros((ROWS, 0))}})
    assert assemble(**parts | {"splits": one}, test_only=True)


def test_sizes_that_are_known_are_not_looked_up(parts, monkeypatch):
    monkeypatch.setattr("layerscope.data.assembly.file_sizes", None)
    source = assemble(**parts | {"root": Path("/nowhere")}, sizes=[1] * ROWS)
    assert not source.missing
    other = assemble(**parts | {"root": Path("/nowhere")}, sizes=[2] * ROWS)
    assert other.manifest != source.manifest
    assert replace(other, manifest=source.manifest).annotations == source.annotations
