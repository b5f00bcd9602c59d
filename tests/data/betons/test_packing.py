"""What is packed is what was in the folder, or its image made smaller, and never half of it."""

import hashlib
import io
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from layerscope.data import ReadRequest, open_source
from layerscope.data.betons import open_beton, pack, packing
from layerscope.data.decoding import Decoder
from layerscope.data.images import ArrayImages, images_of
from layerscope.data.loaders import loaders
from layerscope.data.transforms import Preparation
from layerscope.errors import SettingsError, SourceError
from layerscope.types import Preprocessing

PLAIN = Preprocessing(None, None, (0.0,) * 3, (1.0,) * 3)


def decoded(data):
    return Decoder().decode(data, "it").pixels.copy()


def pixels_of(source):
    images = images_of(source)
    return [decoded(images.read(row)) for row in range(len(source.ids))]


def passes(name):
    return name.endswith(".jpg") and name != "cmyk.jpg"


def resized(pixels, side, interpolation="bilinear", whole=False):
    to = (side, side) if whole else side
    preparation = Preparation(Preprocessing(to, None, (0.0,) * 3, (1.0,) * 3, interpolation))
    out = np.empty((*preparation.size(*pixels.shape[:2]), 3), np.uint8)
    preparation.write(Decoder().decode(pixels, "it"), out)
    return out


def test_ordinary_jpeg_passes_byte_for_byte_and_the_rest_as_pixels(source, tmp_path):
    report = pack(source, tmp_path / "x.beton")
    packed = open_beton(report.path)
    for row, name in enumerate(source.ids):
        stored, original = packed.images.read(row), (source.root / name).read_bytes()
        if passes(name):
            assert stored == original
        else:
            assert np.array_equal(stored, decoded(original))
    passed = sum(map(passes, source.ids))
    assert passed == 7
    assert (report.rows, report.passed, report.raw, report.encoded) == (12, passed, 12 - passed, 0)
    assert (report.small, report.bad, report.size) == (0, (), report.path.stat().st_size)


def test_the_default_loader_sees_what_it_saw_in_the_folder(source, tmp_path):
    packed = open_beton(pack(source, tmp_path / "x.beton").path)
    small = Preprocessing(12, 9, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), "bicubic")
    before, after = (
        torch.cat([images for _, images in loaders["threads"](ReadRequest(it, small, 5))])
        for it in (source, packed)
    )
    assert torch.equal(before, after)


def test_raw_holds_the_pixels_of_every_image(source, tmp_path):
    report = pack(source, tmp_path / "x.beton", mode="raw")
    packed = open_beton(report.path)
    assert report.raw == 12
    for row, pixels in enumerate(pixels_of(source)):
        assert np.array_equal(packed.images.read(row), pixels)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("framing", ["checkpoint", "whole"])
def test_larger_images_are_made_smaller_and_no_other(source, tmp_path, framing, interpolation):
    source = replace(source, framing=framing)
    report = pack(source, tmp_path / "x.beton", mode="raw", side=30, interpolation=interpolation)
    packed, whole = open_beton(report.path), framing == "whole"
    small = 0
    for row, pixels in enumerate(pixels_of(source)):
        if min(pixels.shape[:2]) < 30:
            small += 1
            expected = pixels
        else:
            expected = resized(pixels, 30, interpolation, whole)
            assert min(expected.shape[:2]) == 30
            assert not whole or expected.shape == (30, 30, 3)
        assert np.array_equal(packed.images.read(row), expected)
    assert small == report.small == 4
    assert any("4 images are smaller than 30 px" in note for note in packed.notes)
    assert packed.framing == framing


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_made_smaller_as_the_checkpoint_does_gives_the_folders_images(
    source, tmp_path, interpolation
):
    settings = {"side": 20, "mode": "raw", "interpolation": interpolation}
    packed = open_beton(pack(source, tmp_path / "x.beton", **settings).path)
    usual = Preprocessing(20, 15, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), interpolation)
    enough = [row for row, it in enumerate(pixels_of(source)) if min(it.shape[:2]) >= 20]
    assert len(enough) == 9
    before, after = (
        torch.cat([images for _, images in loaders["threads"](ReadRequest(it, usual, 5, enough))])
        for it in (source, packed)
    )
    assert torch.equal(before, after)


def test_made_smaller_in_jpeg_of_full_quality_is_near_what_it_is_raw(source, tmp_path):
    report = pack(source, tmp_path / "x.beton", side=30, quality=100)
    raw = open_beton(pack(source, tmp_path / "r.beton", side=30, mode="raw").path)
    packed = open_beton(report.path)
    # Three are larger; of the others, which have the side or are too small, four are no JPEG.
    assert (report.encoded, report.passed, report.raw) == (3, 5, 4)
    for row, name in enumerate(source.ids):
        stored, pixels = packed.images.read(row), raw.images.read(row)
        if isinstance(stored, bytes):
            difference = np.abs(decoded(stored).astype(int) - pixels)
            assert difference.max() <= 5, name
        else:
            assert np.array_equal(stored, pixels)


def test_quality_and_full_colour_resolution_are_as_asked(source, tmp_path):
    large = source.ids.index("large.jpg")
    sizes = []
    for quality in (60, 95):
        path = tmp_path / f"{quality}.beton"
        data = open_beton(pack(source, path, side=64, quality=quality).path).images.read(large)
        with Image.open(io.BytesIO(data)) as image:
            assert image.size == (85, 64)
            assert {tuple(layer[1:3]) for layer in image.layer} == {(1, 1)}
        sizes.append(len(data))
    assert sizes[0] < sizes[1]


def test_an_image_of_the_side_asked_for_passes_as_it_is(make_source, tmp_path):
    data = Image.new("RGB", (40, 30), (9, 80, 200))
    file = io.BytesIO()
    data.save(file, "JPEG")
    source = make_source({f"{i}.jpg": file.getvalue() for i in range(3)})
    report = pack(source, tmp_path / "x.beton", side=30)
    assert (report.passed, report.small) == (3, 0)
    assert open_beton(report.path).images.read(1) == file.getvalue()


@pytest.mark.parametrize("settings", [{}, {"side": 30}, {"mode": "raw", "side": 16}])
def test_the_same_source_gives_the_same_bytes_whoever_works(source, tmp_path, settings):
    digests = set()
    for number, workers in enumerate((1, 2, 5)):
        path = tmp_path / f"{number}.beton"
        pack(source, path, workers=workers, **settings)
        beside = path.with_name(path.name + ".source.npz")
        digests.add(hashlib.sha256(path.read_bytes() + beside.read_bytes()).hexdigest())
    assert len(digests) == 1


def test_the_manifest_is_the_sources_exactly_where_the_pixels_are(source, tmp_path):
    def manifest(**settings):
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.beton"
        return open_beton(pack(source, path, **settings).path).manifest

    assert manifest() == manifest(mode="raw") == source.manifest
    others = [
        manifest(side=30),
        manifest(side=30, mode="raw"),
        manifest(side=31),
        manifest(side=30, quality=90),
        manifest(side=30, interpolation="bicubic"),
    ]
    assert len({source.manifest, *others}) == 6
    assert manifest(side=30) == others[0]


def test_arrays_are_packed_as_pixels(source, tmp_path):
    pixels = np.random.default_rng(1).integers(0, 256, (12, 8, 9, 3), dtype=np.uint8)
    source = replace(source, images=ArrayImages(pixels, "an array"))
    packed = open_beton(pack(source, tmp_path / "x.beton").path)
    assert all(np.array_equal(packed.images.read(row), pixels[row]) for row in range(12))


def test_a_packed_source_is_packed_again_to_the_same_images(source, tmp_path):
    once = pack(source, tmp_path / "x.beton").path
    twice = pack(open_beton(once), tmp_path / "y.beton").path
    assert once.read_bytes() == twice.read_bytes()


def test_progress_counts_every_image(source, tmp_path):
    steps = []
    pack(source, tmp_path / "x.beton", progress=steps.append)
    assert steps == [1] * 12


def test_an_unreadable_image_stops_with_its_name_and_leaves_nothing(source, tmp_path):
    path = source.root / "fine.jpg"
    path.write_bytes(path.read_bytes()[:-60])
    out = tmp_path / "out"
    with pytest.raises(SourceError, match=r"fine\.jpg' cannot be read: .*truncated"):
        pack(source, out / "x.beton")
    assert not list(out.iterdir())


def test_skipped_images_keep_their_rows_and_are_known_to_be_missing(source, tmp_path):
    spoilt = source.ids.index("fine.jpg")
    gone = source.ids.index("picture.png")
    (source.root / "fine.jpg").write_bytes(b"\xff\xd8\xff\xe0 and no more")
    (source.root / "picture.png").unlink()
    report = pack(source, tmp_path / "x.beton", skip_bad=True)
    assert [(bad.row, bad.id) for bad in report.bad] == [(1, "fine.jpg"), (5, "picture.png")]
    packed = open_beton(report.path)
    assert sorted(packed.missing) == [spoilt, gone]
    assert packed.missing[gone] == "the file is not there"
    assert str(source.root) not in " ".join(packed.missing.values())
    assert any("2 images could not be read" in note for note in packed.notes)
    with pytest.raises(SourceError, match=r"x\.beton, picture\.png' cannot be read: .* not there"):
        packed.images.read(gone)
    assert packed.images.read(0) == (source.root / "colour.jpg").read_bytes()
    with pytest.raises(SourceError, match=r"fine\.jpg"):
        packed.images.select(np.array([3, spoilt])).read(1)


def test_what_the_format_cannot_hold_is_named(make_source, tmp_path):
    wide = io.BytesIO()
    Image.new("RGB", (70_000, 1)).save(wide, "PNG")
    source = make_source({name: wide.getvalue() for name in ("wide.png", "b.png", "c.png")})
    with pytest.raises(SourceError, match=r"wide\.png' cannot be read: its 70000×1 pixels"):
        pack(source, tmp_path / "x.beton")


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("x.bin", {}, r"x\.bin' does not end in \.beton"),
        ("x.beton", {"side": 0}, "The side is 0 pixels"),
        ("x.beton", {"side": 70_000}, "The side is 70000 pixels"),
        ("x.beton", {"quality": 0}, "The quality is 0"),
        ("x.beton", {"quality": 101}, "The quality is 101"),
        ("x.beton", {"mode": "smart"}, "The mode is 'smart'"),
        ("x.beton", {"workers": 0}, "The number of workers is 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(source, tmp_path, name, settings, message):
    with pytest.raises(SettingsError, match=message):
        pack(source, tmp_path / name, **settings)
    assert not list(tmp_path.glob("x.*"))


def test_a_source_without_resampling_has_no_side(source, tmp_path):
    cropped = replace(source, framing="crop")
    with pytest.raises(SettingsError, match="kinds is read without resampling, and --side 30"):
        pack(cropped, tmp_path / "x.beton", side=30)
    assert pack(cropped, tmp_path / "x.beton").rows == 12


def test_nothing_is_written_over(source, tmp_path):
    path = tmp_path / "x.beton"
    path.write_bytes(b"mine")
    with pytest.raises(SettingsError, match=r"x\.beton' is there already"):
        pack(source, path)
    assert path.read_bytes() == b"mine"


def test_without_simplejpeg_packing_says_so(source, tmp_path, monkeypatch):
    monkeypatch.setattr(packing, "_simplejpeg", None)
    with pytest.raises(SettingsError, match="needs the Python package simplejpeg"):
        pack(source, tmp_path / "x.beton")


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_packing_leaves_nothing(source, tmp_path, error):
    def interrupt(_):
        raise error

    out = tmp_path / "out"
    with pytest.raises(error):
        pack(source, out / "x.beton", progress=interrupt)
    assert not list(out.iterdir())


def test_a_failing_sidecar_leaves_no_beton(source, tmp_path, monkeypatch):
    def fail(file, sidecar):
        file.write(b"half")
        raise RuntimeError

    monkeypatch.setattr(packing, "write_sidecar", fail)
    out = tmp_path / "out"
    with pytest.raises(RuntimeError):
        pack(source, out / "x.beton")
    assert not list(out.iterdir())


KILLED = """
import sys, time
from pathlib import Path
from layerscope.data import open_source
from layerscope.data.betons import pack
def wait(_):
    print("packing", flush=True)
    time.sleep(3600)
pack(open_source("objects3d", Path(sys.argv[1])), Path(sys.argv[2]), progress=wait)
"""


def test_a_killed_packing_leaves_no_file_of_that_name(folder):
    out = folder / "x.beton"
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(folder), str(out)], stdout=subprocess.PIPE
    )
    assert process.stdout.readline() == b"packing\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert not out.exists()
    assert pack(open_source("objects3d", folder), out).rows == 12
    assert sorted(it.name for it in folder.glob("x.*")) == ["x.beton", "x.beton.source.npz"]
