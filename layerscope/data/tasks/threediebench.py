"""3DIEBench: 52,472 objects of 55 kinds in 50 poses and lights each, with all their latents.

The folder holds ``<synset>/<object>/image_<view>.jpg`` and ``latent_<view>.npy`` for views 0 to 49,
as ``3DIEBench.tar.gz`` unpacks them. What the authors' repository (facebookresearch/SIE) has in its
``data/`` is needed besides: ``train_images.npy`` and ``val_images.npy``, which name the objects as
``/<synset>/<object>/``, and ``train_labels.npy`` and ``val_labels.npy``, which number their
synsets. Those lists hold no latents. The latents are read from ``all_latents_train.npy`` and
``all_latents_val.npy`` (50 rows of 7 for each object, in the order of the lists), which the
repository's README links to, where both are there; otherwise from the 2.6 million ``latent_*.npy``,
which takes minutes. Where the arrays are there, a sample of them is compared with those files.

A latent is seven values: rotations about x, y and z, floor hue, spot θ, spot φ and spot hue. The
questions are those of ``objects3d``. Beware of hues as colours: the authors saved the images with
red and blue exchanged, in all of them alike.

The official validation objects test. 10 % of the training objects validate, in the proportion of
the synsets. ShapeNet files some models under two synsets; a training object whose model also tests
is left out, and a note says how many there are. All images of one model form a group, which is
called by a number.
"""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from layerscope.data.assembly import assemble
from layerscope.data.listing import require_folder
from layerscope.data.sources import sources, tasks
from layerscope.data.splits import Labels, Mask, carve_val
from layerscope.data.tasks import objects3d
from layerscope.errors import SourceError
from layerscope.rendered_set import LATENTS
from layerscope.types import Source, Task

NAME = "3diebench"
VIEWS = 50
VAL_SHARE = 0.1

_FILES = ("train_images", "train_labels", "val_images", "val_labels")
_ARRAYS = ("all_latents_train", "all_latents_val")
_LAYOUT = (
    "It holds <synset>/<object>/image_0.jpg to image_49.jpg and latent_0.npy to latent_49.npy, as "
    "3DIEBench.tar.gz unpacks them."
)
_LISTS = (
    "Copy data/*.npy of facebookresearch/SIE into the folder, or name the folder that they are in: "
    "--data 3diebench=PATH,lists=PATH."
)
_ROUNDING = 1e-6
_SAMPLE = 64
"""Objects of which one view each is compared where the latents come from one array."""
_THREADS = 8

Latents = npt.NDArray[np.float64]


def _own_task(task: Task) -> Task:
    return replace(
        task,
        name=f"{NAME}{task.name.removeprefix(objects3d.NAME)}",
        source=NAME,
        class_count=55 if task.kind == "classes" else 0,
        split="the official validation objects test; 10 % of the training objects validate",
        licence="CC BY-NC 4.0",
        citation="Garrido et al. (2023), Self-Supervised Learning of Split Invariant Equivariant "
        "Representations",
    )


COLUMNS = {_own_task(task): names for task, names in objects3d.COLUMNS.items()}
"""By latent task: the latents that its targets are made of."""
CATEGORY = _own_task(objects3d.CATEGORY)
for _task in (*COLUMNS, CATEGORY):
    tasks.add(_task.name, _task)


@dataclass(frozen=True, slots=True)
class _Objects:
    """One of the official lists, or part of it."""

    folders: tuple[str, ...]
    """``<synset>/<object>`` of each."""
    labels: Labels

    @property
    def models(self) -> list[str]:
        return [it.partition("/")[2] for it in self.folders]

    def select(self, mask: Mask) -> _Objects:
        rows = np.flatnonzero(mask)
        return _Objects(tuple(self.folders[row] for row in rows), self.labels[rows])


@sources.register(NAME)
def open_3diebench(root: Path, *, lists: Path | None = None) -> Source:
    """Return the record of 3DIEBench.

    Rows come in the order of the training list, then of the validation list, by view.

    Args:
        root: The folder with the synsets.
        lists: The folder with ``train_images.npy`` and its like; ``root`` or ``root/data`` by
            default.

    Raises:
        SourceError: A list is missing, or contradicts itself or another; or a latent is missing or
            out of its range.
    """
    require_folder(root, hint=_LAYOUT)
    home = _home(root, lists)
    train, test = (_objects(home, part) for part in ("train", "val"))
    classes = _classes(home, train, test)
    kept = _exclude_tested(home, train, test)
    latents = _latents(root, home, train, test, kept)
    train = train.select(kept)
    both = _Objects((*train.folders, *test.folders), np.r_[train.labels, test.labels])
    of_train = np.arange(len(both.folders)) < len(train.folders)
    models = np.array(both.models)
    splits = carve_val(of_train, both.folders, both.labels, share=VAL_SHARE, groups=models)
    _, numbers = np.unique(models, return_inverse=True)
    left_out = int((~kept).sum())
    note = f"{left_out:,} training objects are left out, because their models also test."
    # Numbers: at 2.6 million rows the models' own names would take half a gigabyte.
    groups = np.array([str(it) for it in numbers.tolist()])
    return assemble(
        NAME,
        root,
        [f"{it}/image_{view}.jpg" for it in both.folders for view in range(VIEWS)],
        np.repeat(splits, VIEWS),
        _targets(latents, np.repeat(both.labels, VIEWS), classes),
        groups=np.repeat(groups, VIEWS),
        notes=[note] if left_out else [],
    )


def _exclude_tested(home: Path, train: _Objects, test: _Objects) -> Mask:
    """Return which training objects are no test objects as well."""
    tested = set(test.models)
    kept = np.array([it not in tested for it in train.models], np.bool_)
    if not kept.any():
        raise SourceError(
            f"Every training object that {str(home)!r} lists is a validation object too.",
            hint=_LISTS,
        )
    return kept


def _targets(
    latents: Latents, labels: Labels, classes: tuple[str, ...]
) -> dict[Task, npt.NDArray[Any]]:
    places = {name: place for place, name in enumerate(LATENTS)}
    targets: dict[Task, npt.NDArray[Any]] = {
        task: latents[:, [places[name] for name in names]] for task, names in COLUMNS.items()
    }
    targets[replace(CATEGORY, classes=classes)] = labels
    return targets


def _home(root: Path, lists: Path | None) -> Path:
    for home in (root, root / "data") if lists is None else (lists,):
        missing = [f"{name}.npy" for name in _FILES if not (home / f"{name}.npy").is_file()]
        if not missing:
            return home
        if len(missing) < len(_FILES) or lists is not None:
            raise SourceError(f"{str(home)!r} has no {' and no '.join(missing)}.", hint=_LISTS)
    raise SourceError(
        f"Neither {str(root)!r} nor its folder data has train_images.npy and the other lists, which"
        " say what trains and what tests; the images and latents do not.",
        hint=_LISTS,
    )


def _array(path: Path, kinds: str, shape: tuple[int | None, ...], what: str) -> npt.NDArray[Any]:
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise SourceError(f"{str(path)!r} is no NumPy array: {error}.", hint=_LISTS) from error
    fits = len(found.shape) == len(shape) and all(
        want in (None, have) for want, have in zip(shape, found.shape, strict=True)
    )
    if found.dtype.kind not in kinds or not fits:
        raise SourceError(
            f"{str(path)!r} holds {found.dtype} of shape {found.shape}, not {what}.", hint=_LISTS
        )
    return found  # type: ignore[no-any-return]


def _objects(home: Path, part: str) -> _Objects:
    path = home / f"{part}_images.npy"
    names = _array(path, "U", (None,), "a list of names").tolist()
    if not names:
        raise SourceError(f"{str(path)!r} lists no object.", hint=_LISTS)
    for name in names:
        if not re.fullmatch(r"/?[^/]+/[^/]+/?", name):
            raise SourceError(
                f"{str(path)!r} has the object {name!r}, not /<synset>/<object>/.", hint=_LISTS
            )
    folders = tuple(name.strip("/") for name in names)
    for name, count in Counter(folders).items():
        if count > 1:
            raise SourceError(f"{str(path)!r} lists {name!r} {count} times.", hint=_LISTS)
    labels = _array(home / f"{part}_labels.npy", "iu", (len(names),), f"{len(names):,} labels")
    return _Objects(folders, np.asarray(labels, np.int64))


def _classes(home: Path, *parts: _Objects) -> tuple[str, ...]:
    """Return the synsets by label; each must have one label, and each label one synset."""
    synset_of: dict[int, str] = {}
    label_of: dict[str, int] = {}
    for objects in parts:
        for folder, label in zip(objects.folders, objects.labels.tolist(), strict=True):
            synset = folder.partition("/")[0]
            known = synset_of.setdefault(label, synset), label_of.setdefault(synset, label)
            if known != (synset, label):
                raise SourceError(
                    f"The lists in {str(home)!r} give {folder!r} the label {label}, but the label "
                    f"{label} is {known[0]!r} and {synset!r} is {known[1]}.",
                    hint=_LISTS,
                )
    return tuple(synset_of.get(label, "") for label in range(max(synset_of, default=-1) + 1))


def _latents(root: Path, home: Path, train: _Objects, test: _Objects, kept: Mask) -> Latents:
    arrays = [home / f"{name}.npy" for name in _ARRAYS]
    folders = (*train.select(kept).folders, *test.folders)
    if all(path.is_file() for path in arrays):
        of_train, of_test = map(partial(_latents_from_array, root), arrays, (train, test))
        latents = np.concatenate([of_train[kept], of_test]).reshape(-1, len(LATENTS))
    else:
        latents = _latents_from_files(root, folders)
    _require_ranges(root, latents, folders)
    return latents


def _latents_from_array(root: Path, path: Path, objects: _Objects) -> Latents:
    """Return the (objects, views, 7) latents."""
    shape = (VIEWS * len(objects.folders), len(LATENTS))
    rows = _array(path, "f", shape, f"{shape[0]:,} rows of {shape[1]} latents")
    by_object = rows.reshape(-1, VIEWS, len(LATENTS))
    _require_order(root, path, objects.folders, by_object)
    return np.asarray(by_object, np.float64)


def _require_order(
    root: Path, path: Path, folders: Sequence[str], by_object: npt.NDArray[Any]
) -> None:
    """Compare some rows of an array with the files beside the images, where those are there."""
    step = -(-len(folders) // _SAMPLE)
    for number, place in enumerate(range(0, len(folders), step)):
        view = number % VIEWS
        file = root / folders[place] / f"latent_{view}.npy"
        if not file.is_file():
            continue
        if not np.allclose(_read_latent(file), by_object[place, view], rtol=0, atol=_ROUNDING):
            row = VIEWS * place + view
            raise SourceError(
                f"{str(path)!r} has other latents in row {row} than {str(file)!r}.",
                hint="The array and the lists must be of the same edition as the images.",
            )


def _latents_from_files(root: Path, folders: Sequence[str]) -> Latents:
    found = np.empty((len(folders), VIEWS, len(LATENTS)))

    def read(place: int) -> None:
        for view in range(VIEWS):
            found[place, view] = _read_latent(root / folders[place] / f"latent_{view}.npy")

    with ThreadPoolExecutor(_THREADS) as pool:
        for _ in pool.map(read, range(len(folders))):
            pass
    return found.reshape(-1, len(LATENTS))


def _read_latent(file: Path) -> Latents:
    try:
        latent = np.load(io.BytesIO(file.read_bytes()), allow_pickle=False)
    except FileNotFoundError:
        raise SourceError(
            f"There is no file {str(file)!r}.",
            hint="Restore it, or put all_latents_train.npy and all_latents_val.npy beside the "
            "lists.",
        ) from None
    except (OSError, ValueError, EOFError) as error:
        raise SourceError(f"{str(file)!r} is no NumPy array: {error}.", hint=_LAYOUT) from error
    if latent.shape != (len(LATENTS),) or latent.dtype.kind != "f":
        raise SourceError(
            f"{str(file)!r} holds {latent.dtype} of shape {latent.shape}, not 7 values.",
            hint=_LAYOUT,
        )
    return np.asarray(latent, np.float64)


def _require_ranges(root: Path, latents: Latents, folders: Sequence[str]) -> None:
    low, high = np.array([span[:2] for span in LATENTS.values()]).T
    inside = (latents >= low - _ROUNDING) & (latents <= high + _ROUNDING)  # False for a NaN too
    if inside.all():
        return
    row, place = np.argwhere(~inside)[0].tolist()
    name = list(LATENTS)[place]
    raise SourceError(
        f"View {row % VIEWS} of {folders[row // VIEWS]!r} in {str(root)!r} has {name} "
        f"{latents[row, place]:.6g}, outside [{low[place]:.6g}, {high[place]:.6g}].",
        hint="Latents are rotations about x, y and z, floor hue, spot θ, spot φ and spot hue.",
    )
