"""A data set of Hugging Face's ``datasets``, as ``save_to_disk`` wrote it.

The folder is that of a ``DatasetDict`` (``dataset_dict.json`` beside a folder for each split) or of
a ``Dataset`` (``dataset_info.json``, ``state.json`` and Arrow files). Nothing is downloaded: fetch
and save what you need once, with ``datasets.load_dataset(…).save_to_disk(folder)``.

Features say what their columns are, so nothing is guessed. Of every set

* the ``Image`` is what the network sees, as the bytes that were saved;
* a ``ClassLabel`` becomes a task of classes;
* a list of ``ClassLabel`` becomes one of any number of labels;
* a ``Value`` that is a floating-point number becomes a latent;
* everything else is left out, and a note says so: ``cast_column`` declares a whole number or a
  text to be a class.

The splits train, validation and test are used as they are; without test it is validation that
tests, and 10 % of train validate; a ``Dataset`` without splits is divided into 60, 20 and 20 %.
Tasks are called like their columns: ``hf-label``.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from layerscope.data.annotations import first_line
from layerscope.data.assembly import assemble
from layerscope.data.decoding import unreadable
from layerscope.data.images import FileImages
from layerscope.data.listing import MISSING, require_folder
from layerscope.data.official import assign_splits, left_out_note, official_splits
from layerscope.data.source_names import own_name, plain
from layerscope.data.sources import sources
from layerscope.data.splits import Labels
from layerscope.errors import SourceError, UnknownNameError
from layerscope.types import SPLITS, Source, Task

NAME = "hf"

_DICT = "dataset_dict.json"
_ALONE = ("dataset_info.json", "state.json")
_SAVE = "Give a folder that Dataset.save_to_disk or DatasetDict.save_to_disk wrote."
_DECLARE = "Cast the column with cast_column, for instance to ClassLabel, and save the set again."
_LISTS = ("List", "LargeList", "Sequence")
"""What ``datasets`` calls features of several values: the last before version 4."""


class _Saved(NamedTuple):
    """What was loaded, split by split in our order."""

    sets: Mapping[str, Any]
    """By name of the split, ``""`` for a set without splits: the ``Dataset``."""
    parts: npt.NDArray[np.str_] | None
    ids: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def features(self) -> Mapping[str, Any]:
        features: Mapping[str, Any] = next(iter(self.sets.values())).features
        return features

    def column(self, name: str) -> Any:
        """Return one column of all splits as an Arrow array in chunks."""
        columns = [one.data.column(name) for one in self.sets.values()]
        chunks = [chunk for column in columns for chunk in column.chunks]
        return import_module("pyarrow").chunked_array(chunks, type=columns[0].type)


@dataclass(frozen=True, slots=True)
class SavedImages:
    """Images in the Arrow files of a saved set, as the files that they were.

    Arrow arrays never change and are mapped into memory, so that threads read them without a lock.

    Args:
        root: The folder; paths of images that were not saved themselves start there.
        data: Arrow arrays, one behind the other: the bytes of each image, or nothing.
        paths: Of the same lengths: where the image is, or what it was called.
        ids: (n,) of the rows in them.
        starts: The row that each array begins with.
        rows: Which rows these are.
    """

    root: Path
    data: Sequence[Any]
    paths: Sequence[Any]
    ids: Sequence[str]
    starts: Sequence[int]
    rows: npt.NDArray[np.int64]

    def read(self, row: int) -> bytes:
        data = self._cell(self.data, row)
        if data.is_valid:
            return bytes(data.as_py())
        path = self.path(row)
        if path is None:
            raise unreadable(self.place(row), "the row has no image")
        return FileImages(self.root, [path]).read(0)

    def place(self, row: int) -> str:
        return f"{self.root}, {self.ids[int(self.rows[row])]}"

    def select(self, rows: npt.NDArray[np.int64]) -> SavedImages:
        return replace(self, rows=self.rows[rows])

    def path(self, row: int) -> str | None:
        """Return where an image is that was not saved itself; None for others."""
        if self._cell(self.data, row).is_valid:
            return None
        path: str | None = self._cell(self.paths, row).as_py()
        return path

    def _cell(self, arrays: Sequence[Any], row: int) -> Any:
        place = int(self.rows[row])
        # Bisected, because a set may have thousands of arrays.
        part = bisect_right(self.starts, place) - 1
        return arrays[part][place - self.starts[part]]


@sources.register(NAME)
def open_hf(root: Path, *, image: str | None = None, name: str | None = None) -> Source:
    """Return the record of a saved data set.

    Rows come as train, validation and test, and in each in the set's own order.

    Args:
        root: The folder that ``save_to_disk`` wrote.
        image: The column with the images, where there are several.
        name: What to call the source and its tasks (``<name>-<column>``), so that several data
            sets can be told apart.

    Raises:
        SourceError: ``datasets`` is not installed, the folder is none of its, or a label is
            missing or out of range.
        UnknownNameError: There is no column of images of that name.
    """
    called = own_name(name, NAME)
    saved = _load(root)
    shown = _image_column(saved.features, image, root)
    tasks = _tasks(saved.features, called, root)
    targets = {
        task: _TARGETS[task.kind](saved.column(column), task, saved.ids, column)
        for column, task in tasks.items()
    }
    classes = next((it for task, it in targets.items() if task.kind == "classes"), None)
    assignment = assign_splits(saved.parts, saved.ids, classes, root)
    images, sizes = _images(root, saved, shown)
    unused = [column for column in saved.features if column != shown and column not in tasks]
    source = assemble(
        called,
        root,
        saved.ids,
        assignment.splits,
        {replace(task, split=assignment.rule): target for task, target in targets.items()},
        sizes=sizes,
        images=images,
        notes=(*assignment.notes, *saved.notes, *_unused_note(saved.features, unused)),
    )
    return replace(source, missing=_missing(images, sizes))


def _load(root: Path) -> _Saved:
    require_folder(root, hint=_SAVE)
    alone = all((root / file).is_file() for file in _ALONE)
    if not alone and not (root / _DICT).is_file():
        raise SourceError(f"The folder {str(root)!r} holds no saved data set.", hint=_SAVE)
    library = _library()
    try:
        found = library.load_from_disk(str(root))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SourceError(
            f"The data set in {str(root)!r} cannot be loaded: {first_line(error)}.",
            hint="Save it again; a folder may have been copied in part.",
        ) from error
    if alone:
        return _Saved({"": found}, None, tuple(map(str, range(len(found)))), ())
    return _join_splits(root, found)


def _library() -> ModuleType:
    try:
        return import_module("datasets")
    except ModuleNotFoundError as error:
        raise SourceError(
            f"A saved data set needs the Python package {error.name}, which is not installed.",
            hint='Install it with: pip install "layerscope[hf]"',
        ) from error


def _join_splits(root: Path, found: Mapping[str, Any]) -> _Saved:
    named = official_splits(found, root)
    if not named:
        raise SourceError(
            f"{str(root)!r} has the splits {', '.join(map(repr, found))}, and none of them is "
            "train, validation or test.",
            hint="Rename them, or save the one that you mean by itself.",
        )
    words = sorted(named, key=lambda word: SPLITS.index(named[word]))
    first, *others = words
    for word in others:
        _require_alike(root, {it: found[it].features for it in (first, word)})
    parts = np.repeat([named[word] for word in words], [len(found[word]) for word in words])
    ids = tuple(f"{word}/{row}" for word in words for row in range(len(found[word])))
    notes = left_out_note([word for word in found if word not in named], "splits")
    return _Saved({word: found[word] for word in words}, parts, ids, notes)


def _require_alike(root: Path, features: Mapping[str, Mapping[str, Any]]) -> None:
    (one, first), (other, second) = features.items()
    for column in {**first, **second}:
        if first.get(column) != second.get(column):
            raise SourceError(
                f"The column {column!r} of {str(root)!r} is declared otherwise in {one!r} than in "
                f"{other!r}.",
                hint="Cast both to the same features and save the set again.",
            )


def _image_column(features: Mapping[str, Any], asked: str | None, root: Path) -> str:
    columns = [name for name, feature in features.items() if type(feature).__name__ == "Image"]
    if asked is not None:
        if asked not in columns:
            raise UnknownNameError("column of images", asked, columns)
        return asked
    if len(columns) != 1:
        what = f"several columns of images: {', '.join(columns)}" if columns else "no Image column"
        hint = f"Say which with image={columns[0]}." if columns else _DECLARE
        raise SourceError(f"The data set in {str(root)!r} has {what}.", hint=hint)
    return columns[0]


def _tasks(features: Mapping[str, Any], source: str, root: Path) -> dict[str, Task]:
    """Return the tasks by the column that answers them."""
    found: dict[str, Task] = {}
    for column, feature in features.items():
        task = _task(feature, f"{source}-{plain(column)}", source, column)
        twin = next((it for it, other in found.items() if task and other.name == task.name), None)
        if task is not None and twin is not None:
            raise SourceError(
                f"The columns {twin!r} and {column!r} of {str(root)!r} would both be {task.name}.",
                hint="Rename one with rename_column and save the set again.",
            )
        if task is not None:
            found[column] = task
    if not found:
        raise SourceError(
            f"The data set in {str(root)!r} declares no labels: {_describe(features, features)}.",
            hint=_DECLARE,
        )
    return found


def _task(feature: Any, name: str, source: str, column: str) -> Task | None:
    kind = type(feature).__name__
    if kind == "ClassLabel" and len(feature.names) > 1:
        names = tuple(feature.names)
        return Task(name, source, "classes", "top-1", "maximise", column, classes=names)
    if kind in _LISTS and type(feature.feature).__name__ == "ClassLabel":
        names = tuple(feature.feature.names)
        return Task(name, source, "multilabel", "mse", "minimise", column, classes=names)
    if kind == "Value" and feature.dtype in ("float16", "float32", "float64"):
        return Task(name, source, "latents", "mse", "minimise", column, encoding="raw")
    return None


def _unused_note(features: Mapping[str, Any], columns: Sequence[str]) -> tuple[str, ...]:
    if not columns:
        return ()
    return (f"columns that declare no label are left out: {_describe(features, columns)}",)


def _describe(features: Mapping[str, Any], columns: Sequence[str] | Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name!r} ({getattr(features[name], 'dtype', None) or type(features[name]).__name__})"
        for name in columns
    )


def _images(root: Path, saved: _Saved, column: str) -> tuple[SavedImages, npt.NDArray[np.int64]]:
    """Return what reads the images, and their sizes."""
    compute = import_module("pyarrow.compute")
    chunks = [chunk for chunk in saved.column(column).chunks if len(chunk)]
    data = [compute.struct_field(chunk, "bytes") for chunk in chunks]
    paths = [compute.struct_field(chunk, "path") for chunk in chunks]
    starts = np.cumsum([0, *map(len, chunks)])[:-1].tolist()
    images = SavedImages(root, data, paths, saved.ids, starts, np.arange(len(saved.ids)))
    lengths = [compute.binary_length(it).fill_null(MISSING).to_numpy() for it in data]
    sizes = np.concatenate([np.zeros(0, np.int64), *lengths]).astype(np.int64)
    for row in np.flatnonzero(sizes < 0).tolist():
        if path := images.path(row):
            file = root / path
            sizes[row] = file.stat().st_size if file.is_file() else MISSING
    return images, sizes


def _missing(images: SavedImages, sizes: npt.NDArray[np.int64]) -> dict[int, str]:
    gone = {}
    for row in np.flatnonzero(sizes <= 0).tolist():
        path = images.path(row)
        there = f"the file {path!r} is not there" if path else "the row has no image"
        gone[row] = there if sizes[row] == MISSING else "the file is empty"
    return gone


def _require_values(column: Any, ids: Sequence[str], name: str) -> None:
    if column.null_count:
        row = int(np.flatnonzero(column.is_null().to_numpy())[0])
        raise SourceError(
            f"The row {ids[row]} has no value in {name!r}.",
            hint="Fill the column in, or take it away with remove_columns, and save the set again.",
        )


def _require_known(
    labels: Labels, rows: npt.NDArray[np.int64], task: Task, ids: Sequence[str]
) -> None:
    wrong = np.flatnonzero((labels < 0) | (labels >= len(task.classes)))
    if len(wrong):
        raise SourceError(
            f"The row {ids[rows[wrong[0]]]} has the label {labels[wrong[0]]} in {task.title!r}, "
            f"which is none of {len(task.classes)} classes.",
            hint="Labels of -1 were never published: take the split away and save the set again.",
        )


def _classes(column: Any, task: Task, ids: Sequence[str], name: str) -> Labels:
    _require_values(column, ids, name)
    labels: Labels = column.to_numpy().astype(np.int64)
    _require_known(labels, np.arange(len(ids)), task, ids)
    return labels


def _labels(column: Any, task: Task, ids: Sequence[str], name: str) -> Labels:
    _require_values(column, ids, name)
    compute = import_module("pyarrow.compute")
    rows = np.repeat(np.arange(len(ids)), compute.list_value_length(column).to_numpy())
    listed = compute.list_flatten(column)
    _require_values(listed, [ids[row] for row in rows.tolist()], name)
    labels = listed.to_numpy().astype(np.int64)
    _require_known(labels, rows, task, ids)
    target = np.zeros((len(ids), len(task.classes)), np.int64)
    target[rows, labels] = 1
    return target


def _latents(column: Any, task: Task, ids: Sequence[str], name: str) -> npt.NDArray[np.float64]:
    _require_values(column, ids, name)
    values: npt.NDArray[np.float64] = column.to_numpy().astype(np.float64)
    return values[:, None]


_TARGETS: dict[str, Callable[..., npt.NDArray[Any]]] = {
    "classes": _classes,
    "multilabel": _labels,
    "latents": _latents,
}
