"""Pixels are Pillow's, whoever decodes, and what has no 8-bit RGB to show is refused by name."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageFile

from layerscope.data import read_image
from layerscope.data.decoding import MOST_PIXELS, Decoder
from layerscope.errors import SourceError


def encoded(image, form="JPEG", **options):
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def photo(width=90, height=70, mode="RGB"):
    """Smooth areas, edges and noise, which JPEG treats differently."""
    y, x = np.mgrid[:height, :width] / 20
    waves = np.stack((np.sin(x * y), np.cos(x), np.sin(y + x)), axis=2)
    noise = np.random.default_rng(0).normal(0, 0.2, waves.shape)
    pixels = np.clip((waves + noise + (x > 2)[..., None]) * 80 + 100, 0, 255).astype(np.uint8)
    return Image.fromarray(pixels).convert(mode)


def pixels_of(data):
    return Decoder().decode(data, "it").pixels


@pytest.mark.parametrize("quality", [5, 50, 75, 95, 100])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("size", [(90, 70), (89, 71), (7, 5), (1, 1)])
def test_a_jpeg_is_pillows_to_the_byte(quality, subsampling, progressive, size):
    options = {"quality": quality, "subsampling": subsampling, "progressive": progressive}
    data = encoded(photo(*size), **options)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    assert np.array_equal(pixels_of(data), expected)
    without = Decoder(jpeg=None).decode(data, "it").pixels
    assert np.array_equal(without, expected)


@pytest.mark.parametrize("mode", ["L", "CMYK", "YCbCr"])
def test_other_colour_spaces_of_jpeg_are_pillows(mode):
    data = encoded(photo(mode=mode))
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    assert np.array_equal(pixels_of(data), expected)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "LA", "RGB"])
def test_other_modes_become_rgb(mode):
    image = photo(mode=mode)
    found = pixels_of(encoded(image, "PNG"))
    assert np.array_equal(found, np.asarray(image.convert("RGB")))


def test_a_palette_with_transparency_is_read_without_a_warning():
    image = photo(mode="P")
    found = pixels_of(encoded(image, "PNG", transparency=bytes(range(200))))
    assert np.array_equal(found, np.asarray(image.convert("RGB")))


def test_exif_orientation_is_left_alone_as_everywhere_else():
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(photo(), exif=exif)
    assert pixels_of(data).shape == (70, 90, 3)


def test_a_camera_file_with_a_preview_is_its_first_picture():
    data = encoded(photo(), "MPO", save_all=True, append_images=[photo(20, 10)])
    assert pixels_of(data).shape == (70, 90, 3)


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG", "TIFF"])
def test_an_animation_is_refused(form):
    data = encoded(photo(), form, save_all=True, append_images=[photo().rotate(90)])
    with pytest.raises(SourceError, match="'it' cannot be read: it is animated, with 2 frames"):
        pixels_of(data)
    assert pixels_of(encoded(photo(), form)).shape == (70, 90, 3)


def test_more_than_eight_bits_a_channel_are_refused():
    deep = Image.fromarray((np.arange(64, dtype=np.uint16) * 999).reshape(8, 8))
    for data in (encoded(deep, "PNG"), encoded(deep, "TIFF")):
        with pytest.raises(SourceError, match="more than 8 bits a channel"):
            pixels_of(data)
    real = Image.fromarray(np.ones((4, 4), np.float32))
    with pytest.raises(SourceError, match=r"mode F"):
        pixels_of(encoded(real, "TIFF"))


def png_claiming(width, height):
    def chunk(kind, body):
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(b"")), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def jpeg_claiming(width, height):
    data = bytearray(encoded(photo()))
    place = data.index(b"\xff\xc0") + 5
    data[place : place + 4] = struct.pack(">HH", height, width)
    return bytes(data)


def test_a_bomb_is_refused_before_it_takes_memory():
    side = int(MOST_PIXELS**0.5) + 10
    for data in (png_claiming(side, side), jpeg_claiming(65_000, 65_000)):
        with pytest.raises(SourceError, match=r"exceeds limit|decompression bomb"):
            pixels_of(data)


@pytest.mark.parametrize("cut", [3, 20, 200, -200, -2])
def test_a_truncated_jpeg_is_refused(cut):
    with pytest.raises(SourceError, match="'it' cannot be read"):
        pixels_of(encoded(photo())[:cut])


def test_a_damaged_jpeg_that_pillow_reads_is_pillows(monkeypatch):
    data = encoded(photo())
    stuffed = data[:-2] + b"\0\0\0\0" + data[-2:]
    expected = np.asarray(Image.open(io.BytesIO(stuffed)).convert("RGB"))
    assert np.array_equal(pixels_of(stuffed), expected)
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", False)


def test_an_empty_file_says_so():
    with pytest.raises(SourceError, match="the file is empty"):
        pixels_of(b"")


def test_arrays_are_taken_as_they_are():
    pixels = np.asarray(photo())
    assert np.array_equal(pixels_of(pixels), pixels)
    for wrong in (pixels[..., :2], pixels.astype(np.float32), pixels[0]):
        with pytest.raises(SourceError, match=r"it is .* of shape"):
            pixels_of(wrong)


def test_a_buffer_is_used_again_by_the_same_thread():
    decoder = Decoder()
    first = decoder.decode(encoded(photo()), "a")
    second = decoder.decode(encoded(photo(50, 30)), "b")
    assert second.flat.ctypes.data == first.flat.ctypes.data


def test_a_broken_png_is_a_source_error_like_any_other(tmp_path):
    path = tmp_path / "broken.png"
    Image.new("RGB", (64, 64), "red").save(path)
    data = path.read_bytes()
    for broken in (data[:-30], data[:20], data[:40] + b"\0" * 20 + data[60:]):
        path.write_bytes(broken)
        with pytest.raises(SourceError, match=r"broken\.png' cannot be read"):
            read_image(path)


def test_a_folder_and_a_missing_file_are_named(tmp_path):
    with pytest.raises(SourceError, match=r"cannot be read: Is a directory"):
        read_image(tmp_path)
    with pytest.raises(SourceError, match=r"none\.jpg' cannot be read: the file is not there"):
        read_image(tmp_path / "none.jpg")
