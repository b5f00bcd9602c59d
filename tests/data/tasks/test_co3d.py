"""CO3Dv2's official files, in small, read once more by other code."""

import gzip
import json
from collections import defaultdict

import numpy as np
import pytest
import torch
from PIL import Image

from layerscope.data import ReadRequest, image_transform, open_source, read_image
from layerscope.data.loaders import loaders
from layerscope.errors import SourceError
from layerscope.types import Preprocessing

COUNTS = {
    "teddybear": {"train": 5, "dev": 2, "test": 1},
    "apple": {"train": 4, "dev": 1, "test": 1},
    "car": {"train": 11, "dev": 2, "test": 0},
}
FRAMES = 4
"""Of each sequence: half are known and half are unseen."""


def zipped(path, contents):
    with gzip.open(path, "wt", encoding="utf-8") as file:
        json.dump(contents, file)


def unzipped(path):
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return json.load(file)


def edit(path, change):
    read, write = (unzipped, zipped) if path.suffix == ".jgz" else (plain, written)
    contents = read(path)
    change(contents)
    write(path, contents)


def plain(path):
    return json.loads(path.read_text())


def written(path, contents):
    path.write_text(json.dumps(contents))


def write_category(root, category, counts, generator):
    sequences, frames = [], []
    for kind, count in counts.items():
        for place in range(count):
            name = f"{100 + len(sequences)}_{11000 + place}_{len(category)}{kind == 'dev':d}"
            sequences.append(
                {
                    "sequence_name": name,
                    "category": category,
                    "video": None,
                    "point_cloud": None,
                    "viewpoint_quality_score": 1.5 - place,
                }
            )
            (root / category / name / "images").mkdir(parents=True)
            for number in range(FRAMES):
                path = f"{category}/{name}/images/frame{number + 1:06d}.jpg"
                known = "unseen" if number % 2 and kind != "train" else "known"
                black = (kind, known) == ("test", "unseen")
                pixels = generator.integers(1, 256, (9, 12, 3), dtype=np.uint8) * (not black)
                Image.fromarray(pixels.astype(np.uint8)).save(root / path)
                frames.append(
                    {
                        "sequence_name": name,
                        "frame_number": 2 * number,
                        "frame_timestamp": 0.1 * number,
                        "image": {"path": path, "size": [9, 12]},
                        "meta": {"frame_type": f"{kind}_{known}"},
                    }
                )
    zipped(root / category / "sequence_annotations.jgz", sequences)
    zipped(root / category / "frame_annotations.jgz", frames)
    (root / category / "set_lists").mkdir()
    for name, parts in lists(frames).items():
        written(root / category / "set_lists" / f"set_lists_{name}.json", parts)


def lists(frames):
    """As the challenge has them: few-view tests on its own sequences, in which all are listed."""
    of = defaultdict(list)
    for it in frames:
        line = [it["sequence_name"], it["frame_number"], it["image"]["path"]]
        of[it["meta"]["frame_type"].partition("_")[0]].append(line)
    return {
        "fewview_train": {"train": of["train"], "val": [], "test": of["train"]},
        "fewview_dev": {"train": of["train"], "val": of["dev"][:1], "test": of["dev"]},
        "fewview_test": {"train": of["train"], "val": [], "test": of["test"]},
    }


@pytest.fixture
def root(tmp_path):
    generator = np.random.default_rng(1)
    for category, counts in COUNTS.items():
        write_category(tmp_path, category, counts, generator)
    written(tmp_path / "category_to_subset_name_list.json", {it: ["fewview_dev"] for it in COUNTS})
    (tmp_path / "_in_progress").mkdir()
    return tmp_path


def truth(root):
    """Path, category, sequence and official set of every frame, by its own annotation."""
    for category in sorted(COUNTS):
        for it in unzipped(root / category / "frame_annotations.jgz"):
            kind, _, known = it["meta"]["frame_type"].partition("_")
            yield it["image"]["path"], category, it["sequence_name"], kind, known


def test_rows_categories_and_splits_are_the_frames(root):
    source = open_source("co3d", root)
    rows = {path: rest for path, *rest in truth(root) if rest[2] != "test"}
    assert set(source.ids) == set(rows) and len(source.ids) == len(rows)
    (task,) = source.tasks
    assert task.classes == ("apple", "car", "teddybear")
    for name, split, label, group in zip(
        source.ids, source.splits, source.targets["co3d"], source.groups, strict=True
    ):
        category, sequence, kind, _ = rows[name]
        assert task.classes[label] == category
        assert group == f"{category}/{sequence}"
        assert (kind == "dev") == (split == "test")
    assert source.notes == ("3 of the 51 categories are here.",)


def test_no_frame_that_the_challenge_keeps_secret_is_a_row(root):
    black = {path for path, _, _, kind, known in truth(root) if (kind, known) == ("test", "unseen")}
    assert len(black) == 4
    source = open_source("co3d", root)
    assert not black & set(source.ids)
    assert all(read_image(root / it).any() for it in source.ids)


def test_validation_is_a_tenth_of_the_training_sequences_and_keeps_them_whole(root):
    source = open_source("co3d", root)
    splits = defaultdict(set)
    for group, split in zip(source.groups, source.splits, strict=True):
        splits[group].add(split)
    assert all(len(of_it) == 1 for of_it in splits.values())
    kinds = [next(iter(of_it)) for of_it in splits.values()]
    assert kinds.count("val") == round(0.1 * 20)
    assert kinds.count("test") == 5
    assert open_source("co3d", root).splits.tolist() == source.splits.tolist()


def test_a_network_reads_the_images(root):
    source = open_source("co3d", root)
    own = Preprocessing(9, 8, (0.5,) * 3, (0.25,) * 3)
    ((_, images),) = loaders["threads"](ReadRequest(source, own, 4, rows=[0, 30]))
    pixels = [read_image(root / source.ids[row]) for row in (0, 30)]
    assert torch.equal(images, torch.stack([image_transform(own)(it) for it in pixels]))


DEV = "apple/set_lists/set_lists_fewview_dev.json"
SEQUENCES = "apple/sequence_annotations.jgz"


def test_training_frames_of_a_sequence_that_tests_are_left_out(root):
    edit(root / DEV, lambda it: it["train"].extend(it["test"][:3]))
    source = open_source("co3d", root)
    assert "3 training frames are left out, because their sequences also test." in source.notes
    edit(root / DEV, lambda it: it.update(train=it["train"][:-3]))
    without = open_source("co3d", root)
    assert (without.manifest, without.annotations) == (source.manifest, source.annotations)


def test_a_category_without_test_sequences_is_noted(root):
    edit(root / DEV, lambda it: it["test"].clear())
    assert "No sequence tests the categories apple." in open_source("co3d", root).notes


WRONG = [
    (DEV, lambda it: it.pop("test"), "at its top, has no 'test'"),
    (DEV, lambda it: it["train"].append(["a", 1]), r"frame 16 of 'train', is \['a', 1\], not"),
    (DEV, lambda it: it["train"].append(["a", "1", "b"]), "not a sequence, a number and a path"),
    (DEV, lambda it: it["test"].append(["7_7_7", 1, "b"]), "'7_7_7', which sequence_annotations"),
    (DEV, lambda it: it["train"][2].__setitem__(2, "car/x.jpg"), "has the path 'car/x.jpg', not"),
    (DEV, lambda it: it["train"].append(it["train"][0]), "names the image .* 2 times"),
    (SEQUENCES, lambda it: it[3].pop("sequence_name"), "sequence 3, has no 'sequence_name'"),
    (SEQUENCES, lambda it: it[3].pop("category"), "sequence 3, has no 'category'"),
    (SEQUENCES, lambda it: it[1].update(category="car"), "is of the category 'car'"),
]


@pytest.mark.parametrize(("name", "change", "message"), WRONG)
def test_an_annotation_that_is_wrong_is_named(root, name, change, message):
    edit(root / name, change)
    with pytest.raises(SourceError, match=message):
        open_source("co3d", root)


def test_a_file_that_is_not_what_it_should_be_is_named(root):
    path = root / SEQUENCES
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SourceError, match=r"sequence_annotations\.jgz' cannot be unzipped"):
        open_source("co3d", root)
    path.write_bytes(b"[]")
    with pytest.raises(SourceError, match=r"cannot be unzipped: Not a gzipped file"):
        open_source("co3d", root)
    path.write_bytes(gzip.compress(b"[{"))
    with pytest.raises(SourceError, match=r"sequence_annotations\.jgz' is not JSON"):
        open_source("co3d", root)
    path.write_bytes(gzip.compress(b"{}"))
    with pytest.raises(SourceError, match=r"is no list of sequences"):
        open_source("co3d", root)


def test_missing_pieces_are_named(root, tmp_path):
    source = open_source("co3d", root)
    (root / source.ids[3]).unlink()
    with pytest.raises(SourceError, match=r"frame000004.jpg' .* the file is not there"):
        open_source("co3d", root)
    assert open_source("co3d", root, allow_missing=True).missing == {3: "the file is not there"}
    (root / DEV).unlink()
    with pytest.raises(SourceError, match=r"apple' has no set_lists/set_lists_fewview_dev") as it:
        open_source("co3d", root)
    assert "full set" in it.value.hint
    (root / SEQUENCES).unlink()
    with pytest.raises(SourceError, match=r"apple' has no sequence_annotations\.jgz"):
        open_source("co3d", root)
    with pytest.raises(SourceError, match="holds no category"):
        open_source("co3d", root / "_in_progress")
    with pytest.raises(SourceError, match="none' is not there"):
        open_source("co3d", tmp_path / "none")


@pytest.mark.parametrize("part", ["train", "test"])
def test_a_set_that_only_trains_or_only_tests_is_refused(root, part):
    for category in COUNTS:
        edit(root / DEV.replace("apple", category), lambda it: it[part].clear())
    with pytest.raises(SourceError, match=rf"The {part} split of .* is empty"):
        open_source("co3d", root)
