"""CLEVR's scenes by hand: the two rules at every edge, the official split, and whole images."""

import json

import numpy as np
import pytest
from PIL import Image

from layerscope.data import open_source
from layerscope.data.annotations import json_records
from layerscope.data.tasks import clevr
from layerscope.errors import SourceError

EDGES = (8.0, 8.5, 9.0, 9.5, 10.0, 100.0)


def scene(part, number, depths):
    """As clevr-dataset-gen writes it."""
    name = f"CLEVR_{part}_{number:06d}.png"
    objects = [
        {
            "color": "red",
            "material": "rubber",
            "shape": "cube",
            "size": "large",
            "rotation": 12.5,
            "3d_coords": [0.1, -1.2, 0.7],
            "pixel_coords": [240, 133, depth],
        }
        for depth in depths
    ]
    return {
        "image_index": number,
        "image_filename": name,
        "split": part,
        "directions": {"left": [-0.6, -0.7, 0.0]},
        "objects": objects,
        "relationships": {"left": [[1], []]},
    }


def write_scenes(root, scenes):
    for part, them in scenes.items():
        (root / "scenes").mkdir(parents=True, exist_ok=True)
        contents = {"info": {"split": part, "version": "1.0"}, "scenes": them}
        (root / f"scenes/CLEVR_{part}_scenes.json").write_text(json.dumps(contents))


def write(root, scenes):
    write_scenes(root, scenes)
    for part, them in scenes.items():
        (root / "images" / part).mkdir(parents=True, exist_ok=True)
        for it in them:
            Image.new("RGB", (48, 32), (it["image_index"], 9, 9)).save(
                root / "images" / part / it["image_filename"]
            )


def random_scenes(part, count):
    rng = np.random.default_rng(len(part))
    return [
        scene(part, number, np.round(rng.uniform(7, 13, rng.integers(3, 11)), 3).tolist())
        for number in range(count)
    ]


@pytest.fixture
def scenes():
    return {"train": random_scenes("train", 30), "val": random_scenes("val", 8)}


@pytest.fixture
def root(tmp_path, scenes):
    write(tmp_path, scenes)
    return tmp_path


def by_vtab(depth):
    """The rule as VTAB has it: the last threshold below the distance."""
    return max(i for i, edge in enumerate((0.0, *EDGES)) if edge < depth)


def test_rows_labels_and_splits_are_the_scenes(root, scenes):
    source = open_source("clevr", root)
    rows = [(part, it) for part in ("train", "val") for it in scenes[part]]
    assert list(source.ids) == [f"images/{part}/{it['image_filename']}" for part, it in rows]
    counts = [len(it["objects"]) - 3 for _, it in rows]
    assert source.targets["clevr-count"].tolist() == counts
    nearest = [min(o["pixel_coords"][2] for o in it["objects"]) for _, it in rows]
    assert source.targets["clevr-dist"].tolist() == [by_vtab(depth) for depth in nearest]
    assert source.splits.tolist() == ["train"] * 27 + ["val"] * 3 + ["test"] * 8


def test_classes_are_named_by_what_they_mean(root):
    count, distance = open_source("clevr", root).tasks
    assert count.classes == ("3", "4", "5", "6", "7", "8", "9", "10")
    assert distance.classes[0] == "0 < d ≤ 8"
    assert len(distance.classes) == 6
    assert distance.classes[-1] == "10 < d ≤ 100"


@pytest.mark.parametrize("edge", EDGES)
@pytest.mark.parametrize("step", [-1, 0, 1])
def test_the_distance_follows_the_definition_at_every_edge(tmp_path, edge, step):
    depth = edge + step * 1e-9
    if depth > EDGES[-1]:
        with pytest.raises(SourceError, match="depth of 100"):
            one_scene(tmp_path, [depth, 200, 300])
        return
    found = one_scene(tmp_path, [depth + 1, depth, depth + 2])
    assert found.targets["clevr-dist"][0] == by_vtab(depth)
    assert by_vtab(depth) == EDGES.index(edge) + (step > 0)


@pytest.mark.parametrize("depth", [12, 7])
def test_a_whole_number_is_a_depth_too(tmp_path, depth):
    assert one_scene(tmp_path, [depth] * 3).targets["clevr-dist"][0] == by_vtab(depth)


@pytest.mark.parametrize("count", range(3, 11))
def test_the_count_has_eight_classes(tmp_path, count):
    assert one_scene(tmp_path, [9.0] * count).targets["clevr-count"][0] == count - 3


def one_scene(root, depths):
    usual = [scene("train", number, [9.0] * 3) for number in range(1, 20)]
    write(root, {"train": [scene("train", 0, depths), *usual], "val": random_scenes("val", 2)})
    return open_source("clevr", root)


def test_no_object_is_ever_cropped_away(root):
    assert open_source("clevr", root).framing == "whole"


WRONG = [
    (lambda it: it.pop("objects"), "scene 4, has no 'objects'"),
    (lambda it: it.pop("image_filename"), "scene 4, has no 'image_filename'"),
    (lambda it: it["objects"][1].pop("pixel_coords"), "object 1, has no 'pixel_coords'"),
    (lambda it: it["objects"][1].update(pixel_coords=[1, 2]), r"the pixel_coords \[1, 2\], not"),
    (lambda it: it["objects"][1].update(pixel_coords=[1, 2, "3"]), "has '3' as its 'depth'"),
    (lambda it: it["objects"].clear(), "has 0 objects"),
    (lambda it: it.update(objects=it["objects"][:2]), "has 2 objects; CLEVR's scenes have 3 to 10"),
    (lambda it: it["objects"][0]["pixel_coords"].__setitem__(2, -1.0), "a depth of -1"),
    (lambda it: it["objects"][0]["pixel_coords"].__setitem__(2, float("nan")), "a depth of nan"),
]


@pytest.mark.parametrize(("change", "message"), WRONG)
def test_a_scene_that_is_wrong_is_named(root, scenes, change, message):
    change(scenes["train"][4])
    write_scenes(root, scenes)
    with pytest.raises(SourceError, match=message) as caught:
        open_source("clevr", root)
    assert "CLEVR_train_scenes.json" in caught.value.message


def test_a_scene_twice_is_refused(root, scenes):
    scenes["train"].append(scenes["train"][0])
    write(root, scenes)
    with pytest.raises(SourceError, match=r"names the image .* 2 times"):
        open_source("clevr", root)


def test_a_broken_or_missing_file_is_named(root):
    path = root / "scenes/CLEVR_train_scenes.json"
    text = path.read_text()
    for broken, message in (
        (text[:-30], r"not JSON|breaks off"),
        (text.replace('"scenes"', '"scene"'), "no list 'scenes' of objects"),
        ('{"scenes": [1, 2]}', "no list 'scenes' of objects"),
        ('{"scenes": {}}', "no list 'scenes' of objects"),
    ):
        path.write_text(broken)
        with pytest.raises(SourceError, match=message) as caught:
            open_source("clevr", root)
        assert str(path) in caught.value.message
    path.unlink()
    with pytest.raises(SourceError, match=r"has no scenes/CLEVR_train_scenes\.json"):
        open_source("clevr", root)


@pytest.mark.parametrize("indent", [None, 0, 2])
def test_records_come_one_by_one_however_the_file_is_written(tmp_path, indent):
    records = [{"a": 1, "scenes": []}, {"b": {"c": ["]", "}"]}}, {}]
    path = tmp_path / "some.json"
    path.write_text(json.dumps({"info": {"x": 1}, "scenes": records, "z": [1]}, indent=indent))
    assert list(json_records(path, "scenes")) == records
    path.write_text('{"scenes": []}')
    assert list(json_records(path, "scenes")) == []
    assert clevr.EDGES == EDGES
