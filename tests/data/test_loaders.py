"""Order never depends on threads; bad images are named, and never move their neighbours."""

import threading
import time
from itertools import chain

import numpy as np
import pytest
import torch
from PIL import Image

from layerscope.data import Loader, image_transform, open_source, read_image
from layerscope.errors import SourceError
from layerscope.nouns import Preprocessing

TRANSFORM = image_transform(Preprocessing(None, None, (0.0,) * 3, (1.0,) * 3))


@pytest.fixture
def source(folder):
    return open_source("objects3d", folder)


def images_of(loader):
    rows, images = zip(*loader, strict=True)
    return np.concatenate(rows), torch.cat(images)


def decoding_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("decode")]


@pytest.mark.parametrize("workers", [1, 5])
@pytest.mark.parametrize("batch_size", [1, 5, 100])
def test_order_is_the_sources_for_any_threads_and_batch_size(source, workers, batch_size):
    def slow_at_first(image):
        time.sleep(0.02 * (image.getpixel((0, 0))[0] % 2))
        return TRANSFORM(image)

    loader = Loader(source, slow_at_first, batch_size, workers=workers)
    rows, images = images_of(loader)
    assert rows.tolist() == list(range(12))
    assert len(loader) == -(-12 // batch_size)
    for row, image in zip(rows, images, strict=True):
        torch.testing.assert_close(image, TRANSFORM(read_image(source.root / source.ids[row])))


def test_chosen_rows_come_as_asked(source):
    assert images_of(Loader(source, TRANSFORM, 2, rows=range(7, 12)))[0].tolist() == [*range(7, 12)]
    assert images_of(Loader(source, TRANSFORM, 2, rows=[9, 3, 4]))[0].tolist() == [9, 3, 4]
    assert list(Loader(source, TRANSFORM, 2, rows=range(12, 12))) == []


def test_only_a_few_batches_are_decoded_ahead(source):
    decoded = []

    def counting(image):
        decoded.append(1)
        return TRANSFORM(image)

    batches = iter(Loader(source, counting, 1, workers=4))
    next(batches)
    time.sleep(0.1)
    assert len(decoded) <= 4
    batches.close()


def spoil(source, row, contents=None):
    path = source.root / source.ids[row]
    path.write_bytes(path.read_bytes()[:-60] if contents is None else contents)
    return str(path)


@pytest.mark.parametrize("contents", [None, b"", b"hello", b"\xff\xd8\xff\xe0"])
def test_an_unreadable_image_stops_with_its_name(source, contents):
    path = spoil(source, 6, contents)
    with pytest.raises(SourceError) as caught:
        list(Loader(source, TRANSFORM, 4))
    assert path in caught.value.message
    assert "--skip-bad-images" in caught.value.hint
    assert not decoding_threads()


def test_skipped_images_are_listed_and_no_row_moves(source):
    expected = images_of(Loader(source, TRANSFORM, 4))[1]
    for row in (0, 6, 7):
        spoil(source, row)
    loader = Loader(source, TRANSFORM, 4, skip_bad=True)
    rows, images = images_of(loader)
    assert [(bad.row, bad.id) for bad in loader.bad] == [(r, source.ids[r]) for r in (0, 6, 7)]
    assert all("truncated" in bad.reason for bad in loader.bad)
    assert rows.tolist() == list(range(12))
    good = [row for row in range(12) if row not in (0, 6, 7)]
    torch.testing.assert_close(images[good], expected[good])
    assert not images[[0, 6, 7]].any()


def test_a_bad_image_is_listed_before_its_batch_is_handed_out(source):
    spoil(source, 5)
    loader = Loader(source, TRANSFORM, 4, skip_bad=True)
    seen = [len(loader.bad) for _ in loader]
    assert seen == [0, 1, 1]


def test_a_batch_without_a_single_readable_image_keeps_its_rows(source):
    for row in range(4):
        spoil(source, row)
    rows, images = next(iter(Loader(source, TRANSFORM, 4, skip_bad=True)))
    assert rows.tolist() == [0, 1, 2, 3]
    assert images.shape == (4, 3, 0, 0)


def test_images_of_unequal_size_need_a_preprocessing(source):
    Image.new("RGB", (9, 9)).save(source.root / source.ids[2])
    with pytest.raises(SourceError, match=r"002\.jpg' is 9×9 .* neighbours are 12×12") as caught:
        list(Loader(source, TRANSFORM, 4))
    assert "resizes or crops" in caught.value.hint


def test_an_image_that_cannot_be_prepared_is_named(source):
    crop = image_transform(Preprocessing(None, 16, (0.0,) * 3, (1.0,) * 3))
    with pytest.raises(SourceError, match=r"000\.jpg' cannot be prepared: it is 12×12, smaller"):
        list(Loader(source, crop, 4))


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_leaving_early_stops_every_thread(source, error):
    batches = iter(Loader(source, TRANSFORM, 1, workers=3))
    next(batches)
    assert decoding_threads()
    with pytest.raises(error):
        batches.throw(error())
    assert not decoding_threads()


def test_modes_other_than_rgb_become_rgb(tmp_path):
    for mode in ("L", "RGBA", "P", "CMYK", "1", "LA"):
        path = tmp_path / f"{mode}.{'jpg' if mode == 'CMYK' else 'png'}"
        Image.new(mode, (4, 4)).save(path)
        assert read_image(path).mode == "RGB"


def test_a_broken_png_is_a_source_error_like_any_other(tmp_path):
    path = tmp_path / "broken.png"
    Image.new("RGB", (64, 64), "red").save(path)
    data = path.read_bytes()
    for broken in (data[:-30], data[:20], data[:40] + b"\0" * 20 + data[60:]):
        path.write_bytes(broken)
        with pytest.raises(SourceError, match=r"broken\.png' cannot be read"):
            read_image(path)


def test_a_second_pass_forgets_the_first_ones_findings(source):
    spoil(source, 1)
    loader = Loader(source, TRANSFORM, 4, skip_bad=True)
    list(chain(loader, loader))
    assert len(loader.bad) == 1
