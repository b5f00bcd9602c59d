"""Folders are listed in one order, links are followed as far as they lead, and names are text."""

import os

import pytest
from torchvision.datasets import DatasetFolder

from layerscope.data.listing import (
    MISSING,
    SUFFIXES,
    file_sizes,
    image_files,
    require_folder,
    subfolders,
)
from layerscope.errors import SourceError


@pytest.fixture
def tree(tmp_path):
    names = ["b/2.jpg", "b/10.JPG", "b/deep/1.png", "a/x.jpeg", "a/deep/er/y.webp", "c/note.txt"]
    for place, name in enumerate([*names, "top.gif", ".hidden/z.jpg", "b/._2.jpg", "c/w.tiff"]):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * (place + 1))
    return tmp_path


def test_images_come_in_torchvisions_order_with_their_sizes(tree):
    found = image_files(tree)
    assert [it.path for it in found] == [
        "top.gif", "a/x.jpeg", "a/deep/er/y.webp", "b/10.JPG", "b/2.jpg", "b/deep/1.png",
        "c/w.tiff",
    ]  # fmt: skip
    assert [it.size for it in found] == [(tree / it.path).stat().st_size for it in found]
    judge = DatasetFolder(
        str(tree), lambda path: path, is_valid_file=lambda p: p.lower().endswith(SUFFIXES),
        allow_empty=True,
    )  # fmt: skip
    in_classes = [path for path, _ in judge.samples if "/." not in path]
    assert [str(tree / it.path) for it in found[1:]] == in_classes
    assert subfolders(tree) == ("a", "b", "c")


def test_links_are_followed(tree, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "far.jpg").write_bytes(b"12345")
    (tree / "d").symlink_to(elsewhere)
    (tree / "a" / "same.jpg").symlink_to(tree / "b" / "2.jpg")
    (tree / "a" / "nothing.jpg").symlink_to(tree / "none.jpg")
    sizes = {it.path: it.size for it in image_files(tree)}
    assert sizes["d/far.jpg"] == 5
    assert sizes["a/same.jpg"] == 1
    assert sizes["a/nothing.jpg"] == MISSING


@pytest.mark.parametrize("where", ["a/back", "b/deep/back", "back"])
def test_a_link_that_leads_back_is_refused_by_name(tree, where):
    (tree / where).symlink_to(tree)
    with pytest.raises(SourceError, match=rf"{where}' is a link that leads back"):
        image_files(tree)


@pytest.mark.parametrize("name", ["a/self.jpg", "self"])
def test_a_link_to_itself_is_refused_by_name(tree, name):
    (tree / name).symlink_to(tree / name)
    with pytest.raises(SourceError, match=rf"{name}' cannot be looked at: Too many levels"):
        image_files(tree)


def test_two_links_to_one_folder_are_no_loop(tree):
    (tree / "a2").symlink_to(tree / "a")
    (tree / "a3").symlink_to(tree / "a")
    assert sum(it.path.endswith("x.jpeg") for it in image_files(tree)) == 3


@pytest.mark.parametrize("place", ["a", "."])
def test_a_name_that_is_no_text_is_refused(tree, place):
    broken = os.fsencode(tree / place) + b"/gr\xfcn.jpg"
    with open(broken, "wb") as file:  # noqa: PTH123  a Path cannot be made of bytes
        file.write(b"x")
    with pytest.raises(
        SourceError, match=r"The name b'gr\\xfcn\.jpg' in .* is not UTF-8"
    ) as caught:
        image_files(tree)
    assert "convmv" in caught.value.hint


def test_names_beyond_ascii_are_text(tree):
    (tree / "a" / "größe 日本.jpg").write_bytes(b"x")
    assert "a/größe 日本.jpg" in [it.path for it in image_files(tree)]


def test_sizes_of_listed_files_are_looked_up_in_their_order(tree, monkeypatch):
    ids = [it.path for it in image_files(tree)]
    expected = [(tree / name).stat().st_size for name in ids]
    assert file_sizes(tree, ids).tolist() == expected
    mixed = ["none.jpg", *ids, "top.gif/inside.jpg"]
    assert file_sizes(tree, mixed).tolist() == [MISSING, *expected, MISSING]
    monkeypatch.setattr("layerscope.data.listing._CHUNK", 2)
    assert file_sizes(tree, mixed).tolist() == [MISSING, *expected, MISSING]


def test_a_folder_that_lacks_something_says_what(tree):
    require_folder(tree, "a", "b/2.jpg", hint="")
    for root, parts, message in (
        (tree / "none", (), "is not there"),
        (tree / "top.gif", (), "is a file, not a folder"),
        (tree, ("a", "z.json"), r"has no z\.json"),
    ):
        with pytest.raises(SourceError, match=message) as caught:
            require_folder(root, *parts, hint="Look again.")
        assert caught.value.hint == "Look again."
