"""Both editions of Places in their official layouts, against plain readings and torchvision."""

import hashlib

import numpy as np
import pytest
from torchvision.datasets import Places365

from layerscope.data import open_source
from layerscope.data.tasks import places
from layerscope.errors import SourceError
from tests.data.tasks.conftest import write_image

NAMES205 = [f"{'abc'[k % 3]}/place{k}" + ("/outdoor" if k % 5 == 0 else "") for k in range(205)]
NAMES365 = sorted(f"{chr(97 + k % 26)}/scene_{k}" for k in range(365))


def write_205(root, deep=False):
    images = root / (places.FOLDERS205[1] if deep else "images256")
    number = 0
    rng = np.random.default_rng(1)
    for part, count in (("train", 3), ("val", 1)):
        lines = []
        for label in rng.permutation(np.repeat(np.arange(205), count)).tolist():
            name = f"{NAMES205[label]}/gsun_{number:06d}.jpg"
            write_image(images / name, number, (6, 6))
            lines.append(f"{name} {label}\n")
            number += 1
        path = root / "trainvalsplit_places205" / f"{part}_places205.csv"
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(lines))


def write_365(root, folders=("data_256_standard", "val_256")):
    (root / places.CATEGORIES).write_text(
        "".join(f"/{name} {label}\n" for label, name in enumerate(NAMES365))
    )
    lines, number = [], 0
    for label in np.random.default_rng(2).permutation(np.repeat(np.arange(365), 2)).tolist():
        name = f"{NAMES365[label]}/{number:08d}.jpg"
        write_image(root / folders[0] / name, number, (6, 6))
        lines.append(f"/{name} {label}\n")
        number += 1
    (root / places.TRAIN).write_text("".join(lines))
    lines = []
    for label in range(364, -1, -1):
        name = f"Places365_val_{number:08d}.jpg"
        write_image(root / folders[1] / name, number, (6, 6))
        lines.append(f"{name} {label}\n")
        number += 1
    (root / places.TEST).write_text("".join(lines))


@pytest.fixture(scope="module")
def places205(tmp_path_factory):
    root = tmp_path_factory.mktemp("places205")
    write_205(root)
    return root


@pytest.fixture(scope="module")
def places365(tmp_path_factory):
    root = tmp_path_factory.mktemp("places365")
    write_365(root)
    return root


def read_lines(path):
    return [line.rsplit(" ", 1) for line in path.read_text().splitlines()]


def test_places205_is_what_its_lists_say(places205):
    source = open_source("places205", places205)
    rows = []
    for part in ("train", "val"):
        path = places205 / "trainvalsplit_places205" / f"{part}_places205.csv"
        rows += [(f"images256/{name}", int(label), part) for name, label in read_lines(path)]
    assert list(source.ids) == [name for name, _, _ in rows]
    assert source.targets["places205"].tolist() == [label for _, label, _ in rows]
    official = ["val" if split == "test" else "train" for split in source.splits]
    assert official == [part for _, _, part in rows]
    (task,) = source.tasks
    assert list(task.classes) == NAMES205
    assert np.bincount(source.targets["places205"][source.splits == "val"]).tolist() == [2] * 205


def test_the_archives_own_path_is_found(tmp_path):
    write_205(tmp_path, deep=True)
    source = open_source("places205", tmp_path)
    assert source.ids[0].startswith("data/vision/torralba/deeplearning/images256/")
    assert not source.missing


def test_places365_is_what_torchvision_reads(places365, monkeypatch):
    def known(name):
        return name, hashlib.md5((places365 / name).read_bytes()).hexdigest()

    monkeypatch.setattr(Places365, "_CATEGORIES_META", known(places.CATEGORIES))
    monkeypatch.setattr(
        Places365,
        "_FILE_LIST_META",
        {"train-standard": known(places.TRAIN), "val": known(places.TEST)},
    )
    expected = []
    for split, official in (("train-standard", "train"), ("val", "test")):
        judge = Places365(str(places365), split, small=True)
        expected += [(path, label, official) for path, label in judge.imgs]
    source = open_source("places365", places365)
    assert [str(places365 / it) for it in source.ids] == [path for path, _, _ in expected]
    assert source.targets["places365"].tolist() == [label for _, label, _ in expected]
    found = ["test" if split == "test" else "train" for split in source.splits]
    assert found == [official for _, _, official in expected]
    assert [f"/{name}" for name in source.tasks[0].classes] == judge.classes
    assert not source.missing


def test_large_images_are_read_where_there_are_no_small_ones(tmp_path):
    write_365(tmp_path, places.FOLDERS365[1])
    source = open_source("places365", tmp_path)
    assert source.ids[0].startswith("data_large_standard/")
    assert source.ids[-1].startswith("val_large/")
    assert not source.missing


def test_places_tells_the_edition_by_what_is_there(places205, places365, tmp_path):
    assert open_source("places", places205).name == "places205"
    assert open_source("places", places365).name == "places365"
    with pytest.raises(SourceError, match="has no trainvalsplit_places205"):
        open_source("places", tmp_path)


@pytest.fixture
def own205(tmp_path):
    write_205(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a/abbey/x.jpg", "line 8, is 'a/abbey/x.jpg', not a path and a label"),
        ("a/abbey/x.jpg one", "not a path and a label"),
        ("a/abbey/x.jpg -1", "not a path and a label"),
        ("a/abbey/x.jpg 205", "line 8, has the label 205; there are 205, from 0"),
        ("z/elsewhere/x.jpg 3", "give the label 3 to"),
    ],
)
def test_a_wrong_line_is_named(own205, line, message):
    path = own205 / "trainvalsplit_places205" / "train_places205.csv"
    lines = path.read_text().splitlines()
    lines[7] = line
    path.write_text("\n".join(lines))
    with pytest.raises(SourceError, match=message) as caught:
        open_source("places205", own205)
    assert "train_places205.csv" in caught.value.message


def test_a_category_without_an_image_is_named(own205):
    for part in ("train", "val"):
        path = own205 / "trainvalsplit_places205" / f"{part}_places205.csv"
        kept = [line for line in path.read_text().splitlines() if not line.endswith(" 17")]
        path.write_text("\n".join(kept))
    with pytest.raises(SourceError, match="no image with the label 17"):
        open_source("places205", own205)


def test_an_image_listed_twice_is_refused(own205):
    path = own205 / "trainvalsplit_places205" / "val_places205.csv"
    path.write_text(path.read_text() + path.read_text().splitlines()[0])
    with pytest.raises(SourceError, match=r"names the image .* 2 times"):
        open_source("places205", own205)


def test_lists_of_places365_that_contradict_one_another_are_refused(tmp_path):
    write_365(tmp_path)
    path = tmp_path / places.TRAIN
    first, *rest = path.read_text().splitlines()
    name, label = first.rsplit(" ", 1)
    path.write_text("\n".join([f"{name} {(int(label) + 1) % 365}", *rest]))
    with pytest.raises(SourceError, match=r"gives .* the label \d+, which is"):
        open_source("places365", tmp_path)
    categories = (tmp_path / places.CATEGORIES).read_text().splitlines()
    (tmp_path / places.CATEGORIES).write_text("\n".join(categories[:-1]))
    with pytest.raises(SourceError, match="names no category 364"):
        open_source("places365", tmp_path)
