"""FFCV's own files as a source: labels, splits and options, and what is refused."""

import numpy as np
import pytest

from layerscope.data import ReadRequest, open_source
from layerscope.data.betons import pack
from layerscope.data.loaders import loaders
from layerscope.errors import SourceError
from layerscope.types import Preprocessing

SMALL = Preprocessing(16, 12, (0.5,) * 3, (0.25,) * 3)


@pytest.fixture
def root(foreign, samples, tmp_path):
    """A folder with train.beton and val.beton."""
    tmp_path = tmp_path / "set"
    tmp_path.mkdir()
    foreign(tmp_path / "train.beton", samples(60))
    foreign(tmp_path / "val.beton", samples(12))
    return tmp_path


def test_one_file_is_divided_by_a_rule(foreign, samples, tmp_path):
    made = samples(50, classes=2)
    source = open_source("beton", foreign(tmp_path / "x.beton", made))
    (task,) = source.tasks
    assert (task.name, task.kind, task.classes) == ("beton", "classes", ("0", "1"))
    assert source.targets["beton"].tolist() == [label for *_, label in made]
    counts = {split: int((source.splits == split).sum()) for split in ("train", "val", "test")}
    assert counts == {"train": 30, "val": 10, "test": 10}
    assert any("60, 20 and 20 %" in note for note in source.notes)


def test_the_name_of_a_file_decides_nothing(foreign, samples, tmp_path):
    first, second = (
        open_source("beton", foreign(tmp_path / name, samples(50))) for name in ("a.beton", "b.bin")
    )
    assert first.ids == second.ids
    assert first.manifest == second.manifest
    assert first.annotations == second.annotations


def test_another_file_has_another_manifest(foreign, samples, tmp_path):
    made = samples(50)
    first = open_source("beton", foreign(tmp_path / "a.beton", made))
    made[7] = (*made[7][:3], made[7][3], 1 - made[7][4] % 2)
    second = open_source("beton", foreign(tmp_path / "b.beton", made))
    assert first.manifest != second.manifest


def test_val_tests_where_there_is_no_test(root, samples):
    source = open_source("beton", root)
    assert source.ids[0] == "train/00000000"
    assert source.ids[60:] == tuple(f"val/{row:08d}" for row in range(12))
    assert (source.splits[60:] == "test").all()
    assert set(source.splits[:60]) == {"train", "val"}
    assert (source.splits == "val").sum() == 6
    for row, (data, mode, *_, label) in enumerate([*samples(60), *samples(12)]):
        read = source.images.read(row)
        assert (read.tobytes() if mode else read) == data
        assert source.targets["beton"][row] == label
    assert source.images.place(61) == f"{root / 'val.beton'}, row 1"


def test_three_files_are_three_splits(root, foreign, samples):
    foreign(root / "test.beton", samples(9))
    foreign(root / "extra.beton", samples(9))
    source = open_source("beton", root)
    assert [(source.splits == it).sum() for it in ("train", "val", "test")] == [60, 12, 9]
    assert source.splits[60] == "val"
    assert any("extra.beton" in note for note in source.notes)


def test_the_default_loader_reads_across_files(root, samples):
    source = open_source("beton", root)
    rows = [61, 2, 60, 59, 0]
    ((found, images),) = loaders["threads"](ReadRequest(source, SMALL, 8, rows))
    assert found.tolist() == rows
    assert images.shape == (5, 3, 12, 12)


def test_fields_are_chosen_by_name(foreign, samples, tmp_path):
    path = foreign(tmp_path / "x.beton", samples(50), ((255, "picture"), (1, "species")))
    with pytest.raises(SourceError, match="no field of images; its fields are picture, species"):
        open_source("beton", path)
    with pytest.raises(SourceError, match="no IntField called 'label'; it has species") as caught:
        open_source("beton", path, image="picture")
    assert "label=NAME" in caught.value.hint
    source = open_source("beton", path, image="picture", label="species", name="birds")
    assert (source.name, source.tasks[0].name) == ("birds", "birds")
    assert source.targets["birds"].tolist() == [row % 3 for row in range(50)]


@pytest.mark.parametrize("label", [-1, 1_000_000, 1 << 60])
def test_a_number_that_is_no_class_is_named(foreign, samples, tmp_path, label):
    made = samples(20)
    made[4] = (*made[4][:4], label)
    path = foreign(tmp_path / "x.beton", made)
    with pytest.raises(SourceError, match=rf"row 4, has {label} as its 'label'"):
        open_source("beton", path)


def test_a_packed_file_is_opened_by_its_own_name(source, tmp_path):
    path = pack(source, tmp_path / "x.beton").path
    with pytest.raises(SourceError, match="is kinds as layerscope pack wrote it") as caught:
        open_source("beton", path)
    assert f"--data kinds={path}" in caught.value.hint


def test_folders_without_such_files_are_refused(root, tmp_path):
    with pytest.raises(SourceError, match=r"holds no \.beton file"):
        open_source("beton", tmp_path)
    (root / "train.beton").rename(root / "a.beton")
    (root / "val.beton").rename(root / "b.beton")
    with pytest.raises(SourceError, match=r"holds 2 \.beton files and none is called train"):
        open_source("beton", root)
    (root / "b.beton").rename(root / "val.beton")
    with pytest.raises(SourceError, match="has no train split, only val"):
        open_source("beton", root)


def test_two_files_for_one_split_are_refused(root):
    (root / "validation.beton").write_bytes((root / "val.beton").read_bytes())
    with pytest.raises(SourceError, match="two val splits"):
        open_source("beton", root)


def test_labels_lie_within_the_classes_of_all_files(foreign, samples, tmp_path):
    foreign(tmp_path / "train.beton", samples(60, classes=2))
    foreign(tmp_path / "val.beton", samples(12, classes=5))
    source = open_source("beton", tmp_path)
    assert source.tasks[0].classes == tuple("01234")
    assert np.array_equal(source.targets["beton"][60:], np.arange(12) % 5)
