"""Files of others are read as they are laid out, and damaged ones are refused by name."""

import pickle
import struct

import numpy as np
import pytest

from layerscope.data.betons import BetonImages
from layerscope.data.betons.beton import Beton
from layerscope.errors import SourceError

CUSTOM = 255
LAYOUTS = {
    "label behind": (((2, "image"), (1, "label")), "<BHHQ3xq", lambda *it: it),
    "label before": (
        ((1, "label"), (2, "image")),
        "<qBHHQ3x",
        lambda m, w, h, p, v: (v, m, w, h, p),
    ),
    "bytes between": (
        ((2, "image"), (3, "text"), (1, "label")),
        "<BHHQQQ3xq",
        lambda m, w, h, p, v: (m, w, h, p, 0, 0, v),
    ),
    "two images": (
        ((2, "image"), (2, "second"), (1, "label")),
        "<BHHQBHHQ6xq",
        lambda m, w, h, p, v: (m, w, h, p, m, w, h, p, v),
    ),
    "own image": (((CUSTOM, "image"), (1, "label")), "<BHHQ3xq", lambda *it: it),
    "own bytes before": (
        ((CUSTOM, "box"), (2, "image"), (1, "label")),
        "<QQBHHQ3xq",
        lambda m, w, h, p, v: (0, 0, m, w, h, p, v),
    ),
    "own number behind": (
        ((2, "image"), (1, "label"), (CUSTOM, "weight")),
        "<BHHQ3xqd",
        lambda m, w, h, p, v: (m, w, h, p, v, 0.5),
    ),
    "own bytes between": (
        ((1, "label"), (CUSTOM, "box"), (2, "image")),
        "<qQQBHHQ3x",
        lambda m, w, h, p, v: (v, 0, 0, m, w, h, p),
    ),
}


@pytest.fixture
def laid_out(foreign, samples, tmp_path):
    """Return ``write(layout, count)``, a file and what is in it."""

    def write(layout, count=7):
        fields, entry, order = LAYOUTS[layout]
        made = samples(count)
        path = foreign(tmp_path / "x.beton", made, fields, _Reordered(entry, order))
        return path, made

    return write


class _Reordered(str):
    """The format of an entry, whose values come in another order."""

    def __new__(cls, form, order):
        made = super().__new__(cls, form)
        made.order = order
        return made


def pixels(raw, height, width):
    return np.frombuffer(raw, np.uint8).reshape(height, width, 3)


def require_same(beton, made):
    assert beton.samples == len(made)
    for row, (data, mode, height, width, _) in enumerate(made):
        found = beton.read(row)
        if mode:
            assert np.array_equal(found, pixels(data, height, width))
        else:
            assert found == data


@pytest.mark.parametrize("layout", LAYOUTS)
def test_images_and_labels_are_found_in_every_layout(laid_out, layout):
    path, made = laid_out(layout)
    beton = Beton(path, "image" if layout == "own image" else None)
    require_same(beton, made)
    assert beton.image == "image"
    assert beton.integers == ("label",)
    assert beton.integer("label").tolist() == [label for *_, label in made]


def test_another_image_field_is_chosen_by_name(laid_out):
    path, made = laid_out("two images")
    beton = Beton(path, "second")
    assert beton.image == "second"
    require_same(beton, made)


@pytest.mark.parametrize(
    ("layout", "image", "message"),
    [
        (
            "label behind",
            "picture",
            r"no image field called 'picture'; its fields are image, label",
        ),
        ("label behind", "label", r"no image field called 'label'"),
        ("own image", None, r"no field of images; its fields are image, label"),
    ],
)
def test_a_missing_image_field_is_named(laid_out, layout, image, message):
    path, _ = laid_out(layout)
    with pytest.raises(SourceError, match=message) as caught:
        Beton(path, image)
    assert "image=NAME" in caught.value.hint


def test_a_field_of_unknown_layout_is_refused(foreign, samples, tmp_path):
    fields = ((CUSTOM, "embedding"), (2, "image"), (1, "label"))
    entry = _Reordered("<40sBHHQ3xq", lambda m, w, h, p, v: (b"", m, w, h, p, v))
    path = foreign(tmp_path / "x.beton", samples(5), fields, entry)
    with pytest.raises(SourceError, match=r"a field of its own, 'embedding', of unknown layout"):
        Beton(path)


def test_rows_are_selected_and_found_again_by_another_process(laid_out):
    path, made = laid_out("label behind", 6)
    images = BetonImages.whole(Beton(path)).select(np.array([4, 1, 1]))
    for each in (images, pickle.loads(pickle.dumps(images))):
        assert [each.place(row) for row in range(3)] == [f"{path}, row {it}" for it in (4, 1, 1)]
        assert each.read(1) == made[1][0]
        assert each.read(0) == made[4][0]


def test_a_file_closes_when_nobody_needs_it(laid_out):
    path, _ = laid_out("label behind")
    descriptor = Beton(path)._file  # and it is gone at once
    with pytest.raises(OSError, match="Bad file descriptor"):
        __import__("os").fstat(descriptor)


def patched(path, place, form, *values):
    data = bytearray(path.read_bytes())
    struct.pack_into(form, data, place, *values)
    path.write_bytes(data)


ENTRIES = 24 + 2 * 1041
DAMAGE = {
    "another version": (0, "<H", (3,), "is no .beton file of version 2"),
    "a page of no power of two": (4, "<I", (3 << 20,), "is no .beton file"),
    "no fields": (2, "<H", (0,), "it holds no image"),
    "no samples": (8, "<Q", (0,), "it holds no image"),
    "too many samples": (8, "<Q", (1 << 40,), "it ends after .* bytes"),
    "never finished": (16, "<Q", (0,), "whoever wrote it never finished it"),
    "a table within the data": (16, "<Q", (1 << 21,), "within its last table|does not have"),
    "a type from the future": (24, "<B", (9,), "its field 'image' is of type 9"),
    "one name for two": (24 + 1041 + 1, "<16s", (b"image",), "two of its fields"),
    "a pointer to nowhere": (ENTRIES + 5, "<Q", (77,), "the image of row 0 is not in it"),
    "a pointer past the end": (ENTRIES + 5, "<Q", (1 << 60,), "the image of row 0 is not in it"),
    "another's pixels": (ENTRIES + 24 * 2 + 1, "<H", (99,), "the image of row 2 is not in it"),
    "an unknown mode": (ENTRIES + 24, "<B", (7,), "the image of row 1 is not in it"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_refused(laid_out, damage):
    path, _ = laid_out("label behind")
    place, form, values, message = DAMAGE[damage]
    patched(path, place, form, *values)
    with pytest.raises(SourceError, match=message) as caught:
        Beton(path)
    assert str(path) in caught.value.message


@pytest.mark.parametrize("left", [0, 10, 24, 500, ENTRIES + 3, 1 << 20, (1 << 21) + 100, -1, -24])
def test_a_file_that_breaks_off_is_refused(laid_out, left):
    path, _ = laid_out("label behind")
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(SourceError, match=r"x\.beton' is damaged|does not"):
        Beton(path)


def test_allocations_beyond_the_file_are_refused(laid_out):
    path, _ = laid_out("label behind")
    size = path.stat().st_size
    patched(path, size - 8, "<Q", 1 << 62)
    with pytest.raises(SourceError, match="it allots bytes that it does not have"):
        Beton(path)


def test_a_file_that_is_not_there_or_a_folder_is_named(tmp_path):
    with pytest.raises(SourceError, match=r"x\.beton' cannot be opened: No such file"):
        Beton(tmp_path / "x.beton")
    with pytest.raises(SourceError, match="cannot be opened: it is a folder"):
        Beton(tmp_path)


def test_a_file_that_shrinks_while_it_is_read_is_an_error(laid_out):
    path, made = laid_out("label behind")
    beton = Beton(path)
    with path.open("r+b") as file:
        file.truncate(int(beton.stored.at[0]) + 5)
    with pytest.raises(SourceError, match=r"x\.beton, row 0' cannot be read: .* cut off"):
        beton.read(0)
    assert made


def test_a_file_is_known_again_by_its_sizes_and_by_its_pixels(foreign, tmp_path):
    def identity(pixels, name):
        made = [(it.tobytes(), 1, *it.shape[:2], 0) for it in pixels]
        return Beton(foreign(tmp_path / name, made)).identity

    pixels = np.random.default_rng(0).integers(0, 256, (200, 9, 8, 3), dtype=np.uint8)
    first = identity(pixels, "x.beton")
    assert identity(pixels, "y.beton") == first
    assert identity(pixels.reshape(200, 8, 9, 3), "z.beton") != first
    assert identity(pixels ^ 1, "brighter.beton") != first
