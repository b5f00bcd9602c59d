"""3DIEBench in small: its folder, and the lists and latents of the authors' repository."""

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image

from layerscope.data import ReadRequest, image_transform, open_source, read_image
from layerscope.data.loaders import loaders
from layerscope.data.sources import select_tasks, tasks
from layerscope.errors import SourceError
from layerscope.types import Preprocessing

SYNSETS = ("02691156", "02747177", "02773838")
TRAIN = {f"/{SYNSETS[i % 3]}/{i:032x}/": i % 3 for i in (4, 0, 7, 2, 9, 5, 1, 8, 3, 6, 11, 10)}
VAL = {f"/{SYNSETS[i % 3]}/{i:032x}/": i % 3 for i in (21, 20, 24, 22)}
HIGH = (math.pi / 2,) * 3 + (1.0, math.pi / 4, 2 * math.pi, 1.0)
LOW = (-math.pi / 2,) * 3 + (0.0,) * 4
TASKS = {
    "3diebench-rotation": slice(0, 3),
    "3diebench-floor-hue": slice(3, 4),
    "3diebench-spot-theta": slice(4, 5),
    "3diebench-spot-phi": slice(5, 6),
    "3diebench-spot-hue": slice(6, 7),
}


def write_lists(folder, train=TRAIN, val=VAL):
    folder.mkdir(exist_ok=True)
    for part, objects in (("train", train), ("val", val)):
        np.save(folder / f"{part}_images.npy", np.array(list(objects)))
        np.save(folder / f"{part}_labels.npy", np.array(list(objects.values()), np.int64))


def write_arrays(root):
    """As the authors' repository links to them: object by object, view by view."""
    for part, objects in (("train", TRAIN), ("val", VAL)):
        rows = [
            np.load(root / name.strip("/") / f"latent_{view}.npy")
            for name in objects
            for view in range(50)
        ]
        np.save(root / f"all_latents_{part}.npy", np.stack(rows))


def latent_of(root, image):
    return np.load(root / image.replace("image_", "latent_").replace(".jpg", ".npy"))


@pytest.fixture
def root(tmp_path):
    generator = np.random.default_rng(9)
    pictures = []
    for _ in range(5):
        file = io.BytesIO()
        pixels = generator.integers(0, 256, (12, 12, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(file, "JPEG")
        pictures.append(file.getvalue())
    for name in (*TRAIN, *VAL):
        folder = tmp_path / name.strip("/")
        folder.mkdir(parents=True)
        for view in range(50):
            (folder / f"image_{view}.jpg").write_bytes(pictures[view % 5])
            np.save(folder / f"latent_{view}.npy", generator.uniform(LOW, HIGH))
    write_lists(tmp_path)
    return tmp_path


@pytest.mark.parametrize("arrays", [False, True])
def test_rows_latents_categories_and_splits_are_the_files(root, arrays):
    if arrays:
        write_arrays(root)
    source = open_source("3diebench", root)
    names = [name.strip("/") for name in (*TRAIN, *VAL)]
    assert list(source.ids) == [f"{it}/image_{view}.jpg" for it in names for view in range(50)]
    latents = np.stack([latent_of(root, it) for it in source.ids])
    for task, columns in TASKS.items():
        assert source.targets[task].dtype == np.float64
        assert np.array_equal(source.targets[task], latents[:, columns])
    (category,) = (task for task in source.tasks if task.kind == "classes")
    assert category.classes == SYNSETS
    assert [SYNSETS[label] for label in source.targets[category.name]] == [
        it.partition("/")[0] for it in source.ids
    ]
    tested = [f"/{it.rpartition('/')[0]}/" in VAL for it in source.ids]
    assert (source.splits == "test").tolist() == tested
    assert source.notes == ()


def test_arrays_and_files_give_one_record(root):
    files = open_source("3diebench", root)
    write_arrays(root)
    arrays = open_source("3diebench", root)
    assert (files.manifest, files.annotations) == (arrays.manifest, arrays.annotations)


def test_validation_is_a_tenth_of_the_training_objects_and_keeps_them_whole(root):
    source = open_source("3diebench", root)
    objects = {}
    for name, split, group in zip(source.ids, source.splits, source.groups, strict=True):
        objects.setdefault(name.rpartition("/")[0], set()).add((split, group))
    assert all(len(of_it) == 1 for of_it in objects.values())
    assert len(set(source.groups.tolist())) == len(objects) == 16
    assert (source.splits == "val").sum() == 50 * round(0.1 * 12)
    assert open_source("3diebench", root).splits.tolist() == source.splits.tolist()


def test_a_model_that_tests_under_another_synset_does_not_train(root):
    """ShapeNet files some models under two synsets: the training one is left out."""
    same = f"/{SYNSETS[0]}/{20:032x}/"
    assert same not in VAL
    folder = root / same.strip("/")
    folder.mkdir()
    for view in range(50):
        for kind in ("image_{}.jpg", "latent_{}.npy"):
            original = root / f"{SYNSETS[2]}/{20:032x}" / kind.format(view)
            (folder / kind.format(view)).write_bytes(original.read_bytes())
    write_lists(root, train={same: 0} | TRAIN)
    source = open_source("3diebench", root)
    assert len(source.ids) == 16 * 50
    assert not any(it.startswith(same.strip("/")) for it in source.ids)
    assert source.notes == ("1 training objects are left out, because their models also test.",)
    assert np.array_equal(
        source.targets["3diebench-rotation"][0], latent_of(root, source.ids[0])[:3]
    )


def test_two_synsets_of_a_training_model_stay_on_one_side(root):
    model = f"{4:032x}"
    second = f"/{SYNSETS[2]}/{model}/"
    (root / second.strip("/")).symlink_to(root / SYNSETS[1] / model)
    write_lists(root, train=TRAIN | {second: 2})
    source = open_source("3diebench", root)
    rows = [row for row, it in enumerate(source.ids) if model in it]
    assert len(rows) == 100
    assert len({(source.groups[row], source.splits[row]) for row in rows}) == 1


def test_the_tasks_are_those_of_the_rendered_set():
    for task in select_tasks("3diebench", [task for _, task in tasks.items()]):
        other = tasks[task.name.replace("3diebench", "objects3d")]
        assert task.source == "3diebench"
        for field in ("kind", "metric", "direction", "title", "encoding", "period", "unit"):
            assert getattr(task, field) == getattr(other, field)
    assert {it for it in tasks if it.startswith("3diebench-")} == {*TASKS, "3diebench-category"}
    assert tasks["3diebench-category"].class_count == 55


def test_a_network_reads_the_images(root):
    source = open_source("3diebench", root)
    own = Preprocessing(10, 8, (0.5,) * 3, (0.25,) * 3)
    ((_, images),) = loaders["threads"](ReadRequest(source, own, 4, rows=[7, 799]))
    pixels = [read_image(root / source.ids[row]) for row in (7, 799)]
    assert torch.equal(images, torch.stack([image_transform(own)(it) for it in pixels]))


def test_lists_may_lie_in_data_or_elsewhere(root, tmp_path_factory):
    here = open_source("3diebench", root)
    for home in (root / "data", tmp_path_factory.mktemp("sie")):
        write_lists(home)
        for path in root.glob("*.npy"):
            path.unlink()
        given = {} if home == root / "data" else {"lists": home}
        assert open_source("3diebench", root, **given).annotations == here.annotations


def test_without_lists_what_is_missing_is_said(root, tmp_path):
    (root / "train_labels.npy").unlink()
    with pytest.raises(SourceError, match=r"has no train_labels\.npy\. "):
        open_source("3diebench", root)
    for path in root.glob("*.npy"):
        path.unlink()
    with pytest.raises(SourceError, match=r"has train_images\.npy .* images and latents do not"):
        open_source("3diebench", root)
    with pytest.raises(SourceError, match=r"gone' has no train_images\.npy and no train_labels"):
        open_source("3diebench", root, lists=tmp_path / "gone")
    with pytest.raises(SourceError, match="none' is not there"):
        open_source("3diebench", tmp_path / "none")


def relabel(root, objects, part="train"):
    np.save(root / f"{part}_images.npy", np.array(list(objects)))
    np.save(root / f"{part}_labels.npy", np.array(list(objects.values())))


FIRST = next(iter(TRAIN))
WRONG_LISTS = [
    (lambda it: relabel(it, {"/02691156/": 0} | TRAIN), "has the object '/02691156/', not"),
    (lambda it: relabel(it, {FIRST[1:]: 1} | TRAIN), "lists '02747177/0{31}4' 2 times"),
    (
        lambda it: relabel(it, TRAIN | {FIRST: 2}),
        "the label 1, but the label 1 is '02747177' and '02747177' is 2",
    ),
    (lambda it: relabel(it, VAL | {next(iter(VAL)): 1}, "val"), "the label 1 is '02747177' and"),
    (lambda it: np.save(it / "val_labels.npy", np.zeros(3, np.int64)), r"\(3,\), not 4 labels"),
    (lambda it: np.save(it / "val_labels.npy", np.zeros(4)), "holds float64 .* not 4 labels"),
    (lambda it: np.save(it / "val_images.npy", np.zeros(4)), "holds float64 .* a list of names"),
    (lambda it: (it / "val_images.npy").write_bytes(b"no"), "val_images.npy' is no NumPy array"),
    (lambda it: np.save(it / "val_images.npy", np.array([], "U3")), "val_images.npy' lists no obj"),
    (lambda it: relabel(it, VAL), "Every training object that .* is a validation object too"),
]


@pytest.mark.parametrize(("change", "message"), WRONG_LISTS)
def test_a_list_that_is_wrong_is_named(root, change, message):
    change(root)
    with pytest.raises(SourceError, match=message):
        open_source("3diebench", root)


@pytest.mark.parametrize("value", ["above", "below", "nan"])
def test_a_latent_out_of_its_range_is_named(root, value):
    file = root / next(iter(VAL)).strip("/") / "latent_31.npy"
    good = np.load(file)
    names = ("yaw", "pitch", "roll", "floor_hue", "spot_theta", "spot_phi", "spot_hue")
    for place, name in enumerate(names):
        bad = good.copy()
        bad[place] = {"above": HIGH[place] + 1e-4, "below": LOW[place] - 1e-4, "nan": np.nan}[value]
        np.save(file, bad)
        message = rf"View 31 of '02691156/0{{30}}15' in .* has {name} .*, outside \["
        with pytest.raises(SourceError, match=message):
            open_source("3diebench", root)


WRONG_LATENTS = [
    (lambda file: file.unlink(), "There is no file .*latent_7.npy'"),
    (lambda file: np.save(file, np.zeros(9)), r"latent_7.npy' holds float64 of shape \(9,\)"),
    (lambda file: np.save(file, np.zeros(7, np.int64)), "holds int64"),
    (lambda file: file.write_bytes(b"\x93NUMPY"), "latent_7.npy' is no NumPy array"),
]


@pytest.mark.parametrize(("change", "message"), WRONG_LATENTS)
def test_a_latent_file_that_is_wrong_is_named(root, change, message):
    change(root / FIRST.strip("/") / "latent_7.npy")
    with pytest.raises(SourceError, match=message):
        open_source("3diebench", root)


def test_arrays_in_another_order_are_refused(root):
    write_arrays(root)
    path = root / "all_latents_train.npy"
    np.save(path, np.load(path).reshape(12, 50, 7).swapaxes(0, 1).reshape(-1, 7))
    with pytest.raises(SourceError, match=r"train.npy' has other latents in row .*latent_"):
        open_source("3diebench", root)
    np.save(path, np.load(path)[:-1])
    with pytest.raises(SourceError, match=r"shape \(599, 7\), not 600 rows of 7 latents"):
        open_source("3diebench", root)


def test_an_image_that_is_not_there_is_named(root):
    source = open_source("3diebench", root)
    (root / source.ids[60]).unlink()
    with pytest.raises(SourceError, match=r"image_10.jpg' .* the file is not there"):
        open_source("3diebench", root)
    assert open_source("3diebench", root, allow_missing=True).missing == {
        60: "the file is not there"
    }
