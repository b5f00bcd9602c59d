"""iNaturalist's official files, in small, read once more by other code."""

import json
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from layerscope.data import open_source
from layerscope.errors import SourceError

SPECIES = {0: ("Aves", "Anas acuta"), 1: ("Insecta", "Apis mellifera"), 2: ("Aves", "Corvus corax")}
COUNTS = {"train2018.json": (60, 31, 2), "val2018.json": (3, 3, 3)}


def write(root, name, shuffle=7):
    images, annotations = [], []
    order = np.random.default_rng(shuffle).permutation(np.repeat([0, 1, 2], COUNTS[name]))
    for number, category in enumerate(order.tolist()):
        image = 1000 * (name == "val2018.json") + number
        group = SPECIES[category][0]
        path = f"train_val2018/{group}/{category}/{image:032x}.jpg"
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (12, 9), (image % 256, 10, 20)).save(root / path)
        images.append({"id": image, "width": 12, "height": 9, "file_name": path, "license": 3})
        annotations.append({"id": image, "image_id": image, "category_id": category})
    categories = [
        {"id": i, "name": name, "supercategory": group} for i, (group, name) in SPECIES.items()
    ]
    contents = {
        "info": {"year": 2018},
        "images": images,
        "licenses": [],
        "annotations": annotations[::-1],
        "categories": categories[::-1],
    }
    (root / name).write_text(json.dumps(contents))


@pytest.fixture
def root(tmp_path):
    for name in COUNTS:
        write(tmp_path, name)
    return tmp_path


def truth(root):
    """File name, official part and folder of every image; the folder's name is the category."""
    rows = []
    for name, part in (("train2018.json", "train"), ("val2018.json", "test")):
        for image in json.loads((root / name).read_text())["images"]:
            rows.append((image["file_name"], part, int(image["file_name"].split("/")[2])))
    return rows


def test_rows_labels_splits_and_classes_are_the_files(root):
    source = open_source("inat", root)
    rows = truth(root)
    assert list(source.ids) == [name for name, _, _ in rows]
    assert source.targets["inat"].tolist() == [category for _, _, category in rows]
    official = ["test" if split == "test" else "train" for split in source.splits]
    assert official == [part for _, part, _ in rows]
    (task,) = source.tasks
    assert task.classes == tuple(name for _, name in SPECIES.values())


def test_validation_is_a_tenth_of_every_species_and_leaves_each_one(root):
    source = open_source("inat", root)
    val = Counter(source.targets["inat"][source.splits == "val"].tolist())
    assert val == {0: 6, 1: 3}
    train = Counter(source.targets["inat"][source.splits == "train"].tolist())
    assert set(train) == {0, 1, 2}
    assert open_source("inat", root).splits.tolist() == source.splits.tolist()


def edit(root, name, change):
    contents = json.loads((root / name).read_text())
    change(contents)
    (root / name).write_text(json.dumps(contents))


WRONG = [
    (lambda it: it["annotations"][4].pop("category_id"), "annotation 4, has no 'category_id'"),
    (lambda it: it["annotations"][4].update(category_id="2"), "has '2' as its 'category_id'"),
    (lambda it: it["annotations"][4].update(category_id=99), "the category 99, which is none of"),
    (lambda it: it["annotations"].pop(), "has no annotation of the image"),
    (lambda it: it["annotations"].append({"image_id": 0, "category_id": 9}), "the category 9"),
    (lambda it: it["images"][2].pop("file_name"), "image 2, has no 'file_name'"),
    (lambda it: it["images"].append(it["images"][0]), "lists the image .* twice"),
    (lambda it: it.pop("categories"), "at its top, has no 'categories'"),
    (lambda it: it["categories"].append(it["categories"][0]), "lists a category twice"),
]


@pytest.mark.parametrize(("change", "message"), WRONG)
def test_an_annotation_that_is_wrong_is_named(root, change, message):
    edit(root, "train2018.json", change)
    with pytest.raises(SourceError, match=message) as caught:
        open_source("inat", root)
    assert "train2018.json" in caught.value.message


def test_an_image_with_two_categories_is_refused(root):
    def contradict(contents):
        first = contents["annotations"][0]
        other = (first["category_id"] + 1) % 3
        contents["annotations"].append(first | {"category_id": other})

    edit(root, "train2018.json", contradict)
    with pytest.raises(SourceError, match="two categories"):
        open_source("inat", root)


def test_missing_pieces_are_named(root, tmp_path):
    with pytest.raises(SourceError, match="is not there"):
        open_source("inat", tmp_path / "none")
    gone = root / open_source("inat", root).ids[5]
    gone.unlink()
    with pytest.raises(SourceError, match=rf"{gone.name}' .* the file is not there"):
        open_source("inat", root)
    assert open_source("inat", root, allow_missing=True).missing == {5: "the file is not there"}
    (root / "val2018.json").unlink()
    with pytest.raises(SourceError, match=r"has no val2018\.json"):
        open_source("inat", root)


def test_a_file_that_is_no_json_is_named(root):
    (root / "train2018.json").write_text('{"images": [')
    with pytest.raises(SourceError, match=r"train2018\.json' is not JSON: .* in line 1"):
        open_source("inat", root)
