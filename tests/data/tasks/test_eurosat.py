"""EuroSAT's official names, all 27,000 of them, over a few images; and its published split."""

import json
import os
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image

from layerscope.data import (
    ReadRequest,
    frame_preprocessing,
    image_transform,
    open_source,
    read_image,
)
from layerscope.data.loaders import loaders
from layerscope.data.splits import hashed_splits
from layerscope.data.tasks import eurosat
from layerscope.errors import SourceError
from layerscope.types import Preprocessing

CLASSES = {
    "AnnualCrop": 3000,
    "Forest": 3000,
    "HerbaceousVegetation": 3000,
    "Highway": 2500,
    "Industrial": 2500,
    "Pasture": 2000,
    "PermanentCrop": 2500,
    "Residential": 3000,
    "River": 2500,
    "SeaLake": 3000,
}
FRAMED = frame_preprocessing(Preprocessing(256, 224, (0.5,) * 3, (0.25,) * 3), "whole")


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """The official folder: every name is a link to one of three images."""
    root = tmp_path_factory.mktemp("eurosat")
    generator = np.random.default_rng(3)
    for place in range(3):
        pixels = generator.integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"{place}.jpg", quality=90 + place)
    for name, size in CLASSES.items():
        folder = root / "eurosat" / "2750" / name
        folder.mkdir(parents=True)
        for number in range(1, size + 1):
            os.link(root / f"{number % 3}.jpg", folder / f"{name}_{number}.jpg")
    return root / "eurosat"


@pytest.fixture(scope="module")
def source(archive):
    return open_source("eurosat", archive)


@pytest.fixture
def few(tmp_path):
    """A folder with two images of each class."""
    for name in CLASSES:
        (tmp_path / "2750" / name).mkdir(parents=True)
        for number in (1, 2):
            Image.new("RGB", (64, 64)).save(tmp_path / "2750" / name / f"{name}_{number}.jpg")
    return tmp_path


def test_rows_and_labels_are_the_folders(archive, source):
    files = {path.relative_to(archive / "2750").as_posix() for path in archive.rglob("*.jpg")}
    assert len(files) == 27_000
    assert set(source.ids) == files
    (task,) = source.tasks
    assert task.classes == tuple(sorted(CLASSES))
    named = [task.classes[label] for label in source.targets["eurosat"]]
    assert named == [it.partition("/")[0] for it in source.ids]
    assert source.missing == {}


def test_the_split_is_the_published_one(source):
    listed = json.loads(eurosat.SPLIT.read_text())
    for split in ("val", "test"):
        rows = {
            f"{name}/{name}_{number}.jpg"
            for name, numbers in listed[split].items()
            for number in numbers
        }
        assert rows == {source.ids[row] for row in np.flatnonzero(source.splits == split)}
    assert Counter(source.splits.tolist()) == {"train": 16_200, "val": 5_400, "test": 5_400}
    for split, share in (("train", 0.6), ("val", 0.2), ("test", 0.2)):
        of_class = Counter(source.targets["eurosat"][source.splits == split].tolist())
        for label, size in enumerate(CLASSES.values()):
            assert abs(of_class[label] - share * size) <= 1


def test_the_published_split_can_be_made_again():
    names = [f"{name}/{name}_{i + 1}.jpg" for name, size in CLASSES.items() for i in range(size)]
    labels = np.repeat(np.arange(10), list(CLASSES.values()))
    splits = hashed_splits(names, labels, seed=0)
    listed = json.loads(eurosat.SPLIT.read_text())
    assert listed["seed"] == 0
    for split in ("val", "test"):
        again: dict[str, list[int]] = {name: [] for name in CLASSES}
        for row in np.flatnonzero(splits == split):
            name, _, number = names[row][:-4].rpartition("/")[2].rpartition("_")
            again[name].append(int(number))
        assert again == listed[split]
    assert eurosat.SPLIT.read_text() == eurosat.split_text()


def test_the_split_file_is_compact():
    text = eurosat.SPLIT.read_text()
    assert len(text) < 60_000 and max(map(len, text.splitlines())) < 4_000


def test_three_folders_are_understood_and_give_one_record(archive, source):
    for root in (archive.parent, archive / "2750"):
        other = open_source("eurosat", root)
        assert other.ids == source.ids
        assert (other.manifest, other.annotations) == (source.manifest, source.annotations)
        assert other.root == archive / "2750"


def test_a_network_sees_the_whole_image(archive, source):
    assert source.framing == "whole"
    rows = [0, 16_000, 26_999]
    ((got, images),) = loaders["threads"](ReadRequest(source, FRAMED, 4, rows=rows))
    assert got.tolist() == rows
    pixels = [read_image(archive / "2750" / source.ids[row]) for row in rows]
    assert images.shape == (3, 3, 224, 224)
    assert torch.equal(images, torch.stack([image_transform(FRAMED)(it) for it in pixels]))


def test_an_image_that_the_split_does_not_name_is_refused(few):
    stranger = few / "2750" / "Pasture" / "Pasture_2001.jpg"
    Image.new("RGB", (64, 64)).save(stranger)
    with pytest.raises(
        SourceError, match=r"'Pasture/Pasture_2001.jpg' in .*2750' is none of"
    ) as it:
        open_source("eurosat", few, allow_missing=True)
    assert "published split" in it.value.hint


def test_an_image_that_is_not_there_is_named(few):
    with pytest.raises(SourceError, match=r"'AnnualCrop/AnnualCrop_3.jpg' .* and 26,979 more"):
        open_source("eurosat", few)
    source = open_source("eurosat", few, allow_missing=True)
    assert len(source.missing) == 27_000 - 20
    assert all(row not in source.missing for row in (0, 1, 3000, 3001))


def test_missing_pieces_are_named(few, tmp_path):
    with pytest.raises(SourceError, match="none' is not there"):
        open_source("eurosat", tmp_path / "none")
    (few / "empty").mkdir()
    with pytest.raises(SourceError, match="holds no class of EuroSAT"):
        open_source("eurosat", few / "empty")
    for path in (few / "2750" / "River").iterdir():
        path.unlink()
    (few / "2750" / "River").rmdir()
    with pytest.raises(SourceError, match=r"2750' has no River"):
        open_source("eurosat", few)
