"""Features take two bytes where that loses nothing that counts, and four where it would."""

import re

import h5py
import numpy as np
import pytest

from layerscope.cache import AssignmentWriter, CacheBuild, CacheWriter, choose_storage, open_cache
from layerscope.cache.storage import StorageChoice, decoded, encoded, widened, worst_loss

DRAW = np.random.default_rng(0)
PLAIN = DRAW.standard_normal((64, 5)).astype(np.float32)


@pytest.fixture(autouse=True)
def from_the_start(monkeypatch):
    """No test's numbers depend on which others ran before it."""
    monkeypatch.setitem(globals(), "DRAW", np.random.default_rng(0))


def chosen(rows, asked="float16"):
    return choose_storage({"a@mean": np.float32(rows)}, asked)["a@mean"]


def test_usual_features_are_stored_in_float16():
    assert chosen(PLAIN) == StorageChoice("float16")
    assert chosen(np.maximum(PLAIN, 0) * 100) == StorageChoice("float16")


def test_values_near_float16s_end_make_a_cut_float32():
    assert chosen(PLAIN * 100) == StorageChoice("float16")
    far = chosen(PLAIN * 20_000)
    assert far.type == "float32"
    assert re.match(r"values up to [\d.e+]+ come near float16's end at 65,504", far.why)


def test_a_feature_with_a_large_mean_that_hardly_varies_makes_a_cut_float32():
    rows = PLAIN.copy()
    rows[:, 3] = 900 + rows[:, 3]
    found = chosen(rows)
    assert found.type == "float32"
    assert "of feature 3's variance" in found.why
    lost, column = worst_loss(rows, "float16")
    exact, rounded = rows[:, 3].astype(float), rows[:, 3].astype(np.float16).astype(float)
    assert column == 3
    assert lost == pytest.approx(np.mean((rounded - exact) ** 2) / exact.var())


def test_tiny_features_that_float16_would_flatten_make_a_cut_float32():
    assert chosen(PLAIN * 1e-7).type == "float32"


def test_a_constant_feature_has_nothing_to_lose():
    rows = PLAIN.copy()
    rows[:, 1], rows[:, 2] = 0.1, 0
    assert chosen(rows) == StorageChoice("float16")


def test_other_types_are_given_as_asked_and_an_empty_sample_decides_nothing():
    assert chosen(PLAIN * 1e6, "bfloat16") == StorageChoice("bfloat16")
    assert chosen(PLAIN, "float32") == StorageChoice("float32")
    assert chosen(np.empty((0, 5)), "float16") == StorageChoice("float16")


@pytest.mark.parametrize("storage", ["float16", "bfloat16", "float32"])
def test_what_is_written_comes_back_rounded_to_its_type(tmp_path, headers, storage):
    import torch

    header = headers(storage=storage)
    features = {
        cut.key: DRAW.standard_normal((header.rows, cut.width), np.float32) for cut in header.cuts
    }
    path = tmp_path / "net@toy.h5"
    with CacheWriter(path, header) as writer:
        writer.write(writer.missing, features, np.ones(header.rows, bool))
        writer.finish()
    kind = getattr(torch, storage)
    with open_cache(path) as cache, h5py.File(path) as file:
        for key, values in features.items():
            expected = torch.from_numpy(values).to(kind).float().numpy()
            np.testing.assert_array_equal(cache[key], expected)
            plain = file["features"][key][:]
            if storage == "bfloat16":  # as the documentation reads it
                plain = (plain.astype("u4") << 16).view("f4")
            np.testing.assert_array_equal(plain, expected)
            assert cache.stored[key] == StorageChoice(storage)
            half = cache[key].take(np.arange(3), np.float16)
            assert half.dtype == np.float16
            np.testing.assert_array_equal(half, expected[:3].astype(np.float16))


def write(path, header, features, ranks, batch=4):
    with CacheBuild(path, header) as lead:
        for share in lead.assignments(ranks, batch):
            with AssignmentWriter(path, lead.header, share) as writer:
                for start in range(0, len(share.rows), batch):
                    rows = share.rows[start : start + batch]
                    part = {key: values[rows] for key, values in features.items()}
                    writer.write(rows, part, np.ones(len(rows), bool))
        lead.finish()


def test_a_late_row_that_is_too_large_is_kept_exactly_and_no_other_value_depends_on_it(
    tmp_path, headers
):
    header = headers()
    features = {
        cut.key: DRAW.standard_normal((header.rows, cut.width), np.float32) for cut in header.cuts
    }
    features["trunk@mean"][9, 2] = 70_000.5
    features["trunk@mean"][18, 0] = -1e6
    with np.errstate(over="ignore"):
        expected = features["trunk@mean"].astype(np.float16).astype(np.float32)
    for row in (9, 18):
        expected[row] = features["trunk@mean"][row]
    for ranks in (1, 2, 3):
        path = tmp_path / str(ranks) / "net@toy.h5"
        write(path, header, features, ranks)
        with open_cache(path) as cache:
            np.testing.assert_array_equal(cache["trunk@mean"], expected)
            other = features["layer1.0@mean"].astype(np.float16).astype(np.float32)
            np.testing.assert_array_equal(cache["layer1.0@mean"], other)
            assert cache.stored["trunk@mean"].type == "float32"
            assert "too large" in cache.stored["trunk@mean"].why
            assert cache.stored["layer1.0@mean"].type == "float16"
        with h5py.File(path) as file:
            np.testing.assert_array_equal(file["features/trunk@mean"][:], expected)


def test_infinities_and_nans_are_no_overflow(tmp_path, header, features):
    features["trunk@mean"][3] = np.nan
    features["trunk@mean"][4, 1] = np.inf
    path = tmp_path / "net@toy.h5"
    write(path, header, features, 1)
    with open_cache(path, verify=False) as cache:
        assert cache.shards == ()
        np.testing.assert_array_equal(cache["trunk@mean"], features["trunk@mean"])


def test_encoding_is_idempotent():
    for stored in (
        StorageChoice("float16"),
        StorageChoice("bfloat16"),
        StorageChoice("float32"),
        widened(),
    ):
        rows = decoded(encoded(PLAIN, stored), stored.type)
        np.testing.assert_array_equal(decoded(encoded(rows, stored), stored.type), rows)
