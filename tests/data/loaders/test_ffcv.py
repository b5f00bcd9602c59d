"""FFCV gives the default loader's rows, and none of its ways to hang, leak or mislead is left."""

import gc
import shutil
import struct
import subprocess
import sys
import threading
import time
from dataclasses import replace

import numba
import numpy as np
import pytest
import torch

from layerscope.data import ReadRequest, open_source
from layerscope.data.betons import (
    BetonImages,
    ffcv_reader,
    library,
    open_beton,
    pack,
    preparing,
)
from layerscope.data.betons.beton import Beton
from layerscope.data.decoding import Decoder
from layerscope.data.loaders import loaders
from layerscope.data.transforms import Preparation
from layerscope.errors import SettingsError, SourceError
from layerscope.types import Preprocessing

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
USUAL = Preprocessing(64, 56, MEAN, STD)
PREPARATIONS = {
    "usual": USUAL,
    "bicubic": Preprocessing(57, 51, MEAN, STD, "bicubic"),
    "enlarged": Preprocessing(230, 224, MEAN, STD),
    "whole": Preprocessing((33, 48), None, MEAN, STD),
    "squeezed": Preprocessing((70, 40), 40, MEAN, STD, "bicubic"),
    "crop alone": Preprocessing(None, 57, MEAN, STD),
}


def request_of(source, preprocessing=USUAL, batch_size=8, **more):
    return ReadRequest(source, preprocessing, batch_size, **{"workers": 2} | more)


def read(kind, *arguments, **more):
    loader = loaders[kind](request_of(*arguments, **more))
    rows, images = zip(*loader, strict=True)
    return np.concatenate(rows), torch.cat(images)


def ffcv_threads():
    return [thread for thread in threading.enumerate() if thread.name == "ffcv"]


@pytest.fixture(autouse=True)
def nothing_is_left_behind(request):
    yield
    assert not ffcv_threads()


# The same images


@pytest.mark.parametrize("name", PREPARATIONS)
@pytest.mark.parametrize("normalised", [True, False])
def test_raw_images_are_the_default_loaders_to_the_bit(ffcv, raw, name, normalised):
    preprocessing = PREPARATIONS[name]
    rows, images = read("ffcv", raw, preprocessing, normalised=normalised)
    expected_rows, expected = read("threads", raw, preprocessing, normalised=normalised)
    assert np.array_equal(rows, expected_rows)
    assert images.dtype == (torch.float32 if normalised else torch.uint8)
    assert torch.equal(images, expected)


@pytest.mark.parametrize("name", PREPARATIONS)
def test_jpeg_differs_by_the_fast_transform_alone(ffcv, packed, name):
    preprocessing = PREPARATIONS[name]
    found = read("ffcv", packed, preprocessing, normalised=False)[1].int()
    expected = read("threads", packed, preprocessing, normalised=False)[1].int()
    difference = (found - expected).abs()
    jpeg = [row for row, it in enumerate(packed.ids) if it.endswith(".jpg")]
    png = [row for row, it in enumerate(packed.ids) if it.endswith(".png")]
    assert not difference[png].any()
    assert 0 < difference[jpeg].max() <= 7
    assert difference[jpeg].float().mean() < 1.1


def test_the_geometry_is_that_of_the_preparation_for_every_size():
    for preprocessing in PREPARATIONS.values():
        preparation = Preparation(preprocessing)
        resize = preprocessing.resize
        words = (0, *resize) if isinstance(resize, tuple) else (resize or 0, 0, 0)
        for height in range(1, 90):
            for width in (*range(1, 90, 7), 33, 34, 1000, 1001):
                expected = preparation._resized(height, width)
                assert preparing._resized(height, width, words) == expected
    for whole in range(200):
        for part in range(whole + 1):
            assert preparing._middle(whole, part) == round((whole - part) / 2)


def test_channels_lie_last_in_memory(ffcv, raw):
    for _, images in loaders["ffcv"](request_of(raw)):
        assert images.is_contiguous(memory_format=torch.channels_last)


# The same rows


def shown(images):
    """The rows that pictures of digits show."""
    squares = images[:, 0, 12:28, 6:46].float().reshape(-1, 16, 5, 8)[:, :, :, 2:6].mean((1, 3))
    return (((squares - 20) / 24).round().long() * torch.tensor([10**4, 1000, 100, 10, 1])).sum(1)


WHOLE = Preprocessing((40, 48), None, (0.0,) * 3, (1.0,) * 3)


@pytest.mark.parametrize(("batch_size", "workers"), [(7, 2), (64, 1), (333, 2), (5000, 3)])
def test_five_thousand_images_come_in_order(ffcv, digits, batch_size, workers):
    rows, images = read("ffcv", digits, WHOLE, batch_size, workers=workers, normalised=False)
    assert rows.tolist() == list(range(5000))
    assert shown(images).tolist() == list(range(5000))


def test_five_thousand_images_are_the_default_loaders(ffcv, digits):
    small = Preprocessing((24, 32), None, MEAN, STD)
    rows, images = read("ffcv", digits, small, 100, normalised=False)
    expected_rows, expected = read("threads", digits, small, 100, normalised=False)
    assert np.array_equal(rows, expected_rows)
    assert (images.int() - expected.int()).abs().max() <= 8


def accuracy(images):
    """Of a ridge regression onto ten classes, fitted on the first half of the images."""
    pixels = images.flatten(1).double()
    labels = torch.arange(5000) % 10
    features = torch.cat([pixels, torch.ones(5000, 1)], dim=1)
    train, wanted = features[:2500], torch.eye(10, dtype=torch.float64)[labels[:2500]]
    inner = train.T @ train + 100 * torch.eye(features.shape[1], dtype=torch.float64)
    scores = features[2500:] @ torch.linalg.solve(inner, train.T @ wanted)
    return 100 * (scores.argmax(1) == labels[2500:]).double().mean().item()


def test_probes_on_five_thousand_images_agree_within_three_tenths_of_a_point(ffcv, gratings):
    small = Preprocessing((20, 24), None, MEAN, STD)
    found, expected = (accuracy(read(it, gratings, small, 250)[1]) for it in ("ffcv", "threads"))
    assert 90 < expected < 99
    assert abs(found - expected) <= 0.3


@pytest.mark.parametrize(
    "rows",
    [
        range(2500, 5000),
        range(4999, 5000),
        range(0),
        [17, 3, 3, 4999, 0],
        np.random.default_rng(0).permutation(5000),
        range(4000, 0, -7),
    ],
    ids=["the second half", "the last", "none", "a few", "a permutation", "backwards"],
)
def test_rows_come_as_asked(ffcv, digits, rows):
    loader = loaders["ffcv"](request_of(digits, WHOLE, 64, rows=rows, normalised=False))
    found = [(part.tolist(), shown(images).tolist()) for part, images in loader]
    assert [row for part, _ in found for row in part] == list(rows)
    assert [row for _, them in found for row in them] == list(rows)
    assert len(found) == len(loader.request)


def test_a_thinned_source_has_its_own_rows(ffcv, digits):
    chosen = np.array([4000, 2, 999])
    source = replace(digits, ids=("a", "b", "c"), images=digits.images.select(chosen), missing={})
    rows, images = read("ffcv", source, WHOLE, normalised=False)
    assert rows.tolist() == [0, 1, 2]
    assert shown(images).tolist() == chosen.tolist()


# Files of FFCV's own writer


@pytest.mark.parametrize("rows", [None, np.random.default_rng(1).permutation(121)])
def test_ffcvs_own_files_are_read_alike_across_files(ffcv, written, tmp_path, rows):
    for name in ("train.beton", "val.beton"):
        shutil.copy(written / name, tmp_path)
    source = open_source("beton", tmp_path)
    assert len(source.ids) == 121
    assert source.targets["beton"].tolist() == [row % 4 for row in range(121)]
    small = Preprocessing((24, 24), None, MEAN, STD)
    found, images = read("ffcv", source, small, 10, rows=rows, normalised=False)
    expected_rows, expected = read("threads", source, small, 10, rows=rows, normalised=False)
    assert np.array_equal(found, expected_rows)
    assert (images.int() - expected.int()).abs().max() <= 7
    kinds = {type(source.images.read(row)) for row in range(121)}
    assert kinds == {bytes, np.ndarray}


def test_a_field_of_a_class_of_ones_own_is_read(ffcv, written):
    source = open_source("beton", written / "own.beton", image="picture")
    rows, images = read("ffcv", source, USUAL, 16, normalised=False)
    expected = read("threads", source, USUAL, 16, normalised=False)[1]
    assert rows.tolist() == list(range(90))
    assert (images.int() - expected.int()).abs().max() <= 7


@pytest.mark.parametrize("cache", ["system", "pages"])
def test_ffcv_itself_reads_what_is_packed(written, pixels, cache):
    """Its own reader, decoder and page cache, over several pages."""
    with np.load(written / f"{cache}.npz") as found:
        assert found["index"][:, 0].tolist() == list(range(20))
        assert np.array_equal(found["images"], pixels)
    assert (written / "ours.beton").stat().st_size > 3 << 21


def test_ffcvs_reader_finds_the_bytes_that_were_packed(ffcv, photos, packed):
    from ffcv.reader import Reader

    reader = Reader(str(packed.images.path))
    assert reader.field_names == ["image", "index"]
    sizes = dict(zip(reader.alloc_table["ptr"], reader.alloc_table["size"], strict=True))
    data = packed.images.path.read_bytes()
    for row, name in enumerate(photos.ids):
        part, index = reader.metadata[row]
        start = int(part["data_ptr"])
        stored = data[start : start + int(sizes[part["data_ptr"]])]
        original = (photos.root / name).read_bytes()
        assert index == row
        if name.endswith(".jpg"):
            assert (part["mode"], stored) == (0, original)
        else:
            decoded = Decoder().decode(original, name).pixels
            assert (part["mode"], stored) == (1, decoded.tobytes())
            assert (part["height"], part["width"]) == decoded.shape[:2]


# What belongs to whom


def test_a_batch_that_is_kept_is_never_written_over(ffcv, raw):
    kept = [images for _, images in loaders["ffcv"](request_of(raw, batch_size=1))]
    assert torch.equal(torch.cat(kept), read("threads", raw)[1])


def test_memory_is_used_again_once_nobody_holds_it(ffcv, raw):
    loader = loaders["ffcv"](request_of(raw, batch_size=1))
    addresses = {images.data_ptr() for _, images in loader} | {
        images.data_ptr() for _, images in loader
    }
    assert len(addresses) < 8


def counts():
    found = []

    def look():
        found.append(torch.get_num_threads())

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    return torch.get_num_threads(), found[0], numba.get_num_threads()


@pytest.mark.parametrize("workers", [1, 2])
def test_torch_and_numba_keep_their_threads(ffcv, raw, workers):
    before, state = counts(), np.random.get_state()[1].tolist()  # noqa: NPY002  it is shared
    loader = loaders["ffcv"](request_of(raw, workers=workers))
    assert counts() == before
    batches = iter(loader)
    next(batches)
    assert counts() == before
    list(batches)
    assert counts() == before
    assert np.random.get_state()[1].tolist() == state  # noqa: NPY002


def test_importing_ffcv_changes_nothing(ffcv, monkeypatch):
    before = counts()
    library.library.cache_clear()
    library.library()
    assert counts() == before


def test_numbas_own_types_stay_as_they_are(ffcv, raw):
    line = numba.types.uint8[::1]
    read("ffcv", raw)
    assert line.mutable
    assert line is numba.types.uint8[::1]


def test_more_workers_than_numba_has_are_no_error(ffcv, raw):
    assert len(read("ffcv", raw, workers=preparing.MOST_THREADS + 40)[0]) == 41


# Leaving, failing, hanging


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_leaving_early_stops_the_thread(ffcv, raw, error):
    batches = iter(loaders["ffcv"](request_of(raw, batch_size=1)))
    next(batches)
    assert ffcv_threads()
    with pytest.raises(error):
        batches.throw(error())
    assert not ffcv_threads()


def test_an_iterator_that_is_dropped_stops_its_thread(ffcv, digits):
    for taken in (1, 5):
        batches = iter(loaders["ffcv"](request_of(digits, WHOLE, 10)))
        for _ in range(taken):
            next(batches)
        del batches
        gc.collect()
        assert not ffcv_threads()


def test_an_iterator_that_waits_for_long_goes_on(ffcv, raw):
    batches = iter(loaders["ffcv"](request_of(raw, batch_size=2)))
    first = next(batches)
    time.sleep(1.2)  # FFCV's thread looks twice whether somebody takes what it has
    rest = list(batches)
    assert torch.equal(torch.cat([first[1], *(it for _, it in rest)]), read("threads", raw)[1])


def test_two_iterations_at_once_give_both_all(ffcv, raw, packed):
    pairs = zip(loaders["ffcv"](request_of(raw)), loaders["ffcv"](request_of(packed)), strict=True)
    first, second = zip(*pairs, strict=True)
    assert torch.equal(torch.cat([it for _, it in first]), read("threads", raw)[1])
    assert torch.equal(torch.cat([it for _, it in second]), read("ffcv", packed)[1])


def failing(monkeypatch, at):
    """Let what FFCV's thread does fail at a row."""
    done = preparing.prepare

    def fail(samples, *rest):
        if at in samples:
            raise ZeroDivisionError("by zero")
        done(samples, *rest)

    monkeypatch.setattr(ffcv_reader, "prepare", fail)


@pytest.mark.parametrize("at", [0, 19, 40])
def test_an_exception_in_ffcvs_thread_names_its_rows(ffcv, raw, monkeypatch, at):
    failing(monkeypatch, at)
    begin, end = at // 8 * 8, min(at // 8 * 8 + 7, 40)
    message = rf"FFCV stopped at the rows {begin} to {end} of .*photos\.beton': by zero"
    with pytest.raises(SourceError, match=message) as caught:
        list(loaders["ffcv"](request_of(raw)))
    assert "--loader threads" in caught.value.hint
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_rows_before_an_exception_are_handed_out(ffcv, raw, monkeypatch):
    failing(monkeypatch, 40)
    seen = []
    with pytest.raises(SourceError):
        for rows, _ in loaders["ffcv"](request_of(raw)):
            seen += rows.tolist()
    assert seen == list(range(40))


def test_a_thread_that_vanishes_is_noticed(ffcv, raw, monkeypatch):
    failing(monkeypatch, 19)
    monkeypatch.setattr(ffcv_reader.PreparingThread, "_report_error", lambda self, error: None)
    with pytest.raises(SourceError, match=r"FFCV stopped at the rows 16 to 23 of .* it is gone"):
        list(loaders["ffcv"](request_of(raw)))


@pytest.mark.parametrize("field", ["index", "label"])
def test_another_row_than_asked_for_is_never_handed_out(ffcv, raw, written, monkeypatch, field):
    source = raw if field == "index" else open_source("beton", written / "train.beton")
    run = ffcv.iterator.run_pipeline

    def shifted(self, number, rows, *rest):
        return run(self, number, np.roll(rows, number == 1), *rest)

    monkeypatch.setattr(ffcv.iterator, "run_pipeline", shifted)
    seen = []
    with pytest.raises(SourceError, match=rf"FFCV gave another row than 8 of .* its '{field}' is"):
        for rows, _ in loaders["ffcv"](request_of(source)):
            seen += rows.tolist()
    assert seen == list(range(8))


# Images that cannot be read


@pytest.fixture
def spoilt(packed, tmp_path):
    """Return ``spoil(changes)``, a copy of the packed photographs with other bytes by row."""

    def spoil(changes):
        path = tmp_path / "spoilt.beton"
        data = bytearray(packed.images.path.read_bytes())
        stored = packed.images.files[0].stored
        (table,) = struct.unpack_from("<Q", data, 16)
        for row, change in changes.items():
            at, size = int(stored.at[row]), int(stored.size[row])
            contents = change(bytes(data[at : at + size]))
            data[at : at + len(contents)] = contents
            struct.pack_into("<Q", data, table + 24 * row + 16, len(contents))
        path.write_bytes(data)
        return replace(packed, images=BetonImages.whole(Beton(path), names=packed.ids))

    return spoil


DAMAGE = {
    "cut off": lambda data: data[: len(data) // 2],
    "no image": lambda data: bytes(len(data)),
    "text": lambda data: b"hello",
    "a header alone": lambda data: data[:20],
    "no scan": lambda data: data[: data.index(b"\xff\xda")],
    "one byte": lambda data: data[:1],
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_image_is_named_or_skipped_and_no_row_moves(ffcv, packed, spoilt, damage):
    source = spoilt({6: DAMAGE[damage], 39: DAMAGE[damage]})
    with pytest.raises(SourceError, match=r"spoilt\.beton, 006\.jpg' cannot be read") as caught:
        list(loaders["ffcv"](request_of(source)))
    assert "--skip-bad-images" in caught.value.hint
    loader = loaders["ffcv"](request_of(source, skip_bad=True))
    rows, images = zip(*loader, strict=True)
    images = torch.cat(images)
    assert np.concatenate(rows).tolist() == list(range(41))
    assert [(bad.row, bad.id) for bad in loader.bad] == [(6, "006.jpg"), (39, "039.jpg")]
    assert not images[[6, 39]].any()
    good = [row for row in range(41) if row not in (6, 39)]
    assert torch.equal(images[good], read("ffcv", packed)[1][good])


def test_a_bad_image_is_listed_before_its_batch_and_forgotten_by_the_next_pass(ffcv, spoilt):
    source = spoilt({9: DAMAGE["text"]})
    loader = loaders["ffcv"](request_of(source, skip_bad=True))
    assert [len(loader.bad) for _ in loader] == [0, 1, 1, 1, 1, 1]
    assert [len(loader.bad) for _ in loader] == [0, 1, 1, 1, 1, 1]


def test_what_only_pillow_can_decode_is_decoded_by_it(ffcv, packed, spoilt):
    """An early end, and bytes between two segments: libjpeg-turbo complains, Pillow shrugs."""

    def early(data):
        return data[: len(data) // 2] + b"\xff\xd9"

    def garbage(data):
        place = data.index(b"\xff\xda")
        return data[:place] + b"\x00" + data[place:-3] + b"\xff\xd9"

    source = spoilt({7: early, 8: garbage})
    expected = read("threads", source, rows=[7, 8], normalised=False)[1]
    found = read("ffcv", source, rows=[6, 7, 8], normalised=False)[1]
    assert torch.equal(found[1:], expected)


@pytest.mark.parametrize(("place", "value"), [(1, 7), (1, 200), (3, 9), (3, 65_535)])
def test_metadata_that_belies_the_image_changes_nothing(ffcv, packed, tmp_path, place, value):
    path = tmp_path / "x.beton"
    data = bytearray(packed.images.path.read_bytes())
    struct.pack_into("<H", data, 24 + 2 * 1041 + 24 * 8 + place, value)
    path.write_bytes(data)
    source = replace(packed, images=BetonImages.whole(Beton(path)))
    found = read("ffcv", source, rows=[8, 9], normalised=False)[1]
    assert torch.equal(found[:1], read("threads", packed, rows=[8], normalised=False)[1])
    assert torch.equal(found[1:], read("ffcv", packed, rows=[9], normalised=False)[1])


def test_a_file_that_was_replaced_meanwhile_is_refused(ffcv, packed, raw, tmp_path):
    path = tmp_path / "x.beton"
    shutil.copy(packed.images.path, path)
    source = replace(packed, images=BetonImages.whole(Beton(path)))
    shutil.copy(raw.images.path, tmp_path / "y.beton")
    (tmp_path / "y.beton").rename(path)
    with pytest.raises(SourceError, match=r"x\.beton' is not what it was when it was opened"):
        list(loaders["ffcv"](request_of(source)))


def test_images_that_were_missing_when_they_were_packed_are_listed(ffcv, photos, tmp_path):
    root = tmp_path / "images"
    shutil.copytree(photos.root, root)
    (root / "003.jpg").write_bytes(b"no image")
    path = pack(replace(photos, root=root), tmp_path / "x.beton", skip_bad=True).path
    source = open_beton(path)
    with pytest.raises(SourceError, match=r"x\.beton, 003\.jpg' cannot be read: it is no image"):
        list(loaders["ffcv"](request_of(source)))
    loader = loaders["ffcv"](request_of(source, skip_bad=True))
    images = torch.cat([images for _, images in loader])
    assert [bad.row for bad in loader.bad] == [3]
    assert not images[3].any()


def test_an_image_smaller_than_the_crop_is_named(ffcv, packed):
    crop = Preprocessing(None, 150, MEAN, STD)
    with pytest.raises(SourceError, match=r"\.beton, 000\.png' cannot be prepared: .*smaller"):
        list(loaders["ffcv"](request_of(packed, crop)))
    loader = loaders["ffcv"](request_of(packed, crop, skip_bad=True))
    images = torch.cat([images for _, images in loader])
    stored = packed.images.files[0].stored
    small = np.flatnonzero(np.minimum(stored.height, stored.width) < 150).tolist()
    assert [bad.row for bad in loader.bad] == small
    assert 0 < len(small) < 41
    assert not images[small].any()


# What it needs


def test_a_source_of_other_files_is_refused(ffcv, photos):
    with pytest.raises(SourceError, match=r"reads \.beton files, and photos lies in") as caught:
        loaders["ffcv"](request_of(photos))
    assert "layerscope pack" in caught.value.hint


@pytest.mark.parametrize("resize", [None, 64])
def test_a_preprocessing_without_one_size_is_refused(ffcv, raw, resize):
    with pytest.raises(SettingsError, match=f"resizes to {resize} and does not crop"):
        loaders["ffcv"](request_of(raw, Preprocessing(resize, None, MEAN, STD)))


def test_the_decoder_is_named(ffcv, raw):
    loader = loaders["ffcv"](request_of(raw))
    assert "FFCV 1." in loader.decoder
    assert "fast DCT" in loader.decoder
    assert loader.decoder != loaders["threads"](request_of(raw)).decoder


ABSENT = {
    "ffcv": (ModuleNotFoundError("No module", name="ffcv"), "package ffcv, which", "make ffcv"),
    "a part of it": (
        ModuleNotFoundError("No module", name="ffcv.fields"),
        "package ffcv, which",
        "make ffcv",
    ),
    "distutils": (
        ModuleNotFoundError("No module", name="distutils"),
        "package distutils, which",
        "pip install setuptools",
    ),
    "Pillow": (ModuleNotFoundError("No module", name="PIL"), "package PIL", "install pillow"),
    "tqdm": (ModuleNotFoundError("No module", name="tqdm"), "package tqdm", "install tqdm"),
    "a library": (
        ImportError("libopencv_core.so.406: cannot open shared object file"),
        "cannot be loaded: libopencv_core",
        "apt-get install",
    ),
    "another library": (OSError("libturbojpeg.so.0: no"), "cannot be loaded", "libturbojpeg0-dev"),
}


@pytest.mark.parametrize("what", ABSENT)
def test_without_ffcv_the_message_says_what_to_do(raw, monkeypatch, what):
    error, message, hint = ABSENT[what]

    def fail():
        raise error

    monkeypatch.setattr(library, "_load", fail)
    library.library.cache_clear()
    try:
        with pytest.raises(SettingsError, match=message) as caught:
            loaders["ffcv"](request_of(raw))
    finally:
        library.library.cache_clear()
    assert hint in caught.value.hint
    assert "--loader threads" in caught.value.hint
    assert len(read("threads", raw)[0]) == 41


QUIET = """
import sys
from pathlib import Path
from layerscope.data import ReadRequest
from layerscope.data.loaders import loaders
from layerscope.data.betons import open_beton
from layerscope.types import Preprocessing
source = open_beton(Path(sys.argv[1]))
usual = Preprocessing(64, 56, (0.5,) * 3, (0.5,) * 3)
loader = loaders["ffcv"](ReadRequest(source, usual, 8, workers=2))
print(sum(len(rows) for rows, _ in loader))
batches = iter(loader)
next(batches)
"""


@pytest.mark.slow  # all is compiled anew
def test_nothing_is_said_at_import_or_at_the_end(ffcv, raw):
    """Warnings are errors there, and an iteration is still going on when the process ends."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", QUIET, raw.images.path],
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "41\n", "")


def test_compiled_code_is_kept_under_what_it_calls():
    (cell,) = preparing.prepare.py_func.__closure__
    assert cell.cell_contents == preparing._stamp()
    assert preparing._stamped("other").py_func.__closure__[0].cell_contents == "other"
