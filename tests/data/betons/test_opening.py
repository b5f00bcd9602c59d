"""A packed set travels alone: everything comes back, and what does not belong is refused."""

import io
import json
import shutil
from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from layerscope.data import ReadRequest, open_source, thin_source
from layerscope.data.betons import open_beton, open_packed, pack
from layerscope.data.betons.beton import Beton
from layerscope.data.betons.sidecar import sidecar_of
from layerscope.data.loaders import loaders
from layerscope.data.manifest import annotation_manifest
from layerscope.errors import SourceError
from layerscope.types import Preprocessing, Source


@pytest.fixture
def rich(source):
    """A source that uses every field of the record."""
    latents = np.random.default_rng(0).normal(size=(12, 2))
    task = replace(
        source.tasks[0],
        name="kinds-θ",
        kind="latents",
        metric="mse",
        direction="minimise",
        encoding="raw",
        classes=(),
    )
    tasks = (*source.tasks, task)
    targets = {**source.targets, task.name: latents}
    parts = {task.name: (np.arange(12) % 4 - 1).astype(np.int8)}
    groups = np.array([f"Größe\n{row // 4}" for row in range(12)])
    return replace(
        source,
        tasks=tasks,
        targets=targets,
        task_splits=parts,
        groups=groups,
        notes=("seed 0",),
        annotations=annotation_manifest(source.splits, groups, targets, parts),
    )


@pytest.fixture
def packed(rich, tmp_path):
    return pack(rich, tmp_path / "kinds.beton").path


def require_equal(found, expected):
    for field in fields(Source):
        mine, theirs = getattr(found, field.name), getattr(expected, field.name)
        if field.name in ("root", "images"):
            continue
        if isinstance(theirs, np.ndarray):
            assert mine.dtype.kind == theirs.dtype.kind
            assert np.array_equal(mine, theirs)
        elif field.name in ("targets", "task_splits"):
            assert list(mine) == list(theirs)
            for name, values in theirs.items():
                assert mine[name].dtype == values.dtype
                assert np.array_equal(mine[name], values)
        else:
            assert mine == theirs, field.name


def test_the_whole_record_comes_back(rich, packed):
    found = open_beton(packed)
    require_equal(found, rich)
    assert found.root == packed
    parts = annotation_manifest(found.splits, found.groups, found.targets, found.task_splits)
    assert parts == found.annotations


def test_the_two_files_travel_alone(rich, packed, tmp_path):
    contents = (rich.root / "colour.jpg").read_bytes()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for path in (packed, sidecar_of(packed)):
        shutil.move(path, elsewhere / path.name)
    shutil.rmtree(rich.root)
    found = open_packed("kinds", elsewhere / packed.name)
    require_equal(found, rich)
    assert found.images.read(0) == contents
    assert found.images.place(0) == f"{elsewhere / packed.name}, colour.jpg"


def test_a_thinned_source_reads_its_own_rows(rich, packed):
    small = thin_source(open_beton(packed), 6)
    assert 0 < len(small.ids) < 12
    for row, name in enumerate(small.ids):
        assert small.images.place(row).endswith(f", {name}")
        if name in ("colour.jpg", "grey.jpg"):
            assert small.images.read(row) == (rich.root / name).read_bytes()


def test_a_rendered_set_is_packed_with_its_tasks(folder, tmp_path):
    source = open_source("objects3d", folder)
    path = pack(source, tmp_path / "x.beton").path
    require_equal(open_packed("objects3d", path), source)


@pytest.mark.parametrize("kind", ["threads", "torchvision"])
def test_every_loader_reads_a_packed_source(rich, packed, kind):
    plain = Preprocessing((16, 16), 12, (0.5,) * 3, (0.5,) * 3)
    before, after = (
        torch.cat([images for _, images in loaders[kind](ReadRequest(it, plain, 5, workers=2))])
        for it in (rich, open_beton(packed))
    )
    assert torch.equal(before, after)


def test_another_name_is_refused_with_the_right_one(packed):
    with pytest.raises(
        SourceError, match="was packed from 'kinds', not from 'objects3d'"
    ) as caught:
        open_packed("objects3d", packed)
    assert f"--data kinds={packed}" in caught.value.hint


def test_a_missing_sidecar_is_named(packed):
    sidecar_of(packed).unlink()
    with pytest.raises(SourceError, match=r"no 'kinds\.beton\.source\.npz' beside") as caught:
        open_packed("kinds", packed)
    assert "--data beton=PATH" in caught.value.hint


def test_files_of_two_sets_are_refused(rich, packed, tmp_path):
    other = pack(rich, tmp_path / "other.beton", mode="raw").path
    shutil.copy(sidecar_of(other), sidecar_of(packed))
    with pytest.raises(SourceError, match=r"kinds\.beton' and .* do not belong together"):
        open_beton(packed)


def test_the_same_images_resized_otherwise_are_another_file(rich, tmp_path):
    mine, other = (
        pack(rich, tmp_path / f"{it}.beton", side=20, mode="raw", interpolation=it).path
        for it in ("bilinear", "bicubic")
    )
    assert mine.stat().st_size == other.stat().st_size
    shutil.copy(sidecar_of(other), sidecar_of(mine))
    with pytest.raises(SourceError, match="do not belong together"):
        open_beton(mine)


def test_a_file_whose_metadata_was_changed_is_refused(packed):
    data = bytearray(packed.read_bytes())
    data[24 + 2 * 1041 + 16] += 1  # the index of the first row
    packed.write_bytes(data)
    with pytest.raises(SourceError, match="do not belong together"):
        open_beton(packed)


def test_rows_out_of_order_are_refused(packed):
    data = bytearray(packed.read_bytes())
    data[24 + 2 * 1041 + 16] += 1
    packed.write_bytes(data)
    rewritten(packed, lambda record: record | {"identity": Beton(packed).identity})
    with pytest.raises(SourceError, match="are not in the order of its source"):
        open_beton(packed)


def rewritten(path, change):
    """Write the sidecar once more, with another record."""
    with np.load(sidecar_of(path)) as arrays:
        held = dict(arrays)
    record = change(json.loads(held["record"].tobytes()))
    held["record"] = np.frombuffer(json.dumps(record).encode(), np.uint8)
    with sidecar_of(path).open("wb") as file:
        np.savez(file, **held)


def test_another_version_of_the_sidecar_is_refused(packed):
    rewritten(packed, lambda record: record | {"version": 9})
    with pytest.raises(SourceError, match=r"source\.npz' is of version 9, not 1"):
        open_beton(packed)


@pytest.mark.parametrize("damage", ["cut", "text", "empty", "field", "flipped", "pickle"])
def test_a_damaged_sidecar_is_refused(packed, damage):
    path = sidecar_of(packed)
    data = path.read_bytes()
    flipped = bytearray(data)
    flipped[len(data) // 3] ^= 0xFF
    pickled = io.BytesIO()
    np.savez(pickled, record=np.array([{}], dtype=object))
    contents = {
        "cut": data[: len(data) // 2],
        "text": b"not a zip file",
        "empty": b"",
        "flipped": bytes(flipped),
        "pickle": pickled.getvalue(),
    }
    if damage == "field":
        rewritten(packed, lambda record: {k: v for k, v in record.items() if k != "framing"})
    else:
        path.write_bytes(contents[damage])
    with pytest.raises(SourceError, match=r"kinds\.beton\.source\.npz' is damaged"):
        open_beton(packed)


def test_images_that_were_unreadable_need_consent(rich, tmp_path):
    (rich.root / "grey.jpg").write_bytes(b"no image")
    path = pack(rich, tmp_path / "x.beton", skip_bad=True).path
    with pytest.raises(SourceError, match=r"'grey\.jpg' could not be read when .* no image of a"):
        open_packed("kinds", path)
    found = open_packed("kinds", path, allow_missing=True)
    assert list(found.missing) == [found.ids.index("grey.jpg")]
