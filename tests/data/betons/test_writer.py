"""The file is what its layout says, for any page size, and never appears half done."""

import errno
import struct

import numpy as np
import pytest

from layerscope.data.betons import layout
from layerscope.data.betons.writer import BetonWriter, EncodedImage
from layerscope.errors import DiskError

SMALL = 1 << 21


def noise(size, seed=0):
    return np.random.default_rng(seed).bytes(size)


def write(path, sizes, page=SMALL):
    with BetonWriter(path, len(sizes), page) as writer:
        for row, size in enumerate(sizes):
            writer.add(EncodedImage(layout.JPEG, 3 + row, 5, noise(size, row)))
        writer.complete()


def read_by_hand(path):
    """Header, names, metadata and allocations, by ``struct`` alone."""
    data = path.read_bytes()
    version, fields, page, samples, at = struct.unpack_from("<HHIQQ", data)
    names = [data[24 + i * 1041 + 1 :][:16].rstrip(b"\0") for i in range(fields)]
    start = 24 + fields * 1041
    metadata = [struct.unpack_from("<BHHQ3xq", data, start + 24 * i) for i in range(samples)]
    allocations = [struct.unpack_from("<QQQ", data, at + 24 * i) for i in range(samples)]
    assert at + 24 * samples == len(data)
    return data, (version, page, at), names, metadata, allocations


@pytest.mark.parametrize(
    "sizes", [(10,), (SMALL,), (SMALL, 1, SMALL), (SMALL - 1, 2, 5), (700_000,) * 9, (SMALL + 1, 7)]
)
def test_every_sample_lies_within_one_page_in_row_order(tmp_path, sizes):
    path = tmp_path / "x.beton"
    write(path, sizes)
    data, (version, page, table), names, metadata, allocations = read_by_hand(path)
    assert (version, names) == (2, [b"image", b"index"])
    assert page == (SMALL if max(sizes) <= SMALL else 2 * SMALL)
    places = [place for *_, place, _ in metadata]
    assert places == sorted(places)
    assert places[0] % SMALL == 0
    for row, size in enumerate(sizes):
        mode, width, height, place, index = metadata[row]
        assert (mode, width, height, index) == (0, 3 + row, 5, row)
        assert allocations[row] == (row, place, size)
        assert place // page == (place + size - 1) // page
        assert place + size <= table
        assert data[place : place + size] == noise(size, row)


def test_bytes_between_samples_are_zero(tmp_path):
    path = tmp_path / "x.beton"
    write(path, (SMALL - 5, 9))
    data, _, _, metadata, _ = read_by_hand(path)
    first, second = (place for *_, place, _ in metadata)
    assert not any(data[24 + 2 * 1041 + 48 : first])
    assert not any(data[first + SMALL - 5 : second])


def test_what_ffcv_calls_its_types_has_their_sizes():
    assert layout.HEADER.itemsize == 24
    assert layout.DESCRIPTOR.itemsize == 1041
    assert layout.ALLOCATION.itemsize == 24
    assert layout.IMAGE_PART.itemsize == 13


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_unfinished_file_leaves_nothing(tmp_path, error):
    with pytest.raises(error), BetonWriter(tmp_path / "x.beton", 2) as writer:
        writer.add(EncodedImage(layout.JPEG, 1, 1, b"x"))
        assert (tmp_path / "x.beton.part").exists()
        raise error
    assert not list(tmp_path.iterdir())


def test_fewer_samples_than_announced_are_noticed(tmp_path):
    with pytest.raises(AssertionError), BetonWriter(tmp_path / "x.beton", 2) as writer:
        writer.add(EncodedImage(layout.JPEG, 1, 1, b"x"))
        writer.complete()
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_named(tmp_path, monkeypatch):
    writer = BetonWriter(tmp_path / "x.beton", 1)

    class Full:
        def seek(self, place): ...

        def write(self, data):
            raise OSError(errno.ENOSPC, "No space left on device")

    with writer:
        writer.add(EncodedImage(layout.JPEG, 1, 1, b"x"))
        whole, writer._file = writer._file, Full()
        with pytest.raises(DiskError, match=r"x\.beton' cannot be written: the disk is full"):
            writer.complete()
        writer._file = whole
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(DiskError, match=r"cannot be written: No such file"):
        BetonWriter(tmp_path / "nowhere" / "x.beton", 1)
