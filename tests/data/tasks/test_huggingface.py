"""Saved data sets, compared with what ``datasets`` reads from them and with what went in."""

import io
import json
import socket
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from layerscope.data import Reading, image_transform, open_source, thin
from layerscope.data.loaders import loaders
from layerscope.errors import SourceError, UnknownNameError
from layerscope.types import Preprocessing

datasets = pytest.importorskip("datasets", reason="needs the hf extra")

NAMES = ["ant", "bee", "cat"]
TAGS = ["red", "old"]
COUNTS = {"train": 30, "validation": 8, "test": 9}
PLAIN = Preprocessing(None, None, (0.0,) * 3, (1.0,) * 3)


@pytest.fixture(autouse=True)
def silent():
    datasets.disable_progress_bars()


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    connect = socket.socket.connect

    def refuse(*asked):
        raise AssertionError(f"the network was asked for {asked}")

    def within(this, address):  # worker processes talk to each other
        return connect(this, address) if this.family == socket.AF_UNIX else refuse(address)

    monkeypatch.setattr(socket.socket, "connect", within)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def file_of(seed, kind="JPEG"):
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 9, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def features(**more):
    return datasets.Features(
        {
            "image": datasets.Image(),
            "label": datasets.ClassLabel(names=NAMES),
            "tags": datasets.Sequence(datasets.ClassLabel(names=TAGS)),
            "Age (years)": datasets.Value("float32"),
            "id": datasets.Value("int64"),
            "text": datasets.Value("string"),
        }
        | more
    )


def contents(count, seed=0, **more):
    generator = np.random.default_rng(seed)
    return {
        "image": [
            {"bytes": file_of(100 * seed + i, ("JPEG", "PNG")[i % 2]), "path": f"{i}.jpg"}
            for i in range(count)
        ],
        "label": [i % 3 for i in range(count)],
        "tags": [np.flatnonzero(generator.random(2) < 0.5).tolist() for _ in range(count)],
        "Age (years)": generator.uniform(1, 90, count).astype(np.float32).tolist(),
        "id": list(range(count)),
        "text": ["…"] * count,
    } | more


def made(count, seed=0, declared=None, **more):
    return datasets.Dataset.from_dict(
        contents(count, seed, **more), features=declared or features()
    )


def save(root, counts=COUNTS, shards=None):
    sets = {word: made(count, seed) for seed, (word, count) in enumerate(counts.items())}
    datasets.DatasetDict(sets).save_to_disk(root, num_shards=shards)
    return sets


@pytest.fixture
def root(tmp_path):
    save(tmp_path / "set")
    return tmp_path / "set"


def opened(root, **options):
    return open_source("hf", root, **options)


def read_again(root):
    """Return every row as the library gives it, with its split, in its order."""
    found = datasets.load_from_disk(str(root))
    rows = []
    for word in COUNTS:
        undecoded = found[word].cast_column("image", datasets.Image(decode=False))
        rows += [row | {"split": word} for row in undecoded]
    return rows


def test_rows_labels_splits_and_classes_are_the_sets(root):
    source, rows = opened(root), read_again(root)
    assert len(source.ids) == len(rows) == 47
    assert list(source.ids) == [f"{row['split']}/{row['id']}" for row in rows]
    assert source.splits.tolist() == [row["split"].replace("idation", "") for row in rows]
    assert source.targets["hf-label"].tolist() == [row["label"] for row in rows]
    many = [[int(place in row["tags"]) for place in range(2)] for row in rows]
    assert source.targets["hf-tags"].tolist() == many
    assert source.targets["hf-tags"].dtype == np.int64
    assert source.targets["hf-Age-years"].tolist() == [[row["Age (years)"]] for row in rows]
    assert source.targets["hf-Age-years"].dtype == np.float64
    known = {
        task.name: (task.kind, task.metric, task.direction, task.encoding, task.classes, task.title)
        for task in source.tasks
    }
    assert known == {
        "hf-label": ("classes", "top-1", "maximise", None, tuple(NAMES), "label"),
        "hf-tags": ("multilabel", "mse", "minimise", None, tuple(TAGS), "tags"),
        "hf-Age-years": ("latents", "mse", "minimise", "raw", (), "Age (years)"),
    }
    assert source.notes == (
        "columns that declare no label are left out: 'id' (int64), 'text' (string)",
    )


@pytest.mark.parametrize("shards", [None, 4])
def test_images_are_the_bytes_that_went_in(tmp_path, shards):
    sizes = None if shards is None else dict.fromkeys(COUNTS, shards)
    save(tmp_path, shards=sizes)
    source = opened(tmp_path)
    went_in = [it["bytes"] for s, n in enumerate(COUNTS.values()) for it in contents(n, s)["image"]]
    assert [source.images.read(row) for row in range(47)] == went_in
    few = source.images.select(np.array([40, 3, 3]))
    assert [few.read(row) for row in range(3)] == [went_in[40], went_in[3], went_in[3]]
    assert few.select(np.array([1])).read(0) == went_in[3]
    assert few.place(0) == f"{tmp_path}, test/2"


def test_images_are_read_from_several_threads_at_once(root):
    source = opened(root)
    alone = [source.images.read(row) for row in range(47)]
    rows = np.random.default_rng(0).integers(0, 47, 4000).tolist()
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(source.images.read, rows))
    assert found == [alone[row] for row in rows]


@pytest.mark.parametrize("kind", ["threads", "torchvision"])
def test_loaders_give_the_sets_pixels(root, kind):
    source = thin(opened(root), 12)
    found = datasets.load_from_disk(str(root))
    rows = [name.split("/") for name in source.ids]
    expected = [
        image_transform(PLAIN)(np.asarray(found[word][int(row)]["image"].convert("RGB")))
        for word, row in rows
    ]
    batches = loaders[kind](Reading(source, PLAIN, 5, workers=2))
    images = [image for _, batch in batches for image in batch]
    assert len(images) == 12
    for image, other in zip(images, expected, strict=True):
        assert image.equal(other)


def test_without_test_it_is_validation_that_tests(tmp_path):
    save(tmp_path, {"validation": 9, "train": 40})
    source = opened(tmp_path)
    assert source.splits.tolist()[40:] == ["test"] * 9
    assert Counter(source.splits.tolist()[:40]) == {"train": 36, "val": 4}
    assert source.ids[39:41] == ("train/39", "validation/0")
    assert source.tasks[0].split.startswith("its val split tests; 10 % of train")


@pytest.mark.parametrize("alone", [True, False])
def test_a_set_without_splits_is_divided(tmp_path, alone):
    if alone:
        made(50).save_to_disk(tmp_path)
    else:
        save(tmp_path, {"train": 50})
    source = opened(tmp_path)
    assert source.ids[49] == ("49" if alone else "train/49")
    assert Counter(source.splits.tolist()) == {"train": 30, "val": 10, "test": 10}
    assert source.targets["hf-label"].tolist() == [i % 3 for i in range(50)]
    assert "60, 20 and 20 %" in source.notes[0]


def test_rows_that_were_shuffled_before_saving_stay_so(tmp_path):
    made(50).shuffle(seed=3).select(range(40)).save_to_disk(tmp_path)
    source = opened(tmp_path)
    found = datasets.load_from_disk(str(tmp_path)).cast_column(
        "image", datasets.Image(decode=False)
    )
    assert found["id"][:5] != list(range(5))
    assert source.targets["hf-label"].tolist() == list(found["label"])
    assert [source.images.read(row) for row in range(40)] == [it["bytes"] for it in found["image"]]


def test_a_format_that_was_saved_changes_nothing(tmp_path):
    made(50).with_format("numpy", columns=["label"]).save_to_disk(tmp_path / "a")
    made(50).save_to_disk(tmp_path / "b")
    one, other = opened(tmp_path / "a"), opened(tmp_path / "b")
    assert (one.manifest, one.annotations) == (other.manifest, other.annotations)


def test_the_manifest_follows_contents_and_not_the_place(root, tmp_path):
    first = opened(root)
    second = opened(root.rename(tmp_path / "moved"))
    assert (first.manifest, first.annotations) == (second.manifest, second.annotations)
    save(tmp_path / "other", COUNTS | {"test": 10})
    assert opened(tmp_path / "other").manifest != first.manifest


def test_a_name_tells_two_sets_apart(root):
    source = opened(root, name="zoo")
    assert source.name == "zoo"
    assert {task.source for task in source.tasks} == {"zoo"}
    assert [task.name for task in source.tasks] == ["zoo-label", "zoo-tags", "zoo-Age-years"]


def test_other_splits_are_left_out_and_noted(tmp_path):
    save(tmp_path, COUNTS | {"unsupervised": 5})
    source = opened(tmp_path)
    assert len(source.ids) == 47
    assert "these splits name no split and are left out: 'unsupervised'" in source.notes
    save(tmp_path / "odd", {"first": 5, "second": 5})
    with pytest.raises(SourceError, match="has the splits 'first', 'second', and none of them"):
        opened(tmp_path / "odd")
    save(tmp_path / "few", {"test": 5})
    with pytest.raises(SourceError, match="has no train split, only test"):
        opened(tmp_path / "few")
    save(tmp_path / "twice", {"train": 5, "valid": 5, "validation": 5})
    with pytest.raises(SourceError, match="has two val splits: 'valid' and 'validation'"):
        opened(tmp_path / "twice")


def test_of_several_images_one_is_asked_for(tmp_path):
    declared = features(mask=datasets.Image(decode=False))
    masks = [{"bytes": file_of(900 + i, "PNG"), "path": None} for i in range(50)]
    made(50, declared=declared, mask=masks).save_to_disk(tmp_path)
    with pytest.raises(SourceError, match="several columns of images: image, mask") as caught:
        opened(tmp_path)
    assert "image=image" in caught.value.hint
    assert opened(tmp_path, image="mask").images.read(7) == masks[7]["bytes"]
    assert "'image' (PIL.Image.Image)" in opened(tmp_path, image="mask").notes[-1]
    with pytest.raises(UnknownNameError, match="no column of images called 'masks'") as caught:
        opened(tmp_path, image="masks")
    assert caught.value.near[0] == "mask"


def by_path(tmp_path, monkeypatch, count=50):
    """Save paths without their files, as the library did before it took them in."""
    (tmp_path / "here").mkdir()
    for i in range(count):
        (tmp_path / f"{i}.jpg").write_bytes(file_of(i))
    paths = [
        {"path": str(tmp_path / f"{i}.jpg") if i % 2 else f"../{i}.jpg", "bytes": None}
        for i in range(count)
    ]
    from datasets import arrow_writer

    monkeypatch.setattr(arrow_writer, "embed_table_storage", lambda table, **_: table)
    monkeypatch.chdir(tmp_path / "here")
    made(count, image=paths).save_to_disk(tmp_path / "set")
    return tmp_path / "set"


def test_images_that_were_not_saved_are_read_where_they_are(tmp_path, monkeypatch):
    source = opened(by_path(tmp_path, monkeypatch))
    assert [source.images.read(row) for row in range(50)] == [file_of(i) for i in range(50)]
    (tmp_path / "7.jpg").unlink()
    with pytest.raises(SourceError, match=r"image '7' .*/7\.jpg' is not there"):
        opened(tmp_path / "set")
    with pytest.raises(SourceError, match=r"7\.jpg' cannot be read: the file is not there"):
        source.images.read(7)
    (tmp_path / "8.jpg").write_bytes(b"")
    gone = open_source("hf", tmp_path / "set", allow_missing=True).missing
    assert list(gone) == [7, 8]
    assert gone[8] == "the file is empty"


def test_a_row_without_an_image_is_named(tmp_path):
    images = contents(50)["image"]
    images[4] = None
    made(50, image=images).save_to_disk(tmp_path)
    with pytest.raises(SourceError, match=r"image '4' .* the row has no image"):
        opened(tmp_path)
    source = open_source("hf", tmp_path, allow_missing=True)
    assert source.missing == {4: "the row has no image"}
    with pytest.raises(SourceError, match=", 4' cannot be read: the row has no image"):
        source.images.read(4)


WRONG = [
    ("label", -1, "row 9 has the label -1 in 'label', which is none of 3 classes"),
    ("label", None, "row 9 has no value in 'label'"),
    ("tags", [0, None], "row 9 has no value in 'tags'"),
    ("tags", None, "row 9 has no value in 'tags'"),
    ("Age (years)", None, r"row 9 has no value in 'Age \(years\)'"),
    ("Age (years)", float("nan"), "'9' has a value that is not finite"),
    ("Age (years)", float("inf"), "'9' has a value that is not finite"),
]


@pytest.mark.parametrize(("column", "value", "message"), WRONG)
def test_a_wrong_value_is_named(tmp_path, column, value, message):
    values = contents(50)[column]
    values[9] = value
    made(50, **{column: values}).save_to_disk(tmp_path)
    with pytest.raises(SourceError, match=message):
        opened(tmp_path)


def test_a_set_that_declares_too_little_is_refused(tmp_path):
    declared = features(label=datasets.Value("int64"), tags=datasets.List(datasets.Value("int64")))
    declared["Age (years)"] = datasets.Value("string")
    made(50, declared=declared, **{"Age (years)": ["7"] * 50}).save_to_disk(tmp_path / "a")
    with pytest.raises(SourceError, match=r"declares no labels: .*'label' \(int64\)") as caught:
        opened(tmp_path / "a")
    assert "cast_column" in caught.value.hint
    declared = features(image=datasets.Value("string"))
    made(50, declared=declared, image=["a"] * 50).save_to_disk(tmp_path / "b")
    with pytest.raises(SourceError, match="has no Image column"):
        opened(tmp_path / "b")
    declared = features(label=datasets.ClassLabel(names=["one"]))
    made(50, declared=declared, label=[0] * 50).save_to_disk(tmp_path / "c")
    assert "'label' (int64)" in opened(tmp_path / "c").notes[-1]


def test_columns_that_would_share_a_name_are_refused(tmp_path):
    declared = features(**{"Age/years": datasets.Value("float64")})
    made(50, declared=declared, **{"Age/years": [1.0] * 50}).save_to_disk(tmp_path)
    with pytest.raises(SourceError, match=r"'Age .years.' and 'Age/years' of .* both be hf-Age-ye"):
        opened(tmp_path)


def test_splits_that_declare_a_column_otherwise_are_refused(root):
    info = root / "test" / "dataset_info.json"
    known = json.loads(info.read_text())
    known["features"]["label"]["names"] = ["ant", "cat", "bee"]
    info.write_text(json.dumps(known))
    with pytest.raises(SourceError, match=r"'label' of .* declared otherwise in 'train' .* 'test'"):
        opened(root)


def test_missing_and_broken_pieces_are_named(root, tmp_path):
    with pytest.raises(SourceError, match="is not there"):
        opened(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="holds no saved data set") as caught:
        opened(tmp_path / "empty")
    assert "save_to_disk" in caught.value.hint
    arrow = next((root / "test").glob("*.arrow"))
    whole = arrow.read_bytes()
    arrow.write_bytes(whole[:100])
    with pytest.raises(SourceError, match="set' cannot be loaded"):
        opened(root)
    arrow.unlink()
    with pytest.raises(SourceError, match="set' cannot be loaded"):
        opened(root)
    arrow.write_bytes(whole)
    (root / "test" / "state.json").unlink()
    with pytest.raises(SourceError, match="set' cannot be loaded"):
        opened(root)


def test_without_the_library_it_is_said_what_to_install(root, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(SourceError, match="needs the Python package datasets") as caught:
        opened(root)
    assert "layerscope[hf]" in caught.value.hint
