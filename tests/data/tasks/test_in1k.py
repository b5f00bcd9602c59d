"""ImageNet's folders, SimCLR's lists and the random subsets, against torchvision and plain sets."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from torchvision.datasets import ImageFolder

from layerscope.data import open_source, select_tasks
from layerscope.data.tasks import in1k
from layerscope.errors import SourceError, UnknownNameError
from layerscope.types import SPLITS
from tests.data.tasks.conftest import wnids, write_image, write_imagenet

WNIDS = sorted(wnids())


@pytest.fixture(scope="module")
def source(imagenet):
    return open_source("in1k", imagenet)


def test_rows_labels_and_classes_are_torchvisions(imagenet, source):
    expected = []
    for part in ("train", "val"):
        folder = ImageFolder(str(imagenet / part))
        assert folder.classes == WNIDS
        expected += [(str(Path(path).relative_to(imagenet)), it) for path, it in folder.samples]
    assert list(source.ids) == [path for path, _ in expected]
    assert source.targets["in1k"].tolist() == [label for _, label in expected]
    assert source.tasks[0].classes == tuple(WNIDS)


def test_the_official_validation_images_test_and_training_images_validate(source):
    official = np.array([name.split("/")[0] for name in source.ids])
    assert (source.splits[official == "val"] == "test").all()
    assert set(source.splits[official == "train"]) == {"train", "val"}
    # Of two images a class keeps one to be learned from.
    assert (source.splits == "val").sum() == 1000


def test_ten_of_each_class_validate_where_there_are_enough(monkeypatch, tmp_path):
    monkeypatch.setattr(in1k, "CLASSES", 3)
    monkeypatch.setattr(in1k, "DRAWN", {})
    for wnid in WNIDS[:3]:
        for k in range(25):
            write_image(tmp_path / "train" / wnid / f"{wnid}_{k}.JPEG", k)
        write_image(tmp_path / "val" / wnid / f"v_{wnid}.JPEG", 1)
    source = open_source("in1k", tmp_path)
    val = source.targets["in1k"][source.splits == "val"]
    assert np.bincount(val).tolist() == [10, 10, 10]


def test_counts_other_than_the_official_ones_are_said(source):
    assert "train has 2,000 images; the official set has 1,281,167." in source.notes
    assert "val has 1,000 images; the official set has 50,000." in source.notes


def part_of(source, task):
    return {
        split: np.flatnonzero(source.task_splits[task] == place)
        for place, split in enumerate(SPLITS)
    }


SUBSETS = [f"in250-s{k}" for k in range(7)] + [f"in250-d{k}" for k in (1, 2, 3)]


@pytest.mark.parametrize("name", SUBSETS)
def test_a_subset_has_250_classes_in_order_and_all_of_their_rows(source, name):
    task = next(task for task in source.tasks if task.name == name)
    assert len(task.classes) == 250
    assert sorted(task.classes) == list(task.classes)
    used = source.task_splits[name] >= 0
    own = {row for row, it in enumerate(source.ids) if it.split("/")[1] in task.classes}
    assert set(np.flatnonzero(used).tolist()) == own
    names = [source.ids[row].split("/")[1] for row in np.flatnonzero(used)]
    assert [task.classes[label] for label in source.targets[name][used]] == names
    for split, rows in part_of(source, name).items():
        assert (source.splits[rows] == split).all()


def test_the_subsets_are_random_apart_from_the_disjoint_ones(source):
    classes = {task.name: set(task.classes) for task in source.tasks}
    independent = [classes[f"in250-s{k}"] for k in range(7)]
    shared = [len(a & b) for i, a in enumerate(independent) for b in independent[:i]]
    # Hypergeometric: 62.5 on average, with a deviation of 5.9.
    assert 57 < np.mean(shared) < 68
    assert min(shared) > 35
    assert max(shared) < 90
    parts = [classes[name] for name in ("in250-s0", "in250-d1", "in250-d2", "in250-d3")]
    assert set.union(*parts) == set(WNIDS)
    assert sum(map(len, parts)) == 1000
    assert any("drawn with seeds 0 to 6" in note for note in source.notes)


def test_a_name_selects_itself_and_a_prefix_its_family(source):
    chosen = {
        pattern: [t.name for t in select_tasks(pattern, source.tasks)]
        for pattern in ("in1k", "in250", "in250-s", "in1k,in250-d2")
    }
    assert chosen["in1k"] == ["in1k"]
    assert sorted(chosen["in250"]) == sorted(SUBSETS)
    assert chosen["in250-s"] == SUBSETS[:7]
    assert chosen["in1k,in250-d2"] == ["in1k", "in250-d2"]


def write_list(path, names):
    path.write_text("".join(f"{name}\n" for name in names))
    return path


def test_a_list_says_what_trains_and_the_rest_is_judged_as_usual(imagenet, source, tmp_path):
    train = [it for it in source.ids if it.startswith("train/")]
    listed = [train[row].rpartition("/")[2] for row in (5, 0, 1999, 700, 701)]
    path = write_list(tmp_path / "1percent.txt", listed)
    own = open_source("in1k", imagenet, list_1p=path)
    rows = part_of(own, "in1k-1p")
    assert sorted(own.ids[row].rpartition("/")[2] for row in rows["train"]) == sorted(listed)
    assert (source.splits[rows["test"]] == "test").all()
    assert len(rows["test"]) == 1000
    usual = np.flatnonzero(source.splits == "val")
    assert set(rows["val"]) == set(usual) - set(rows["train"])
    assert own.targets["in1k-1p"].tolist() == source.targets["in1k"].tolist()
    assert "the list of in1k-1p has 5 lines; SimCLR's has 12,811." in own.notes
    assert [task.name for task in own.tasks][:2] == ["in1k", "in1k-1p"]
    assert "in1k-1p" not in source.targets


def test_a_listed_image_that_would_validate_trains(imagenet, source, tmp_path):
    validating = source.ids[int(np.flatnonzero(source.splits == "val")[3])]
    path = write_list(tmp_path / "10percent.txt", [validating.rpartition("/")[2]])
    own = open_source("in1k", imagenet, list_10p=path)
    rows = part_of(own, "in1k-10p")
    assert [own.ids[row] for row in rows["train"]] == [validating]
    assert len(rows["val"]) == 999


@pytest.mark.parametrize(("lines", "per_class"), [(12_811, (12, 13)), (128_116, (128, 129))])
def test_lists_of_the_published_length_are_read_whole(tmp_path, lines, per_class):
    few, more = per_class
    counts = np.full(1000, few) + (np.arange(1000) < lines - 1000 * few) * (more - few)
    names = [
        f"train/{wnid}/{wnid}_{k}.JPEG"
        for wnid, count in zip(WNIDS, counts.tolist(), strict=True)
        for k in range(count + 2)
    ]
    listed = [name.rpartition("/")[2] for name in names if int(re.split(r"[_.]", name)[1]) > 1]
    assert len(listed) == lines
    path = write_list(tmp_path / "list.txt", listed)
    splits = np.full(len(names), "train")
    own = in1k._list_splits(path, names, splits)
    assert (own == 0).sum() == lines
    assert {names[row].split("/")[1] for row in np.flatnonzero(own == 0)} == set(WNIDS)


def test_a_line_that_names_no_training_image_is_named(imagenet, source, tmp_path):
    train = source.ids[0].rpartition("/")[2]
    val = source.ids[-1].rpartition("/")[2]
    for second, message in (
        ("n00000000_1.JPEG", "line 2, names 'n00000000_1.JPEG', which is no image of train"),
        (val, "which is no image of train"),
        (train, "line 2, names .* once more"),
    ):
        path = write_list(tmp_path / "list.txt", [train, second])
        with pytest.raises(SourceError, match=message):
            open_source("in1k", imagenet, list_1p=path)
    write_list(path, [])
    with pytest.raises(SourceError, match=r"list\.txt' is empty"):
        open_source("in1k", imagenet, list_1p=path)
    with pytest.raises(SourceError, match="There is no file"):
        open_source("in1k", imagenet, list_1p=tmp_path / "none.txt")


def test_an_unknown_option_shows_the_known_ones(imagenet):
    with pytest.raises(UnknownNameError, match=r"option of in1k called 'list_1'.*list_1p"):
        open_source("in1k", imagenet, list_1=imagenet)


@pytest.fixture
def own(tmp_path):
    write_imagenet(tmp_path, (1, 1))
    return tmp_path


def test_incomplete_sets_are_refused(own):
    last = own / "val" / WNIDS[-1]
    shutil.move(last, own / "kept")
    with pytest.raises(SourceError, match=f"Only one of train and val has the class '{last.name}'"):
        open_source("in1k", own)
    shutil.rmtree(own / "train" / last.name)
    with pytest.raises(SourceError, match="has 999 classes, and ImageNet-1k has 1000") as caught:
        open_source("in1k", own)
    assert "folder=PATH" in caught.value.hint
    (own / "train" / last.name).mkdir()
    shutil.move(own / "kept", last)
    with pytest.raises(SourceError, match=rf"The class '.*train/{last.name}' has no image"):
        open_source("in1k", own)


def test_other_layouts_are_refused(own):
    (own / "train" / "cats").mkdir()
    (own / "val" / "cats").mkdir()
    with pytest.raises(SourceError, match="the class 'cats', no wnid"):
        open_source("in1k", own)
    shutil.rmtree(own / "val")
    with pytest.raises(SourceError, match="has no val"):
        open_source("in1k", own)
    write_image(own / "val" / "ILSVRC2012_val_00000001.JPEG", 1)
    with pytest.raises(SourceError, match="is not sorted into classes") as caught:
        open_source("in1k", own)
    assert "valprep" in caught.value.hint
