"""Folders of classes in every layout, compared with torchvision's own reading of them."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import ImageFolder

from layerscope.data import open_source, select_tasks
from layerscope.errors import SourceError

COUNTS = {"ant": 20, "Bee": 11, "cat": 5}


def draw(path: Path, shade=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (9, 7), (shade % 256, 40, 90)).save(path)


def fill(folder: Path, counts=COUNTS):
    """Write images of every class, some of them in folders inside it."""
    for name, count in counts.items():
        for i in range(count):
            inside = ("", "z/", "a/b/")[i % 3]
            draw(folder / name / f"{inside}{i % 7}_{i}.{('jpg', 'PNG')[i % 2]}", i)
        (folder / name / "notes.txt").write_text("no image")


def expected(root: Path, *folders: str):
    """Return paths below the root, labels and folder of every row, as torchvision has them."""
    rows = []
    for folder in folders:
        for path, label in ImageFolder(root / folder).samples:
            rows.append((str(Path(path).relative_to(root)), label, folder))
    return rows


def opened(root, **options):
    return open_source("folder", root, **options)


def compare(source, rows):
    assert list(source.ids) == [path for path, _, _ in rows]
    assert source.targets["folder"].tolist() == [label for _, label, _ in rows]


@pytest.mark.parametrize("val", ["val", "valid", "validation", "Validation"])
def test_three_splits_are_used_as_they_are(tmp_path, val):
    for folder, counts in (("train", COUNTS), (val, {"ant": 2, "Bee": 3, "cat": 1})):
        fill(tmp_path / folder, counts)
    fill(tmp_path / "test", {"cat": 4, "ant": 1, "Bee": 2})
    source = opened(tmp_path)
    rows = expected(tmp_path, "train", val, "test")
    compare(source, rows)
    assert source.splits.tolist() == [
        {"train": "train", "test": "test"}.get(it, "val") for *_, it in rows
    ]
    assert source.tasks[0].classes == tuple(ImageFolder(tmp_path / "train").classes)
    assert source.tasks[0].classes == ("Bee", "ant", "cat")
    assert source.notes == ()


@pytest.mark.parametrize("tests", ["val", "valid", "test"])
def test_two_splits_leave_a_tenth_of_training_to_validate(tmp_path, tests):
    fill(tmp_path / "train")
    fill(tmp_path / tests, {"ant": 3, "Bee": 3, "cat": 3})
    source = opened(tmp_path)
    rows = expected(tmp_path, "train", tests)
    compare(source, rows)
    official = ["test" if split == "test" else "train" for split in source.splits]
    assert official == ["train" if it == "train" else "test" for *_, it in rows]
    assert (source.splits == "val").sum() == round(0.1 * 36)
    val = Counter(source.targets["folder"][source.splits == "val"].tolist())
    for label, count in enumerate((11, 20, 5)):
        assert abs(val[label] - 0.1 * count) < 1.5
    assert f"its {'test' if tests == 'test' else 'val'} split tests; 10 %" in source.notes[0]
    assert source.tasks[0].split == source.notes[0]


def test_without_splits_they_are_made_up_of_all(tmp_path):
    fill(tmp_path)
    source = opened(tmp_path)
    compare(source, expected(tmp_path, ""))
    assert Counter(source.splits.tolist()) == {"train": 22, "val": 7, "test": 7}
    for split in ("train", "val", "test"):
        assert set(source.targets["folder"][source.splits == split].tolist()) == {0, 1, 2}
    assert "brings no splits: 60, 20 and 20 %" in source.notes[0]
    assert opened(tmp_path).splits.tolist() == source.splits.tolist()


def test_a_training_split_alone_is_no_split(tmp_path):
    fill(tmp_path / "train")
    source = opened(tmp_path)
    compare(source, expected(tmp_path, "train"))
    assert Counter(source.splits.tolist()) == {"train": 22, "val": 7, "test": 7}
    assert "a train split alone" in source.notes[0]


def test_a_class_of_one_image_stays_in_train_and_is_named(tmp_path):
    fill(tmp_path, COUNTS | {"dodo": 1})
    source = opened(tmp_path)
    assert source.splits[list(source.targets["folder"]).index(3)] == "train"
    assert source.notes[1:] == ("a single image stays in train of: 'dodo'",)
    fill(tmp_path / "in two" / "train", COUNTS | {"dodo": 1})
    fill(tmp_path / "in two" / "test", dict.fromkeys([*COUNTS, "dodo"], 2))
    source = opened(tmp_path / "in two")
    dodos = source.splits[source.targets["folder"] == 3]
    assert dodos.tolist() == ["train", "test", "test"]
    assert source.notes[1:] == ("a single image stays in train of: 'dodo'",)


def test_a_name_tells_two_folders_apart(tmp_path):
    fill(tmp_path)
    source = opened(tmp_path, name="my-birds.2")
    assert (source.name, source.tasks[0].name, source.tasks[0].source) == ("my-birds.2",) * 3
    assert list(source.targets) == ["my-birds.2"]
    assert select_tasks("my-birds.2", source.tasks) == source.tasks
    for name, message in (
        ("my birds", "'my birds' cannot stand for"),
        ("a,b", "'a,b' cannot stand for"),
        ("inat", "'inat' is that of another image source"),
    ):
        with pytest.raises(SourceError, match=message):
            opened(tmp_path, name=name)


def test_the_manifest_follows_contents_and_not_the_place(tmp_path):
    fill(tmp_path / "here")
    first = opened(tmp_path / "here")
    (tmp_path / "here").rename(tmp_path / "there")
    second = opened(tmp_path / "there")
    assert (first.manifest, first.annotations) == (second.manifest, second.annotations)
    path = tmp_path / "there" / second.ids[4]
    path.write_bytes(path.read_bytes() + b"\0")
    assert opened(tmp_path / "there").manifest != first.manifest


def test_trains_may_be_a_class(tmp_path):
    for name in ("train", "plane", "test"):
        for i in range(10):
            draw(tmp_path / name / f"{i}.png", i)
    source = opened(tmp_path)
    compare(source, expected(tmp_path, ""))
    assert source.tasks[0].classes == ("plane", "test", "train")
    assert "test, train: taken for classes, not for splits" in source.notes


def test_what_could_be_split_or_class_is_refused(tmp_path):
    fill(tmp_path / "a" / "train")
    fill(tmp_path / "a" / "plane")
    with pytest.raises(SourceError, match="has 'train' beside 'plane': split, or classes"):
        opened(tmp_path / "a")
    fill(tmp_path / "b" / "train")
    draw(tmp_path / "b" / "test" / "0001.jpg")
    with pytest.raises(SourceError, match="test' is called like a split and holds images"):
        opened(tmp_path / "b")
    for name in ("train", "val"):
        draw(tmp_path / "c" / name / "0001.jpg")
    with pytest.raises(SourceError, match="train' is called like a split and holds images"):
        opened(tmp_path / "c")
    draw(tmp_path / "c" / "plane" / "0001.jpg")
    fill(tmp_path / "c" / "test")
    with pytest.raises(SourceError, match="train' is called like a split and holds images"):
        opened(tmp_path / "c")


def test_what_names_no_split_is_left_out_and_noted(tmp_path):
    for folder in ("train", "test", "unlabelled"):
        fill(tmp_path / folder)
    (tmp_path / "annotations").mkdir()
    draw(tmp_path / "sample.jpg")
    source = opened(tmp_path)
    compare(source, expected(tmp_path, "train", "test"))
    assert source.notes[1:] == (
        "these folders name no split and are left out: 'annotations', 'unlabelled'",
        "1 images beside the folders belong to no class and are left out",
    )


@pytest.mark.parametrize(
    ("extra", "has", "lacks"), [("test", "test", "train"), ("train", "train", "test")]
)
def test_a_class_that_one_split_lacks_is_named(tmp_path, extra, has, lacks):
    fill(tmp_path / "train")
    fill(tmp_path / "test")
    fill(tmp_path / extra, {"dodo": 2})
    with pytest.raises(SourceError, match=rf"'dodo' is in .*/{has}' and not in .*/{lacks}'"):
        opened(tmp_path)


def test_an_empty_class_is_named(tmp_path):
    fill(tmp_path)
    (tmp_path / "dodo" / "inside").mkdir(parents=True)
    (tmp_path / "dodo" / "list.txt").write_text("")
    with pytest.raises(SourceError, match=r"class folder '.*/dodo' holds no image"):
        opened(tmp_path)


def test_missing_and_misplaced_pieces_are_named(tmp_path):
    with pytest.raises(SourceError, match="is not there"):
        opened(tmp_path / "none")
    with pytest.raises(SourceError, match="holds no class folder"):
        opened(tmp_path)
    fill(tmp_path / "images")
    with pytest.raises(SourceError, match="holds the single class 'images'") as caught:
        opened(tmp_path)
    assert "too high up" in caught.value.hint
    for folder in ("val", "test"):
        fill(tmp_path / "set" / folder)
    with pytest.raises(SourceError, match="has no train split, only test, val"):
        opened(tmp_path / "set")
    fill(tmp_path / "set" / "train")
    fill(tmp_path / "set" / "validation")
    with pytest.raises(SourceError, match="has two val splits: 'val' and 'validation'"):
        opened(tmp_path / "set")


def test_too_few_images_for_a_split_are_refused(tmp_path):
    fill(tmp_path, {"ant": 1, "bee": 1})
    with pytest.raises(SourceError, match=r"split of .* is empty: 2 images in all"):
        opened(tmp_path)


def test_a_link_to_nothing_is_named(tmp_path):
    fill(tmp_path)
    path = tmp_path / opened(tmp_path).ids[5]
    path.unlink()
    path.symlink_to(tmp_path / "gone.jpg")
    with pytest.raises(SourceError, match=rf"{path.name}' .* the file is not there"):
        opened(tmp_path)
    assert opened(tmp_path, allow_missing=True).missing == {5: "the file is not there"}


def test_labels_are_whole_numbers(tmp_path):
    fill(tmp_path)
    assert opened(tmp_path).targets["folder"].dtype == np.int64
