"""The PUG sets in small, in all their combinations, with their tables read once more."""

import io
from collections import Counter, defaultdict
from itertools import product

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
from layerscope.data.sources import select_tasks, tasks
from layerscope.errors import SourceError
from layerscope.types import SPLITS, Preprocessing

ANIMALS = ("Zebra", "Ant", "Goldfish", "Koi")
WORLDS = ("Desert", "Arena", "Opera", "Forest", "Snow", "Castle", "Beach", "Temple", "Ruins", "Bar")
ANIMAL_COLUMNS = "filename,world_name,character_name,character_scale,camera_yaw,character_texture"
MOVED = {
    "character_rotation_yaw": ("45", "90"),
    "character_rotation_roll": ("45", "-45"),
    "character_rotation_pitch": ("45", "100"),
    "character_scale": ("0.4", "1.6"),
    "camera_roll": ("45", "9"),
    "camera_pitch": ("300", "9"),
    "camera_yaw": ("45", "315"),
    "character_texture": ("Sky", "Gold"),
    "scene_light": ("Red", "Blue"),
}
ASSETS = {f"Asset{i}": f"Label{i % 4}" for i in range(20)}


def picture(seed):
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


PICTURES = [picture(seed) for seed in range(5)]


def write(root, table, header, rows, folder=""):
    root.mkdir(exist_ok=True)
    for number, row in enumerate(rows):
        path = root / folder.format(**row) / row["filename"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(PICTURES[number % 5])
    lines = [",".join(row[column] for column in header.split(",")) for row in rows]
    (root / table).write_text("\n".join([header, *lines]) + "\n")


@pytest.fixture(scope="module")
def animals(tmp_path_factory):
    combinations = product(WORLDS, ANIMALS, ("0.7", "1.0", "1.3"), ("0", "45", "225"), ("Sky", "A"))
    columns = ANIMAL_COLUMNS.split(",")
    rows = [
        dict(zip(columns, (f"{number:09d}.png", *values), strict=True))
        for number, values in enumerate(combinations)
    ]
    root = tmp_path_factory.mktemp("animals")
    write(root, "labels_pug_animal.csv", ANIMAL_COLUMNS, rows, "{character_name}")
    return root


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory):
    rows = []
    for asset, label in ASSETS.items():
        rest = dict.fromkeys(MOVED, "Default") | {"world_name": "Bar"}
        one = {"character_name": asset, "character_label": label}
        scenes = [("Worlds", rest | {"world_name": world}) for world in WORLDS]
        scenes += [(it, rest | {it: value}) for it, values in MOVED.items() for value in values]
        for number, (part, scene) in enumerate(scenes):
            rows.append(one | scene | {"filename": f"{part}/{label}/{asset}_{number}.png"})
    header = "filename,world_name,character_name,character_label," + ",".join(MOVED)
    root = tmp_path_factory.mktemp("imagenet")
    write(root, "labels_pug_imagenet.csv", header, rows)
    return root


@pytest.fixture(scope="module")
def spar(tmp_path_factory):
    variants = [
        ("left", "right", "Default", "Default"),
        ("bottom", "top", "Default", "Default"),
        ("left", "right", "Blue", "Red"),
        ("left", "right", "Grass", "Stone"),
    ]
    header = (
        "filename,world_name,character_name,character2_name,character1_pos,character2_pos,"
        "character_texture,character2_texture"
    )
    names = (*ANIMALS, "blank")
    rows = [
        dict(zip(header.split(","), (f"images/{i}.png", world, *pair, *variant), strict=True))
        for i, (world, pair, variant) in enumerate(
            product(WORLDS[:3], product(names, names), variants)
        )
    ]
    root = tmp_path_factory.mktemp("spar")
    write(root, "labels.csv", header, rows)
    return root


TABLES = {
    "pug-animals": "labels_pug_animal.csv",
    "pug-imagenet": "labels_pug_imagenet.csv",
    "pug-spar": "labels.csv",
}


@pytest.fixture(params=list(TABLES))
def any_set(request, animals, imagenet, spar):
    return request.param, {"pug-animals": animals, "pug-imagenet": imagenet, "pug-spar": spar}[
        request.param
    ]


def truth(root, name):
    header, *lines = (root / TABLES[name]).read_text().splitlines()
    return [dict(zip(header.split(","), line.split(","), strict=True)) for line in lines]


def named(source, task):
    """The class name of every row; None where nothing is asked."""
    (record,) = (it for it in source.tasks if it.name == task)
    used = source.task_splits.get(task, np.zeros(len(source.ids))) >= 0
    return [
        record.classes[label] if asked else None
        for label, asked in zip(source.targets[task], used, strict=True)
    ]


def test_all_factors_of_the_animals_are_the_tables(animals):
    source = open_source("pug-animals", animals)
    rows = truth(animals, "pug-animals")
    assert list(source.ids) == [f"{it['character_name']}/{it['filename']}" for it in rows]
    columns = ("character_name", "world_name", "character_scale", "character_texture", "camera_yaw")
    words = ("animal", "background", "size", "texture", "camera-yaw")
    assert [it.name for it in source.tasks] == [f"pug-animals-{word}" for word in words]
    for word, column in zip(words, columns, strict=True):
        assert named(source, f"pug-animals-{word}") == [it[column] for it in rows]
    classes = {it.name: it.classes for it in source.tasks}
    assert classes["pug-animals-animal"] == tuple(sorted(ANIMALS))
    assert classes["pug-animals-camera-yaw"] == ("0", "45", "225")
    assert source.task_splits == {}
    assert source.missing == {}


def test_a_name_with_its_folder_is_taken_as_it_is(animals, tmp_path):
    rows = truth(animals, "pug-animals")
    whole = [it | {"filename": f"{it['character_name']}/{it['filename']}"} for it in rows]
    write(tmp_path, "labels_pug_animal.csv", ANIMAL_COLUMNS, whole)
    assert open_source("pug-animals", tmp_path).ids == open_source("pug-animals", animals).ids


def test_a_factor_of_imagenet_is_asked_of_the_images_in_which_it_is_moved(imagenet):
    source = open_source("pug-imagenet", imagenet)
    rows = truth(imagenet, "pug-imagenet")
    assert list(source.ids) == [it["filename"] for it in rows]
    assert named(source, "pug-imagenet-object") == [it["character_label"] for it in rows]
    words = (
        "object-yaw object-roll object-pitch size camera-roll camera-pitch camera-yaw texture light"
    )
    for word, (column, values) in zip(words.split(), MOVED.items(), strict=True):
        task = f"pug-imagenet-{word}"
        expected = [it[column] if it["filename"].startswith(column) else None for it in rows]
        assert named(source, task) == expected
        assert Counter(expected)[values[0]] == len(ASSETS)
    classes = {it.name: it.classes for it in source.tasks}
    assert classes["pug-imagenet-camera-pitch"] == ("9", "300")
    assert classes["pug-imagenet-object-roll"] == ("-45", "45")
    expected = [it["world_name"] if it["filename"].startswith("Worlds") else None for it in rows]
    assert named(source, "pug-imagenet-background") == expected
    assert set(Counter(expected)[world] for world in WORLDS) == {len(ASSETS)}


def test_an_animal_of_spar_is_asked_for_where_it_is(spar):
    source = open_source("pug-spar", spar)
    rows = truth(spar, "pug-spar")
    assert list(source.ids) == [it["filename"] for it in rows]
    for suffix, animal, texture in (
        ("", "character_name", "character_texture"),
        ("2", "character2_name", "character2_texture"),
    ):
        there = [it[animal] != "blank" for it in rows]
        for word, column in ((f"animal{suffix}", animal), (f"texture{suffix}", texture)):
            expected = [
                it[column] if is_there else None for it, is_there in zip(rows, there, strict=True)
            ]
            assert named(source, f"pug-spar-{word}") == expected
    assert named(source, "pug-spar-background") == [it["world_name"] for it in rows]
    assert named(source, "pug-spar-arrangement") == [
        None if it["character_name"] == it["character2_name"] == "blank" else it["character1_pos"]
        for it in rows
    ]
    classes = {it.name: it.classes for it in source.tasks}
    assert classes["pug-spar-animal"] == tuple(sorted(ANIMALS))
    assert classes["pug-spar-arrangement"] == ("bottom", "left")


def group_of(name, row):
    if name == "pug-animals":
        return row["character_name"], row["world_name"]
    if name == "pug-imagenet":
        return row["character_name"]
    return frozenset((row["character_name"], row["character2_name"])), row["world_name"]


def test_images_that_differ_in_little_are_split_together(any_set):
    name, root = any_set
    source = open_source(name, root)
    splits, groups = defaultdict(set), defaultdict(set)
    for row, split, group in zip(truth(root, name), source.splits, source.groups, strict=True):
        splits[group_of(name, row)].add(split)
        groups[group_of(name, row)].add(group)
    assert all(len(of_it) == 1 for of_it in (*splits.values(), *groups.values()))
    assert len({group for of_it in groups.values() for group in of_it}) == len(groups)
    sizes = Counter(next(iter(of_it)) for of_it in splits.values())
    assert sizes["test"] == round(0.2 * len(groups))
    assert sizes["val"] == round(0.25 * (len(groups) - sizes["test"]))
    again = open_source(name, root)
    assert (again.manifest, again.annotations) == (source.manifest, source.annotations)


def test_every_class_of_the_main_factor_trains_and_tests(any_set):
    name, root = any_set
    source = open_source(name, root)
    task = source.tasks[0]
    split = source.task_splits.get(task.name, np.array([SPLITS.index(it) for it in source.splits]))
    for place in range(3):
        assert set(source.targets[task.name][split == place]) == set(range(len(task.classes)))


def test_own_splits_are_those_of_the_source_or_none(imagenet, spar):
    for name, root in (("pug-imagenet", imagenet), ("pug-spar", spar)):
        source = open_source(name, root)
        places = np.array([SPLITS.index(it) for it in source.splits])
        for part in source.task_splits.values():
            assert part.dtype == np.int8
            assert (part >= 0).any() and (part < 0).any()
            assert np.array_equal(part[part >= 0], places[part >= 0])


def test_the_tasks_say_what_is_known_before():
    known = [task for _, task in tasks.items()]
    assert len(select_tasks("pug", known)) == 5 + 11 + 6
    assert len(select_tasks("pug-imagenet", known)) == 11
    assert tasks["pug-animals-animal"].class_count == 70
    assert tasks["pug-animals-animal"].title == "PUG: Animals, animal"
    assert "images of one model together" in tasks["pug-imagenet-object"].split


def test_a_network_sees_whole_images(any_set):
    name, root = any_set
    source = open_source(name, root)
    own = frame_preprocessing(Preprocessing(12, 8, (0.5,) * 3, (0.25,) * 3), source.framing)
    assert own.crop is None
    ((_, images),) = loaders["threads"](ReadRequest(source, own, 4, rows=[0, 11]))
    pixels = [read_image(root / source.ids[row]) for row in (0, 11)]
    assert torch.equal(images, torch.stack([image_transform(own)(it) for it in pixels]))


def copied(root, name, tmp_path, change):
    """A folder with an altered table alone: the images are looked at last."""
    (tmp_path / TABLES[name]).write_text(change((root / TABLES[name]).read_text()))
    return tmp_path


WRONG = [
    (lambda text: text.replace("camera_yaw", "yaw", 1), "has no column 'camera_yaw'"),
    (lambda text: text.replace("filename", "file", 1), "has no column 'filename'"),
    (lambda text: text.replace("Desert,Zebra", ",Zebra", 1), "line 2, has no world_name"),
    (lambda text: text.replace(",Sky\n", "\n", 1), "line 2, has no character_texture"),
    (lambda text: text.replace(",Sky\n", ",Sky,1\n", 1), "line 2, has more values than there are"),
    (lambda text: text.partition("\n")[0] + "\n", "lists no image"),
    (lambda text: "", "has no column 'filename'"),
    (lambda text: text + text.splitlines()[1] + "\n", "names the image .*0.png' 2 times"),
    (lambda text: "\n".join(text.splitlines()[:5]), "The (val|test) split of .* is empty"),
]


@pytest.mark.parametrize(("change", "message"), WRONG)
def test_a_table_that_is_wrong_is_named(animals, tmp_path, change, message):
    root = copied(animals, "pug-animals", tmp_path, change)
    with pytest.raises(SourceError, match=message):
        open_source("pug-animals", root, allow_missing=True)


def test_a_factor_that_never_rests_or_never_moves_is_refused(imagenet, tmp_path):
    def restless(text):
        header, *lines = text.splitlines()
        ends = ("Red", "Blue")
        lines = [f"{line.rpartition(',')[0]},{ends[i % 2]}" for i, line in enumerate(lines)]
        return "\n".join([header, *lines])

    root = copied(imagenet, "pug-imagenet", tmp_path, restless)
    with pytest.raises(
        SourceError, match=r"has no scene_light that most images share: '(Red|Blue)'"
    ):
        open_source("pug-imagenet", root, allow_missing=True)
    copied(imagenet, "pug-imagenet", tmp_path, lambda text: text.replace(",Gold,", ",Default,"))
    open_source("pug-imagenet", root, allow_missing=True)
    copied(
        imagenet,
        "pug-imagenet",
        tmp_path,
        lambda text: text.replace(",Gold,", ",Default,").replace(",Sky,", ",Default,"),
    )
    with pytest.raises(SourceError, match="The train split of pug-imagenet-texture is empty"):
        open_source("pug-imagenet", root, allow_missing=True)


def test_missing_pieces_are_named(any_set, tmp_path):
    name, root = any_set
    with pytest.raises(SourceError, match="none' is not there"):
        open_source(name, tmp_path / "none")
    with pytest.raises(SourceError, match=rf"has no {TABLES[name]}"):
        open_source(name, tmp_path)
    copied(root, name, tmp_path, str)
    with pytest.raises(SourceError, match=r"cannot be read: the file is not there, and \d+ more"):
        open_source(name, tmp_path)
