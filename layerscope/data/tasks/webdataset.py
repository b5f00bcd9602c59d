"""Tar shards as the WebDataset library lays them out: images with their labels beside them.

The folder holds the shards of every split, by name or in a folder for each:

    root/train-000000.tar     root/train/000000.tar
    root/train-000001.tar     root/train/000001.tar
    root/val-000000.tar       root/val/000000.tar

A shard holds the files of one image next to each other, and they share a key, which is the name up
to the first dot, with its folder: ``n01440764/n01440764_10026.jpg`` and
``n01440764/n01440764_10026.cls``. The class is the whole number in ``.cls``, or a field of
``.json``. As in the library (``webdataset/tariterators.py``), names without a dot and what lies in
a folder called ``__…__`` belong to no image; nor do hidden files.

The word for the split may stand anywhere in a shard's name (``imagenet-train-0000.tar``). Without
test shards it is ``val`` that tests; without a split to validate on, 10 % of ``train`` do; shards
that name no split at all are divided into 60, 20 and 20 %.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from layerscope.data.annotations import read_lines
from layerscope.data.assembly import assemble
from layerscope.data.class_task import class_task
from layerscope.data.listing import SUFFIXES, require_folder, subfolders
from layerscope.data.official import (
    RULE,
    assign_splits,
    left_out_note,
    official_splits,
    split_named,
)
from layerscope.data.source_names import own_name
from layerscope.data.sources import sources, tasks
from layerscope.data.splits import Labels
from layerscope.data.tars import COMPRESSED, Member, TarImages, compressed, members
from layerscope.errors import SourceError
from layerscope.types import Source

TASK = class_task("webdataset", "Class", RULE)
tasks.add(TASK.name, TASK)

_LAYOUT = "It holds train-000000.tar and so on; name.jpg and name.cls in them are one image."
_META = re.compile(r"__[^/]*__/")
_IMAGES = tuple(suffix[1:] for suffix in SUFFIXES)
_MOST = 2**31
"""Classes: a larger label is a number of something else."""
_WHOLE = re.compile(r"[+-]?[0-9]+")


class _Shard(NamedTuple):
    """A tar file, and the word in its name that tells its split."""

    path: Path
    word: str
    """``""`` where there is none."""


class _Sample(NamedTuple):
    """What belongs to one key."""

    key: str
    files: dict[str, Member]
    """By extension, in lower case: ``jpg``, ``cls``, ``json``."""


@dataclass(slots=True)
class _Rows:
    """All images of all shards, as they are found."""

    ids: list[str] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    images: list[Member] = field(default_factory=list)
    shards: list[int] = field(default_factory=list)


class _Reader(NamedTuple):
    """Which files of a sample are the image and the label."""

    image: str | None
    label: str | None

    def image_of(self, sample: _Sample, shard: Path) -> Member:
        wanted = _IMAGES if self.image is None else (self.image,)
        found = [extension for extension in sample.files if extension in wanted]
        if len(found) != 1:
            what = f"several images: {', '.join(found)}" if found else "no image"
            others = ", ".join(sample.files)
            raise _fault(
                shard,
                sample.key,
                f"has {what}",
                f"Say which with image={found[0]}." if found else f"It has {others} alone.",
            )
        return sample.files[found[0]]

    def label_of(self, sample: _Sample, shard: Path, handle: int) -> int:
        extension = "cls" if self.label is None else "json"
        file = sample.files.get(extension)
        if file is None:
            hint = "Say which field of .json it is with label=…" if "json" in sample.files else ""
            raise _fault(shard, sample.key, f"has no .{extension}", hint or _LAYOUT)
        data = os.pread(handle, file.size, file.offset)
        label = _number(data) if self.label is None else self._field(data, sample.key, shard)
        if not isinstance(label, int) or isinstance(label, bool) or not 0 <= label < _MOST:
            what = f"has the label {label!r}, which is no whole number from 0"
            raise _fault(shard, sample.key, what, "Labels count classes, and start at 0.")
        return label

    def _field(self, data: bytes, key: str, shard: Path) -> object:
        try:
            record = json.loads(data)
        except ValueError:
            raise _fault(shard, key, "has a .json that is no JSON", _LAYOUT) from None
        if not isinstance(record, dict) or self.label not in record:
            fields = ", ".join(record) if isinstance(record, dict) else "none"
            what = f"has no field {self.label!r} in its .json"
            raise _fault(shard, key, what, f"Its fields: {fields}.")
        return record[self.label]


@sources.register(TASK.source)
def open_webdataset(
    root: Path,
    *,
    label: str | None = None,
    classes: Path | None = None,
    image: str | None = None,
    name: str | None = None,
) -> Source:
    """Return the record of the images in tar shards.

    Rows come in the order of the shards' paths, and in the order of each shard.

    Args:
        root: The folder with the shards, or with a folder of shards for each split.
        label: The field of ``.json`` that holds the class; the number in ``.cls`` by default.
        classes: A text file with the names of the classes, one a line, from class 0; by default
            they are called by their numbers.
        image: The extension of the image, such as ``jpg``, where a key has several.
        name: What to call the source and its task, so that several sets can be told apart.

    Raises:
        SourceError: A shard is compressed or broken, or an image has no label or a second one.
    """
    called = own_name(name, TASK.source)
    require_folder(root, hint=_LAYOUT)
    shards, notes = _choose_shards(root, _shards(root))
    rows = _rows(shards, _Reader(image, label))
    names, labels = _classes(np.array(rows.labels, np.int64), rows.ids, classes)
    splits = [split_named(word) for word in rows.words]
    assignment = assign_splits(
        None if None in splits else np.array(splits, np.str_), rows.ids, labels, root
    )
    task = replace(TASK, name=called, source=called, classes=names, split=assignment.rule)
    size = np.array([it.size for it in rows.images], np.int64)
    images = TarImages(
        [shard.path for shard in shards],
        [it.name for it in rows.images],
        np.array(rows.shards, np.int64),
        np.array([it.offset for it in rows.images], np.int64),
        size,
    )
    source = assemble(
        called,
        root,
        rows.ids,
        assignment.splits,
        {task: labels},
        sizes=size,
        images=images,
        notes=(*assignment.notes, *notes),
    )
    empty = np.flatnonzero(size == 0).tolist()
    return replace(source, missing=dict.fromkeys(empty, "the file is empty"))


def _shards(root: Path) -> list[_Shard]:
    """Return the shards in a folder and in the folders in it, by path."""
    found = []
    for folder in ("", *subfolders(root)):
        for file in sorted((root / folder).iterdir()):
            if file.name.startswith(".") or not file.is_file():
                continue
            if file.name.lower().endswith(COMPRESSED):
                raise compressed(file)
            if file.suffix.lower() == ".tar":
                found.append(_Shard(file, _word(root, file)))
    if not found:
        raise SourceError(f"{str(root)!r} holds no .tar file.", hint=_LAYOUT)
    return sorted(found, key=lambda shard: shard.path.relative_to(root).as_posix())


def _word(root: Path, shard: Path) -> str:
    path = shard.relative_to(root).with_suffix("").as_posix()
    words = dict.fromkeys(word for word in re.findall("[A-Za-z]+", path) if split_named(word))
    if len({split_named(word) for word in words}) > 1:
        raise SourceError(
            f"The shard {str(shard)!r} names several splits: {', '.join(words)}.",
            hint="Rename it, so that it is clear which one it is of.",
        )
    return next(iter(words), "")


def _choose_shards(root: Path, shards: Sequence[_Shard]) -> tuple[list[_Shard], tuple[str, ...]]:
    """Return the shards that are read: those that name a split, if there are any."""
    named = [shard for shard in shards if shard.word]
    if not named:
        return list(shards), ()
    official_splits(dict.fromkeys(shard.word for shard in named), root)
    others = [shard.path.relative_to(root).as_posix() for shard in shards if not shard.word]
    return named, left_out_note(others, "shards")


def _rows(shards: Sequence[_Shard], reader: _Reader) -> _Rows:
    rows = _Rows()
    seen: dict[str, Path] = {}
    for place, shard in enumerate(shards):
        with shard.path.open("rb") as file:
            for sample in _samples(shard.path):
                name = f"{shard.word}/{sample.key}" if shard.word else sample.key
                if name in seen:
                    what = f"was there before, in {str(seen[name])!r}"
                    raise _fault(shard.path, sample.key, what, "A key is one image; " + _LAYOUT)
                seen[name] = shard.path
                rows.ids.append(name)
                rows.words.append(shard.word)
                rows.images.append(reader.image_of(sample, shard.path))
                rows.labels.append(reader.label_of(sample, shard.path, file.fileno()))
                rows.shards.append(place)
    if not rows.ids:
        raise SourceError(f"{str(shards[0].path)!r} and its like hold no image.", hint=_LAYOUT)
    return rows


def _samples(shard: Path) -> Iterator[_Sample]:
    """Yield what belongs together, which lies next to each other."""
    current = _Sample("", {})
    for member in members(shard):
        stem, dot, extension = member.name.rpartition("/")[2].partition(".")
        if not (stem and dot) or _META.match(member.name):
            continue
        key = member.name.removesuffix(dot + extension)
        if key != current.key:
            if current.files:
                yield current
            current = _Sample(key, {})
        if extension.lower() in current.files:
            raise _fault(shard, key, f"has .{extension} twice", _LAYOUT)
        current.files[extension.lower()] = member
    if current.files:
        yield current


def _number(data: bytes) -> int | str:
    text = data.decode("utf-8", "replace").strip()
    return int(text) if _WHOLE.fullmatch(text) else text


def _classes(
    labels: Labels, ids: Sequence[str], path: Path | None
) -> tuple[tuple[str, ...], Labels]:
    """Return the names of the classes, and labels that count in them."""
    if path is None:
        found, places = np.unique(labels, return_inverse=True)
        names = tuple(map(str, found.tolist()))
        return names, places.ravel().astype(np.int64)
    lines = read_lines(path)
    gap = next((i for i, (number, _) in enumerate(lines, start=1) if number != i), None)
    if gap is not None:
        raise SourceError(
            f"{str(path)!r} has an empty line {gap}.",
            hint="Every line names a class, from class 0.",
        )
    wrong = np.flatnonzero(labels >= len(lines))
    if len(wrong):
        raise SourceError(
            f"{ids[wrong[0]]!r} has the label {labels[wrong[0]]}, and {str(path)!r} names "
            f"{len(lines)} classes.",
            hint="The first line is class 0.",
        )
    return tuple(name for _, name in lines), labels


def _fault(shard: Path, key: str, what: str, hint: str) -> SourceError:
    return SourceError(f"The key {key!r} of {str(shard)!r} {what}.", hint=hint)
