"""Order never depends on workers; bad images are named, and never move their neighbours."""

import threading
import time
from itertools import chain

import numpy as np
import pytest
import torch
from PIL import Image

from layerscope.data import ReadRequest, image_transform, open_source, read_image
from layerscope.data.loaders import loaders
from layerscope.data.loaders.threads import ThreadLoader
from layerscope.errors import SourceError, UnknownNameError
from layerscope.types import Preprocessing

PLAIN = Preprocessing(None, None, (0.0,) * 3, (1.0,) * 3)
SMALL = Preprocessing(10, 8, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
INSTALLED_ALWAYS = ("threads", "torchvision")


@pytest.fixture
def source(folder):
    return open_source("objects3d", folder)


@pytest.fixture(params=INSTALLED_ALWAYS)
def kind(request):
    return loaders[request.param]


def request_of(source, preprocessing=PLAIN, batch_size=4, **more):
    return ReadRequest(source, preprocessing, batch_size, **{"workers": 2} | more)


def images_of(loader):
    rows, images = zip(*loader, strict=True)
    return np.concatenate(rows), torch.cat(images)


def decoding_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("decode")]


def by_hand(source, preprocessing, rows):
    transform = image_transform(preprocessing)
    return torch.stack([transform(read_image(source.root / source.ids[row])) for row in rows])


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("batch_size", [1, 5, 100])
@pytest.mark.parametrize("preprocessing", [PLAIN, SMALL])
def test_order_is_the_sources_for_any_workers_and_batch_size(
    kind, source, workers, batch_size, preprocessing
):
    loader = kind(request_of(source, preprocessing, batch_size, workers=workers))
    rows, images = images_of(loader)
    assert rows.tolist() == list(range(12))
    assert len(loader.request) == -(-12 // batch_size)
    assert torch.equal(images, by_hand(source, preprocessing, rows))


def test_a_slow_image_keeps_its_place(source, monkeypatch):
    prepare = ThreadLoader._prepare

    def slow_at_first(self, row, out):
        time.sleep(0.02 * (3 - row % 4))
        return prepare(self, row, out)

    monkeypatch.setattr(ThreadLoader, "_prepare", slow_at_first)
    rows, images = images_of(ThreadLoader(request_of(source, workers=4)))
    assert torch.equal(images, by_hand(source, PLAIN, rows))


def test_bytes_come_unnormalised_where_they_are_wanted(kind, source):
    raw = images_of(kind(request_of(source, SMALL, normalised=False)))[1]
    ready = images_of(kind(request_of(source, SMALL)))[1]
    assert raw.dtype == torch.uint8
    assert raw.shape == ready.shape == (12, 3, 8, 8)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (SMALL.mean, SMALL.std))
    assert torch.equal((raw.float() / 255 - mean) / std, ready)


def test_channels_lie_last_in_memory(kind, source):
    for _, images in kind(request_of(source, SMALL)):
        assert images.is_contiguous(memory_format=torch.channels_last)


def test_chosen_rows_come_as_asked(kind, source):
    for rows in (range(7, 12), [9, 3, 4], range(12, 12)):
        loader = kind(request_of(source, batch_size=2, rows=rows))
        found = [row for part, _ in loader for row in part.tolist()]
        assert found == list(rows)


def test_only_a_few_batches_are_decoded_ahead(source, monkeypatch):
    decoded = []
    prepare = ThreadLoader._prepare

    def counting(self, row, out):
        decoded.append(row)
        return prepare(self, row, out)

    monkeypatch.setattr(ThreadLoader, "_prepare", counting)
    batches = iter(ThreadLoader(request_of(source, batch_size=1, workers=4)))
    next(batches)
    time.sleep(0.1)
    assert len(decoded) <= 4
    batches.close()


def test_a_batch_that_is_kept_is_never_written_over(kind, source):
    kept = [images for _, images in kind(request_of(source, SMALL, batch_size=1))]
    assert torch.equal(torch.cat(kept), by_hand(source, SMALL, range(12)))


def test_memory_is_used_again_once_nobody_holds_it(source):
    addresses = {images.data_ptr() for _, images in ThreadLoader(request_of(source, SMALL, 1))}
    assert len(addresses) < 8


def spoil(source, row, contents=None):
    path = source.root / source.ids[row]
    path.write_bytes(path.read_bytes()[:-60] if contents is None else contents)
    return str(path)


@pytest.mark.parametrize("contents", [None, b"", b"hello", b"\xff\xd8\xff\xe0"])
def test_an_unreadable_image_stops_with_its_name(kind, source, contents):
    path = spoil(source, 6, contents)
    with pytest.raises(SourceError) as caught:
        list(kind(request_of(source)))
    assert path in caught.value.message
    assert "--skip-bad-images" in caught.value.hint
    assert not decoding_threads()


@pytest.mark.parametrize("preprocessing", [PLAIN, SMALL])
def test_skipped_images_are_listed_and_no_row_moves(kind, source, preprocessing):
    expected = by_hand(source, preprocessing, range(12))
    for row in (0, 6, 7):
        spoil(source, row)
    loader = kind(request_of(source, preprocessing, skip_bad=True))
    rows, images = images_of(loader)
    assert [(bad.row, bad.id) for bad in loader.bad] == [(r, source.ids[r]) for r in (0, 6, 7)]
    assert all("truncated" in bad.reason for bad in loader.bad)
    assert rows.tolist() == list(range(12))
    good = [row for row in range(12) if row not in (0, 6, 7)]
    assert torch.equal(images[good], expected[good])


def test_a_file_that_vanishes_during_the_run_is_named_or_skipped(source):
    for skip_bad in (False, True):
        loader = ThreadLoader(request_of(source, batch_size=1, workers=1, skip_bad=skip_bad))
        batches = iter(loader)
        next(batches)
        gone = source.root / source.ids[11]
        contents = gone.read_bytes()
        gone.unlink()
        if skip_bad:
            assert len(list(batches)) == 11
            assert [bad.row for bad in loader.bad] == [11]
        else:
            with pytest.raises(SourceError, match=r"003\.jpg' .* the file is not there"):
                list(batches)
        gone.write_bytes(contents)


def test_a_bad_image_is_listed_before_its_batch_is_handed_out(kind, source):
    spoil(source, 5)
    loader = kind(request_of(source, skip_bad=True))
    seen = [len(loader.bad) for _ in loader]
    assert seen == [0, 1, 1]


def test_a_batch_without_a_single_readable_image_keeps_its_rows(kind, source):
    for row in range(4):
        spoil(source, row)
    rows, images = next(iter(kind(request_of(source, skip_bad=True))))
    assert rows.tolist() == [0, 1, 2, 3]
    assert images.shape == (4, 3, 0, 0)


@pytest.mark.parametrize("skip_bad", [True, False])
def test_images_of_unequal_size_need_a_preprocessing(kind, source, skip_bad):
    Image.new("RGB", (9, 7)).save(source.root / source.ids[2])
    with pytest.raises(SourceError, match=r"002\.jpg' is 9×7 .* neighbours are 12×12") as caught:
        list(kind(request_of(source, skip_bad=skip_bad)))
    assert "resizes or crops" in caught.value.hint


def test_an_image_that_cannot_be_prepared_is_named(source):
    crop = Preprocessing(None, 16, (0.0,) * 3, (1.0,) * 3)
    with pytest.raises(SourceError, match=r"000\.jpg' cannot be prepared: it is 12×12, smaller"):
        list(ThreadLoader(request_of(source, crop)))


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_leaving_early_stops_every_thread(source, error):
    batches = iter(ThreadLoader(request_of(source, batch_size=1, workers=3)))
    next(batches)
    assert decoding_threads()
    with pytest.raises(error):
        batches.throw(error())
    assert not decoding_threads()


def test_a_second_pass_forgets_the_first_ones_findings(kind, source):
    spoil(source, 1)
    loader = kind(request_of(source, skip_bad=True))
    list(chain(loader, loader))
    assert len(loader.bad) == 1


def test_an_unknown_loader_shows_the_known_ones():
    with pytest.raises(UnknownNameError, match=r"loader called 'dali'.*threads"):
        loaders["dali"]
