"""Whoever reads the images: the same rows in the same order, and the same answers from probes."""

import io

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from layerscope.cache import open_cache
from layerscope.data import ReadRequest, frame_preprocessing, open_source
from layerscope.data.betons import open_packed, pack
from layerscope.data.loaders import loaders
from layerscope.estimators import estimators
from layerscope.extraction.extract import extract
from layerscope.models import load, select_cuts
from tests.extraction.test_extract import CARD

IMAGES, CLASSES = 5000, 4


def picture(label, rng):
    """Stripes of a direction and colour that hint at the class, in noise."""
    y, x = np.mgrid[:40, :48]
    angle = label * np.pi / CLASSES + rng.normal(0, 0.25)
    wave = np.sin((x * np.cos(angle) + y * np.sin(angle)) * 0.7 + rng.uniform(0, 6))
    colour = 128 + 25 * np.sin(label + np.arange(3) + rng.normal(0, 0.8))
    pixels = colour + 40 * wave[..., None] + rng.normal(0, 45, (40, 48, 3))
    file = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)
    return file.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for row in range(IMAGES):
        path = root / f"class{row % CLASSES}" / f"{row:05}.jpg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(picture(row % CLASSES, rng))
    return root


@pytest.fixture(scope="module")
def source(folder):
    return open_source("folder", folder)


@pytest.fixture(scope="module")
def packed(source, tmp_path_factory):
    path = tmp_path_factory.mktemp("packed") / "folder.beton"
    pack(source, path)
    return open_packed("folder", path)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("net") / "net.toml"
    path.write_text(CARD.format(seed=1))
    return load(str(path))


def extracted(model, source, out, **more):
    cuts = select_cuts(model, "trunk", None)
    # Loaders are compared, not what two bytes round to.
    return extract(model, source, out, cuts=cuts, device="cpu", storage="float32", **more).path


def rows_of(path):
    with h5py.File(path) as file:
        return {
            name: file[name][()]
            for name in ("rows/id", "rows/split", "rows/group", "targets/folder")
        }, file["features/trunk@mean"][()].astype(np.float32)


def probed(path):
    """Return whether each val and test row is right, and the negative log-likelihood of test."""
    with open_cache(path) as cache:
        scores = estimators["logistic"](0).score(cache.view("trunk"), cache.tasks)
        known = {it.metric: it for it in scores}
    losses = known["top-1"].losses
    return 1 - np.concatenate((losses.val, losses.test)), known["nll"].test


@pytest.fixture(scope="module")
def by_threads(model, source, tmp_path_factory):
    return extracted(model, source, tmp_path_factory.mktemp("threads"), batch_size=64, workers=2)


@pytest.mark.parametrize(("batch_size", "workers"), [(7, 1), (250, 3)])
def test_batch_sizes_and_workers_change_nothing_but_rounding(
    model, source, tmp_path, by_threads, batch_size, workers
):
    path = extracted(model, source, tmp_path, batch_size=batch_size, workers=workers)
    (rows, features), (expected, reference) = rows_of(path), rows_of(by_threads)
    for name, values in rows.items():
        assert values.tolist() == expected[name].tolist()
    np.testing.assert_allclose(features, reference, rtol=1e-4, atol=1e-5)


def test_a_packed_set_gives_the_folders_features_to_the_bit(model, packed, by_threads, tmp_path):
    path = extracted(model, packed, tmp_path, batch_size=64, workers=2)
    (rows, features), (expected, reference) = rows_of(path), rows_of(by_threads)
    for name, values in rows.items():
        assert values.tolist() == expected[name].tolist()
    assert np.array_equal(features, reference)


def test_ffcv_gives_the_same_rows_pixels_within_jpegs_tolerance_and_probes(
    ffcv, model, packed, by_threads, tmp_path
):
    path = extracted(model, packed, tmp_path, batch_size=64, loader="ffcv", workers=2)
    rows, features = rows_of(path)
    expected, reference = rows_of(by_threads)
    for name, values in rows.items():
        assert values.tolist() == expected[name].tolist()
    assert not np.array_equal(features, reference)  # its decoder is another one
    gap = np.linalg.norm(features - reference) / np.linalg.norm(reference)
    assert gap < 0.02
    (ours, surprise), (theirs, other) = probed(by_threads), probed(path)
    assert 0.6 < ours.mean() < 0.99  # a task on which a difference could show
    # Rows on which two classes are about as likely fall to one side or the other.
    difference = ours - theirs
    assert abs(difference.mean()) <= 0.003 + 2 * difference.std() / len(difference) ** 0.5
    assert abs(surprise - other) <= 0.01 * surprise

    preprocessing = frame_preprocessing(model.checkpoint.preprocessing, packed.framing)
    request = ReadRequest(packed, preprocessing, 500, workers=2, normalised=False)
    pairs = zip(loaders["threads"](request), loaders["ffcv"](request), strict=True)
    difference = torch.cat([(one.int() - other.int()).abs() for (_, one), (_, other) in pairs])
    assert difference.max() <= 5
    assert difference.float().mean() < 1.5
