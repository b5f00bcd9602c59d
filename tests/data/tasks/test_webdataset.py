"""Tar shards, compared with what went in and with what the webdataset library reads from them."""

import gzip
import io
import json
import tarfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import numpy as np
import pytest
from PIL import Image

from layerscope.data import Reading, image_transform, open_source, thin
from layerscope.data.loaders import loaders
from layerscope.data.tars import members
from layerscope.errors import SourceError
from layerscope.types import Preprocessing

COUNTS = {"train-000000": 13, "train-000001": 12, "val-000000": 8, "test-000000": 9}
PLAIN = Preprocessing(None, None, (0.0,) * 3, (1.0,) * 3)


def file_of(seed, kind="JPEG"):
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 9, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def add(tar, name, data):
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def samples(count, seed=0, first=0):
    """Return key and files of every sample: image, label, and what is neither."""
    for i in range(first, first + count):
        label = (7 * i + seed) % 3
        image = ("jpg", file_of(100 * seed + i)) if i % 2 else ("PNG", file_of(i, "PNG"))
        key = f"n{label}/im_{i:04d}" if i % 3 else f"n{label}/im-{i:04d}"
        record = {"label": label, "name": f"class {label}"}
        yield (
            key,
            [image, ("cls", f"{label}\n".encode()), ("json", json.dumps(record).encode())],
        )


def sample(**files):
    return list(files.items())


def write(path, rows, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", **options) as tar:
        directory = tarfile.TarInfo("n0/")
        directory.type = tarfile.DIRTYPE
        tar.addfile(directory)
        for key, files in rows:
            for extension, data in files:
                add(tar, f"{key}.{extension}", data)


def fill(root, counts=COUNTS):
    """Write shards; keys go on from one to the next and start anew with every split."""
    began, rows = Counter(), {}
    for seed, (name, count) in enumerate(counts.items()):
        split = name.split("-")[0]
        rows[name] = list(samples(count, seed, began[split]))
        began[split] += count
        write(root / f"{name}.tar", rows[name])
    return {name: rows[name] for name in sorted(rows)}


@pytest.fixture
def root(tmp_path):
    fill(tmp_path)
    return tmp_path


def opened(root, **options):
    return open_source("webdataset", root, **options)


def test_rows_labels_splits_and_bytes_are_what_went_in(tmp_path):
    written = fill(tmp_path)
    source = opened(tmp_path)
    rows = [(name, key, dict(files)) for name, it in written.items() for key, files in it]
    assert list(source.ids) == [f"{name.split('-')[0]}/{key}" for name, key, _ in rows]
    assert source.splits.tolist() == [name.split("-")[0] for name, _, _ in rows]
    assert source.targets["webdataset"].tolist() == [int(files["cls"]) for *_, files in rows]
    assert source.targets["webdataset"].dtype == np.int64
    assert source.tasks[0].classes == ("0", "1", "2")
    assert source.notes == ()
    images = [files.get("jpg", files.get("PNG")) for *_, files in rows]
    assert [source.images.read(row) for row in range(len(rows))] == images
    assert source.images.place(0) == f"{tmp_path}/test-000000.tar, {rows[0][1]}.PNG"


def by_the_library(shards):
    """Return the samples that the webdataset library makes of shards."""
    library = pytest.importorskip("webdataset.tariterators", reason="webdataset is not installed")
    with ExitStack() as stack:
        streams = [
            {"url": str(path), "stream": stack.enter_context(path.open("rb"))} for path in shards
        ]
        return list(library.group_by_keys(library.tar_file_expander(streams)))


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_the_library_reads_the_same_keys_and_bytes_in_the_same_order(tmp_path, format):
    name = "deep/k" if format == tarfile.USTAR_FORMAT else f"./{'deep/' * 30}ключ"
    rows = [*samples(40), (name, sample(jpeg=b"x", cls=b"1", **{"seg.png": b"y"}))]
    extra = [("__meta__/a", sample(json=b"{}")), (".hidden", sample(jpg=b"?"))]
    write(tmp_path / "train-0.tar", rows[:30], format=format)
    write(tmp_path / "train-1.tar", [extra[0], *rows[30:], extra[1]], format=format)
    with tarfile.open(tmp_path / "train-1.tar", "a", format=format) as tar:
        add(tar, "README", b"no image")
    found = by_the_library([tmp_path / f"train-{i}.tar" for i in (0, 1)])
    source = opened(tmp_path)
    assert list(source.ids) == [f"train/{it['__key__']}" for it in found]
    assert source.ids[-1] == f"train/{name}"
    assert len(found) == 41
    images = [it.get("jpg", it.get("png", it.get("jpeg"))) for it in found]
    assert [source.images.read(row) for row in range(41)] == images
    assert source.targets["webdataset"].tolist() == [int(it["cls"]) for it in found]


def test_images_are_read_from_several_threads_and_in_any_order(root):
    source = opened(root)
    alone = [source.images.read(row) for row in range(42)]
    rows = np.random.default_rng(0).integers(0, 42, 4000)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(source.images.read, rows.tolist()))
    assert found == [alone[row] for row in rows]
    few = source.images.select(rows[:30]).select(np.array([29, 4]))
    assert [few.read(row) for row in (0, 1)] == [alone[rows[29]], alone[rows[4]]]


@pytest.mark.parametrize("kind", ["threads", "torchvision"])
def test_loaders_give_the_files_pixels(root, kind):
    source = thin(opened(root), 12)
    expected = [
        image_transform(PLAIN)(np.asarray(Image.open(io.BytesIO(source.images.read(row)))))
        for row in range(12)
    ]
    batches = loaders[kind](Reading(source, PLAIN, 5, workers=2))
    images = [image for _, batch in batches for image in batch]
    assert len(images) == 12
    for image, other in zip(images, expected, strict=True):
        assert image.equal(other)


def test_splits_may_be_folders(tmp_path):
    fill(tmp_path / "flat")
    for name in COUNTS:
        split, number = name.split("-")
        (tmp_path / "deep" / split).mkdir(parents=True, exist_ok=True)
        (tmp_path / "flat" / f"{name}.tar").rename(tmp_path / "deep" / split / f"{number}.tar")
    fill(tmp_path / "flat")
    flat, deep = opened(tmp_path / "flat"), opened(tmp_path / "deep")
    assert (flat.manifest, flat.annotations) == (deep.manifest, deep.annotations)


@pytest.mark.parametrize("word", ["val", "validation", "test"])
def test_two_splits_leave_a_tenth_of_training_to_validate(tmp_path, word):
    fill(tmp_path, {"train-0": 40, f"{word}-0": 9})
    source = opened(tmp_path)
    official = [name.split("/")[0] for name in source.ids]
    assert ["train" if it != "test" else word for it in source.splits.tolist()] == official
    assert Counter(source.splits.tolist()) == {"train": 36, "val": 4, "test": 9}
    assert "10 % of train validate" in source.tasks[0].split


@pytest.mark.parametrize("name", ["data", "train"])
def test_without_splits_they_are_made_up_of_all(tmp_path, name):
    fill(tmp_path, {f"{name}-0": 25, f"{name}-1": 25})
    source = opened(tmp_path)
    assert Counter(source.splits.tolist()) == {"train": 30, "val": 10, "test": 10}
    assert "60, 20 and 20 %" in source.notes[0]
    assert source.ids[0] == ("n0/im-0000" if name == "data" else "train/n0/im-0000")


def test_the_word_may_stand_anywhere_in_a_shards_name(tmp_path):
    fill(tmp_path)
    first = opened(tmp_path)
    for path in list(tmp_path.glob("*.tar")):
        path.rename(tmp_path / f"imagenet1k-{path.name.replace('-', '_')}")
    assert opened(tmp_path).annotations == first.annotations
    write(tmp_path / "train-test-0.tar", samples(3))
    with pytest.raises(SourceError, match=r"test-0\.tar' names several splits: train, test"):
        opened(tmp_path)


def test_shards_that_name_no_split_are_left_out_and_noted(tmp_path):
    fill(tmp_path)
    write(tmp_path / "extra-0.tar", samples(3))
    source = opened(tmp_path)
    assert len(source.ids) == 42
    assert source.notes == ("these shards name no split and are left out: 'extra-0.tar'",)
    write(tmp_path / "validation-0.tar", samples(3))
    with pytest.raises(SourceError, match="two val splits: 'val' and 'validation'"):
        opened(tmp_path)


def test_labels_may_be_a_field_of_json(tmp_path):
    fill(tmp_path)
    first = opened(tmp_path)
    assert opened(tmp_path, label="label").annotations == first.annotations
    with pytest.raises(SourceError, match="has the label 'class 0', which is no whole number"):
        opened(tmp_path, label="name")
    with pytest.raises(SourceError, match=r"has no field 'labels' in its \.json") as caught:
        opened(tmp_path, label="labels")
    assert "label, name" in caught.value.hint


def test_classes_may_be_named_by_a_file(tmp_path):
    fill(tmp_path / "set")
    names = tmp_path / "names.txt"
    names.write_text("ant\nbee\ncat\ndodo\n")
    source = opened(tmp_path / "set", classes=names)
    assert source.tasks[0].classes == ("ant", "bee", "cat", "dodo")
    assert source.targets["webdataset"].tolist() == [
        int(name.split("/")[1][1]) for name in source.ids
    ]
    names.write_text("ant\nbee\n")
    with pytest.raises(SourceError, match=r"has the label 2, and .*names\.txt' names 2 classes"):
        opened(tmp_path / "set", classes=names)
    names.write_text("ant\n\nbee\ncat\n")
    with pytest.raises(SourceError, match=r"names\.txt' has an empty line 2"):
        opened(tmp_path / "set", classes=names)
    with pytest.raises(SourceError, match="There is no file"):
        opened(tmp_path / "set", classes=tmp_path / "none.txt")


def test_numbers_with_gaps_name_the_classes_that_occur(tmp_path):
    rows = [
        (f"{i}", [("jpg", b"x"), ("cls", str((5, 100, 20)[i % 3]).encode())]) for i in range(50)
    ]
    write(tmp_path / "0.tar", rows)
    source = opened(tmp_path, name="wild")
    assert (source.name, source.tasks[0].name) == ("wild", "wild")
    assert source.tasks[0].classes == ("5", "20", "100")
    assert source.targets["wild"].tolist() == [(0, 2, 1)[i % 3] for i in range(50)]


WRONG = [
    ([("k", sample(cls=b"1", json=b"{}"))], "'k' .* has no image"),
    ([("k", sample(jpg=b"x"))], r"'k' .* has no \.cls"),
    ([("k", sample(jpg=b"x", json=b"{}"))], r"'k' .* has no \.cls"),
    ([("k", sample(jpg=b"x", png=b"y", cls=b"1"))], "'k' .* has several images: jpg, png"),
    ([("k", sample(jpg=b"x", cls=b"one"))], "'k' .* has the label 'one', which is no whole"),
    ([("k", sample(jpg=b"x", cls=b"1.0"))], "'k' .* has the label '1.0', which is no whole"),
    ([("k", sample(jpg=b"x", cls=b""))], "'k' .* has the label '', which is no whole"),
    ([("k", sample(jpg=b"x", cls=b"-1"))], "'k' .* has the label -1, which is no whole"),
    ([("k", sample(jpg=b"x", cls=b"9" * 30))], "'k' .* has the label 9999"),
    (
        [("n0/im-0000", sample(jpg=b"x", cls=b"1"))],
        "'n0/im-0000' .* was there before, in .*0000.tar'",
    ),
    (
        [(k, sample(jpg=b"x", cls=b"1")) for k in "kjk"],
        "'k' .* was there before, in .*train-9.tar'",
    ),
    ([("k", sample(jpg=b"x", cls=b"1", JPG=b"y"))], r"'k' .* has \.JPG twice"),
    ([("k", sample(jpg=b"x", cls=b"1", tif=b"y"))], "'k' .* has several images: jpg, tif"),
]


@pytest.mark.parametrize(("rows", "message"), WRONG)
def test_a_key_that_is_wrong_is_named_with_its_shard(root, rows, message):
    write(root / "train-9.tar", rows)
    with pytest.raises(SourceError, match=message) as caught:
        opened(root)
    assert "train-9.tar" in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (b'{"label": true}', "has the label True"),
        (b'{"label": 1.5}', "has the label 1.5"),
        (b'{"label": null}', "has the label None"),
        (b"[1]", "has no field 'label'"),
        (b'{"label"', r"has a \.json that is no JSON"),
    ],
)
def test_a_label_in_json_is_a_whole_number(root, record, message):
    write(root / "train-9.tar", [("k", sample(jpg=b"x", json=record))])
    with pytest.raises(SourceError, match=f"'k' .* {message}"):
        opened(root, label="label")


def test_of_several_images_one_is_asked_for(tmp_path):
    rows = [
        (f"{i}", sample(jpg=b"x%d" % i, **{"seg.png": b"s"}, png=b"y", cls=b"%d" % (i % 2)))
        for i in range(30)
    ]
    write(tmp_path / "0.tar", rows)
    with pytest.raises(SourceError, match="has several images: jpg, png") as caught:
        opened(tmp_path)
    assert "image=jpg" in caught.value.hint
    assert opened(tmp_path, image="jpg").images.read(7) == b"x7"
    assert opened(tmp_path, image="seg.png").images.read(7) == b"s"
    with pytest.raises(SourceError, match=r"'0' .* has no image") as caught:
        opened(tmp_path, image="webp")
    assert "jpg, seg.png, png, cls" in caught.value.hint


@pytest.mark.parametrize("cut", [100, 600, 512 * 9])
def test_a_shard_that_breaks_off_is_named(root, cut):
    path = root / "train-000001.tar"
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(SourceError, match=r"train-000001\.tar' is no whole tar file"):
        opened(root)


def test_every_cut_of_a_shard_is_noticed(tmp_path):
    write(tmp_path / "whole.tar", samples(2))
    data = (tmp_path / "whole.tar").read_bytes()
    last = max(it.offset + it.size for it in members(tmp_path / "whole.tar"))
    end = -(-last // 512) * 512
    for cut in range(0, end + 512, 256):
        (tmp_path / "cut.tar").write_bytes(data[:cut])
        with pytest.raises(SourceError, match=r"cut\.tar' is no whole tar file"):
            list(members(tmp_path / "cut.tar"))
    (tmp_path / "cut.tar").write_bytes(data[: end + 512])
    assert list(members(tmp_path / "cut.tar")) == list(members(tmp_path / "whole.tar"))


def test_a_damaged_header_does_not_end_a_shard_early(root):
    path = root / "train-000001.tar"
    offset = [it.offset for it in members(path)][5] - 512
    data = bytearray(path.read_bytes())
    data[offset + 10] ^= 0x55
    path.write_bytes(data)
    with pytest.raises(SourceError, match=f"whole tar file: at byte {offset:,} is neither"):
        opened(root)


def test_compressed_shards_are_refused(root):
    path = root / "train-000001.tar"
    data = gzip.compress(path.read_bytes())
    path.write_bytes(data)
    with pytest.raises(SourceError, match=r"train-000001\.tar' is compressed") as caught:
        opened(root)
    assert "Unpack" in caught.value.hint
    path.rename(root / "train-000001.tar.gz")
    with pytest.raises(SourceError, match=r"train-000001\.tar\.gz' is compressed"):
        opened(root)


def test_a_file_that_is_no_tar_is_named(root):
    (root / "train-9.tar").write_bytes(b"no tar" * 500)
    with pytest.raises(SourceError, match=r"train-9\.tar' is no whole tar file"):
        opened(root)


def test_a_shard_that_shrank_since_is_noticed(root):
    source = opened(root)
    row = list(source.ids).index("train/n1/im-0024")
    path = root / "train-000001.tar"
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(SourceError, match=r"im-0024\.PNG' cannot be read: .* shorter than it was"):
        source.images.read(row)
    path.unlink()
    with pytest.raises(SourceError, match="cannot be read: No such file"):
        source.images.read(row)


def test_missing_pieces_are_named(tmp_path):
    with pytest.raises(SourceError, match="is not there"):
        opened(tmp_path / "none")
    with pytest.raises(SourceError, match=r"holds no \.tar file"):
        opened(tmp_path)
    write(tmp_path / "val-0.tar", samples(3))
    with pytest.raises(SourceError, match="has no train split, only val"):
        opened(tmp_path)
    write(tmp_path / "val-0.tar", [])
    with pytest.raises(SourceError, match=r"val-0\.tar' and its like hold no image"):
        opened(tmp_path)


def test_an_empty_image_is_missing(root):
    write(root / "train-9.tar", [("k", sample(jpg=b"", cls=b"1"))])
    with pytest.raises(SourceError, match=r"'train/k' .* the file is empty"):
        opened(root)
    source = open_source("webdataset", root, allow_missing=True)
    assert source.missing == {list(source.ids).index("train/k"): "the file is empty"}
