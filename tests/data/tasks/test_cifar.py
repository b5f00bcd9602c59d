"""Batches in CIFAR's own pickle layout, in small, read once more by other code."""

import hashlib
import pickle
import warnings
from collections import Counter

import numpy as np
import pytest
import torch
from torchvision.datasets import CIFAR10, CIFAR100

from layerscope.data import ReadRequest, frame_preprocessing, image_transform, open_source
from layerscope.data.loaders import loaders
from layerscope.data.sources import tasks
from layerscope.errors import SourceError
from layerscope.types import Preprocessing

BATCHES = {f"data_batch_{i}": 6 for i in range(1, 6)} | {"test_batch": 7}
NAMES10 = ["airplane", "automobile", "bird", "cat", "deer"]
NAMES100 = ["apple", "aquarium_fish", "baby"]
OWN = Preprocessing(256, 224, (0.5,) * 3, (0.25,) * 3)


class OldPickler(pickle.Pickler):
    """Spells a dtype as Python 2 did: with 0 and 1 for False and True."""

    def reducer_override(self, it):
        if isinstance(it, np.dtype):
            kind, arguments, state = it.__reduce__()
            return kind, (arguments[0], 0, 1), state
        return NotImplemented


def dump(path, contents):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        OldPickler(file, protocol=2).dump(contents)
    return hashlib.md5(path.read_bytes()).hexdigest()


def batch(count, classes, key, seed):
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    return {
        "batch_label": f"batch {seed}",
        key: generator.permutation(labels).tolist(),
        "data": generator.integers(0, 256, (count, 3072), dtype=np.uint8),
        "filenames": [f"picture_{i}.png" for i in range(count)],
    }


@pytest.fixture
def ten(tmp_path, monkeypatch):
    folder = tmp_path / "cifar-10-batches-py"
    sums = {
        name: dump(folder / name, batch(count, len(NAMES10), "labels", seed))
        for seed, (name, count) in enumerate(BATCHES.items())
    }
    meta = {"num_cases_per_batch": 6, "label_names": NAMES10, "num_vis": 3072}
    md5 = dump(folder / "batches.meta", meta)
    monkeypatch.setattr(CIFAR10, "train_list", [[it, sums[it]] for it in list(BATCHES)[:5]])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", sums["test_batch"]]])
    monkeypatch.setattr(CIFAR10, "meta", CIFAR10.meta | {"md5": md5})
    return tmp_path


@pytest.fixture
def hundred(tmp_path, monkeypatch):
    folder = tmp_path / "cifar-100-python"
    sums = {}
    for seed, (name, count) in enumerate({"train": 180, "test": 9}.items()):
        contents = batch(count, len(NAMES100), "fine_labels", seed)
        contents["coarse_labels"] = [0] * count
        sums[name] = dump(folder / name, contents)
    md5 = dump(folder / "meta", {"fine_label_names": NAMES100, "coarse_label_names": ["all"]})
    for part in ("train", "test"):
        monkeypatch.setattr(CIFAR100, f"{part}_list", [[part, sums[part]]])
    monkeypatch.setattr(CIFAR100, "meta", CIFAR100.meta | {"md5": md5})
    return tmp_path


def truth(folder, names, key):
    """(n, 32, 32, 3) pixels and the labels, by pickle alone: rows of red, green and blue planes."""
    pixels, labels = [], []
    for name in names:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # NumPy 2.4.0 to 2.4.4, of Python 2's dtypes
            contents = pickle.loads((folder / name).read_bytes())
        for row in contents["data"]:
            planes = [row[1024 * i : 1024 * (i + 1)].reshape(32, 32) for i in range(3)]
            pixels.append(np.stack(planes, axis=-1))
        labels += contents[key]
    return np.stack(pixels), labels


def test_rows_labels_splits_and_classes_are_those_of_the_batches(ten):
    source = open_source("cifar10", ten)
    pixels, labels = truth(ten / "cifar-10-batches-py", BATCHES, "labels")
    assert len(source.ids) == 37
    assert source.ids[17] == "train/00017" and source.ids[33] == "test/00003"
    assert source.targets["cifar10"].tolist() == labels
    assert ["test" if it == "test" else "train" for it in source.splits] == [
        it.partition("/")[0] for it in source.ids
    ]
    assert all(np.array_equal(source.images.read(row), pixels[row]) for row in range(37))
    (task,) = source.tasks
    assert task.classes == tuple(NAMES10)


def test_fine_labels_and_fifty_of_each_class_validate(hundred):
    source = open_source("cifar100", hundred)
    pixels, labels = truth(hundred / "cifar-100-python", ("train", "test"), "fine_labels")
    assert source.targets["cifar100"].tolist() == labels
    assert np.array_equal(source.images.read(188), pixels[188])
    (task,) = source.tasks
    assert task.classes == tuple(NAMES100)
    val = Counter(source.targets["cifar100"][source.splits == "val"].tolist())
    assert val == {0: 50, 1: 50, 2: 50}
    train = Counter(source.targets["cifar100"][source.splits == "train"].tolist())
    assert train == {0: 10, 1: 10, 2: 10}
    again = open_source("cifar100", hundred)
    assert again.splits.tolist() == source.splits.tolist()
    assert (again.manifest, again.annotations) == (source.manifest, source.annotations)


def test_a_class_with_fewer_images_than_that_keeps_one_for_training(ten):
    source = open_source("cifar10", ten)
    labels = source.targets["cifar10"]
    assert Counter(labels[source.splits == "train"].tolist()) == dict.fromkeys(range(5), 1)
    assert (source.splits == "val").sum() == 30 - 5


def test_the_tasks_say_how_many_classes_there_are():
    assert (tasks["cifar10"].class_count, tasks["cifar100"].class_count) == (10, 100)
    assert "500 of each class" in tasks["cifar10"].split
    assert "; 50 of each class" in tasks["cifar100"].split


@pytest.mark.parametrize(
    "own", [OWN, Preprocessing(32, None, (0.5,) * 3, (0.25,) * 3)], ids=["imagenet", "cifar"]
)
def test_a_network_sees_the_whole_image_at_its_own_side(ten, own):
    source = open_source("cifar10", ten)
    pixels, _ = truth(ten / "cifar-10-batches-py", BATCHES, "labels")
    batches = loaders["threads"](ReadRequest(source, frame_preprocessing(own, source.framing), 8))
    images = torch.cat([images for _, images in batches])
    side = own.crop or 32
    whole = Preprocessing((side, side), None, own.mean, own.std)
    assert torch.equal(images, torch.stack([image_transform(whole)(it) for it in pixels]))
    if side == 32:
        scaled = (pixels.transpose(0, 3, 1, 2) / np.float32(255) - np.float32(0.5)) / 0.25
        np.testing.assert_allclose(images.numpy(), scaled, atol=1e-6)


def test_numpys_warning_of_python_2s_pickles_stays_away(ten, monkeypatch):
    load = CIFAR10._load_meta

    def warn(reader):
        text = "dtype(): align should be passed as Python or NumPy boolean but got `align=0`."
        warnings.warn(text, np.exceptions.VisibleDeprecationWarning, stacklevel=2)
        load(reader)

    monkeypatch.setattr(CIFAR10, "_load_meta", warn)
    assert len(open_source("cifar10", ten).ids) == 37


def test_a_bad_image_has_a_place_in_its_folder(ten):
    images = open_source("cifar10", ten).images
    assert images.place(3).startswith("CIFAR-10 in ") and "cifar-10-batches-py" in images.place(3)


@pytest.mark.parametrize("name", ["data_batch_3", "test_batch", "batches.meta"])
@pytest.mark.parametrize("change", ["missing", "changed"])
def test_a_file_that_is_not_the_official_one_is_refused(ten, name, change):
    path = ten / "cifar-10-batches-py" / name
    if change == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(SourceError, match="is not CIFAR-10: a file is missing, or its MD5") as it:
        open_source("cifar10", ten)
    assert str(path.parent) in it.value.message


def test_missing_folders_are_named(ten):
    with pytest.raises(SourceError, match=r"none' is not there"):
        open_source("cifar10", ten / "none")
    with pytest.raises(SourceError, match=r"has no cifar-100-python") as it:
        open_source("cifar100", ten)
    assert "CIFAR-100" in it.value.hint


def test_a_label_beyond_the_names_is_refused(ten, monkeypatch):
    folder = ten / "cifar-10-batches-py"
    md5 = dump(folder / "batches.meta", {"label_names": NAMES10[:4]})
    monkeypatch.setattr(CIFAR10, "meta", CIFAR10.meta | {"md5": md5})
    with pytest.raises(SourceError, match="label out of range: 4 classes are known"):
        open_source("cifar10", ten)
