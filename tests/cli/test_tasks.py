"""The main job on data sets as people downloaded them: extract, then probe."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from layerscope.cache import open_cache
from tests.toy_source import CARD

SIDE = 16


def paint(path, colour, rng, size=(SIDE + 4, SIDE)):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = rng.normal(colour, 25, (size[1], size[0], 3)).clip(0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(path)


def write_inat(root, rng):
    colours = {0: (200, 50, 50), 1: (50, 200, 50), 2: (50, 50, 200)}
    categories = [{"id": i, "name": f"species {i}", "supercategory": "Aves"} for i in colours]
    number = 0
    for name, count in (("train2018.json", 20), ("val2018.json", 6)):
        images, annotations = [], []
        for category in list(colours) * count:
            path = f"train_val2018/Aves/{category}/{number:032x}.jpg"
            paint(root / path, colours[category], rng)
            images.append({"id": number, "file_name": path})
            annotations.append({"id": number, "image_id": number, "category_id": category})
            number += 1
        contents = {"images": images, "annotations": annotations, "categories": categories}
        (root / name).write_text(json.dumps(contents))


def write_places(root, rng, monkeypatch):
    from layerscope.data.tasks import places

    few = places.replace(places.PLACES205, class_count=3)
    monkeypatch.setattr(places, "PLACES205", few)
    monkeypatch.setattr(places, "VAL_PER_CLASS", 5)
    colours = {"a/abbey": (210, 120, 40), "b/beach": (40, 120, 210), "c/cave": (20, 20, 20)}
    (root / "trainvalsplit_places205").mkdir(parents=True)
    for part, count in (("train", 20), ("val", 6)):
        lines = []
        for label, (name, colour) in enumerate(colours.items()):
            for k in range(count):
                path = f"{name}/{part}_{k}.jpg"
                paint(root / "images256" / path, colour, rng)
                lines.append(f"{path} {label}\n")
        (root / f"trainvalsplit_places205/{part}_places205.csv").write_text("".join(lines))


def write_clevr(root, rng):
    for part, count in (("train", 60), ("val", 20)):
        scenes = []
        for k in range(count):
            objects = int(rng.integers(3, 6))
            near = float(rng.uniform(7.6, 8.9))
            name = f"CLEVR_{part}_{k:06}.png"
            paint(root / "images" / part / name, (60 * (objects - 3), 100 * (near - 7.6), 90), rng)
            depths = [near, *(near + 1 for _ in range(objects - 1))]
            scenes.append(
                {"image_filename": name, "objects": [{"pixel_coords": [1, 2, d]} for d in depths]}
            )
        (root / "scenes").mkdir(exist_ok=True)
        path = root / f"scenes/CLEVR_{part}_scenes.json"
        path.write_text(json.dumps({"scenes": scenes}))


@pytest.fixture
def door(tmp_path, monkeypatch, command_line):
    monkeypatch.chdir(tmp_path)
    Path("net.toml").write_text(CARD.format(seed=1))
    return command_line


@pytest.mark.slow
def test_three_data_sets_from_their_folders_to_their_verdicts(door, tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    write_inat(tmp_path / "inat", rng)
    write_places(tmp_path / "places", rng, monkeypatch)
    write_clevr(tmp_path / "clevr", rng)
    data = [f"--data={name}={name}" for name in ("inat", "places", "clevr")]
    code, _, err = door("extract", "net.toml", *data, "--device", "cpu", "--json")
    assert code == 0, err
    names = sorted(path.name for path in Path("features").glob("*.h5"))
    assert names == ["net@clevr.h5", "net@inat.h5", "net@places205.h5"]
    code, out, err = door("probe", "--tasks", "inat,places,clevr", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert {verdict["task"] for verdict in found["verdicts"]} == {
        "inat", "places205", "clevr-count", "clevr-dist",
    }  # fmt: skip
    metrics = {(row["task"], row["metric"]) for row in found["scores"]}
    assert {("inat", "top-1"), ("inat", "mean-per-class")} <= metrics
    best = {verdict["task"]: verdict["value"]["estimate"] for verdict in found["verdicts"]}
    assert best["inat"] > 0.9  # colours are what a random network sees best
    assert best["places205"] > 0.9
    with open_cache(Path("features/net@clevr.h5")) as cache:
        # Wider than high, and still whole: resized to the network's square.
        seen = cache.computation["preprocessing"]
        assert (seen["resize"], seen["crop"]) == ([32, 32], None)
        assert (seen["interpolation"], seen["antialias"]) == ("bilinear", True)
        assert "Pillow" in cache.computation["decoder"]


def test_an_unknown_task_and_one_that_no_cache_holds_are_told_apart(door, tmp_path):
    rng = np.random.default_rng(0)
    write_inat(tmp_path / "inat", rng)
    door("extract", "net.toml", "--data", "inat=inat", "--device", "cpu")
    code, out, err = door("probe", "--tasks", "inat,clevr")
    assert (code, out) == (2, "")
    assert "No cache holds targets of 'clevr'" in err
    assert "layerscope extract CHECKPOINT --data clevr=PATH" in err
    code, _, err = door("probe", "--tasks", "inc")
    assert code == 2
    assert "layerscope evaluate" in err
    code, _, err = door("probe", "--tasks", "innat")
    assert code == 2
    assert "There is no task called 'innat'" in err
