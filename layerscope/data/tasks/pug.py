"""PUG: animals and objects before rendered backgrounds, with every factor of the scene in a table.

Layouts and columns are those of the loaders in facebookresearch/PUG; the place of the animals'
images is that of its renderer, ``torchmultiverse/client.py``.

``pug-animals`` holds ``labels_pug_animal.csv`` and ``<character_name>/<filename>``: 70 animals
before 64 backgrounds in 3 sizes, 4 textures and 4 camera angles, in all combinations (215,040
images; the authors warn that 192 goldfish are rendered badly).

``pug-imagenet`` holds ``labels_pug_imagenet.csv`` and images at ``<filename>``: 724 models of 151
of ImageNet's classes (88,328 images). Each model is shown before 64 backgrounds and besides with
one other factor moved at a time. A factor's resting value is that of most images. The question
after a factor is asked of the images in which it is moved, because in all others the answer is the
same; and that after the background, of those in which nothing is moved.

``pug-spar`` holds ``labels.csv`` and images at ``<filename>``: none, one or two of 32 animals
before 10 backgrounds, one on the left and one on the right or one below and one above, in textures
of their own (43,560 images). An animal and its texture are asked for where it is not ``blank``, and
the arrangement where any animal is shown.

No set has an official split for probing, so 60, 20 and 20 % train, validate and test, in the
proportion of the main factor's classes. Images that differ in little but what is asked for would
make it easy, so whole groups are split: in ``pug-animals`` the 48 images of one animal before one
background, in ``pug-spar`` all images of the same animals before the same background, and in
``pug-imagenet`` all images of one model, so that its object is tested on models that were not
trained on. All images are resized whole. The fourth set, AR4T, is left out: only the table of its
test images is documented, with three of its columns.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from layerscope.data.annotations import csv_lines
from layerscope.data.assembly import assemble, require_task_splits
from layerscope.data.class_task import class_task
from layerscope.data.listing import require_folder
from layerscope.data.sources import sources, tasks
from layerscope.data.splits import Labels, Mask, codes, hashed_splits
from layerscope.errors import SourceError
from layerscope.types import Source, Task

ANIMALS, IMAGENET, SPAR = "pug-animals", "pug-imagenet", "pug-spar"
TABLES = {ANIMALS: "labels_pug_animal.csv", IMAGENET: "labels_pug_imagenet.csv", SPAR: "labels.csv"}
"""By source: the table with the factors of its images."""
BLANK = "blank"
"""What PUG: SPAR writes for no animal."""

_TITLES = {ANIMALS: "PUG: Animals", IMAGENET: "PUG: ImageNet", SPAR: "PUG: SPAR"}
_GROUPS = {
    ANIMALS: "images of one animal before one background",
    IMAGENET: "images of one model",
    SPAR: "images of the same animals before one background",
}

Factors = dict[str, list[str]]
"""By column: the value of each image."""


def _factor_task(source: str, word: str, title: str, count: int) -> Task:
    return class_task(
        f"{source}-{word}",
        f"{_TITLES[source]}, {title}",
        f"self-made, as no split is official: 60, 20 and 20 %; {_GROUPS[source]} together",
        source=source,
        class_count=count,
        licence="CC BY-NC 4.0, and not to train generative models",
        citation="Bordes et al. (2023), PUG: Photorealistic and Semantically Controllable "
        "Synthetic Data",
    )


COLUMNS = {
    ANIMALS: {
        "character_name": _factor_task(ANIMALS, "animal", "animal", 70),
        "world_name": _factor_task(ANIMALS, "background", "background", 64),
        "character_scale": _factor_task(ANIMALS, "size", "size", 3),
        "character_texture": _factor_task(ANIMALS, "texture", "texture", 4),
        "camera_yaw": _factor_task(ANIMALS, "camera-yaw", "camera yaw", 4),
    },
    IMAGENET: {
        "character_label": _factor_task(IMAGENET, "object", "object", 151),
        "world_name": _factor_task(IMAGENET, "background", "background", 64),
        "character_rotation_yaw": _factor_task(IMAGENET, "object-yaw", "object yaw", 6),
        "character_rotation_roll": _factor_task(IMAGENET, "object-roll", "object roll", 6),
        "character_rotation_pitch": _factor_task(IMAGENET, "object-pitch", "object pitch", 6),
        "character_scale": _factor_task(IMAGENET, "size", "size", 6),
        "camera_yaw": _factor_task(IMAGENET, "camera-yaw", "camera yaw", 0),
        "camera_roll": _factor_task(IMAGENET, "camera-roll", "camera roll", 6),
        "camera_pitch": _factor_task(IMAGENET, "camera-pitch", "camera pitch", 6),
        "character_texture": _factor_task(IMAGENET, "texture", "texture", 0),
        "scene_light": _factor_task(IMAGENET, "light", "light", 7),
    },
    SPAR: {
        "character_name": _factor_task(SPAR, "animal", "animal on the left or below", 32),
        "character2_name": _factor_task(SPAR, "animal2", "animal on the right or above", 32),
        "world_name": _factor_task(SPAR, "background", "background", 10),
        "character_texture": _factor_task(SPAR, "texture", "texture on the left or below", 3),
        "character2_texture": _factor_task(SPAR, "texture2", "texture on the right or above", 3),
        "character1_pos": _factor_task(SPAR, "arrangement", "arrangement", 2),
    },
}
"""By source and column of its table: the question after that factor, the main one first."""
for _each in COLUMNS.values():
    for _task in _each.values():
        tasks.add(_task.name, _task)

_FIXED = ("character_label", "world_name")
"""The columns of PUG: ImageNet for what every image shows, and what does not move."""


@sources.register(ANIMALS)
def open_pug_animals(root: Path) -> Source:
    """Return the record of PUG: Animals, with rows in the order of its table.

    Raises:
        SourceError: The table is missing or incomplete.
    """
    factors = _factors(root, ANIMALS)
    ids = [
        name if "/" in name else f"{animal}/{name}"
        for animal, name in zip(factors["character_name"], factors["filename"], strict=True)
    ]
    return _source(ANIMALS, root, ids, factors, _pair(factors, "character_name", "world_name"))


@sources.register(IMAGENET)
def open_pug_imagenet(root: Path) -> Source:
    """Return the record of PUG: ImageNet, with rows in the order of its table.

    Raises:
        SourceError: The table is missing or incomplete, or a factor has no resting value.
    """
    factors = _factors(root, IMAGENET, "character_name")
    used = {
        column: _is_moved(root / TABLES[IMAGENET], column, factors[column])
        for column in COLUMNS[IMAGENET]
        if column not in _FIXED
    }
    used["world_name"] = ~np.logical_or.reduce(list(used.values()))
    groups = _pair(factors, "character_label", "character_name")
    return _source(IMAGENET, root, factors["filename"], factors, groups, used)


@sources.register(SPAR)
def open_pug_spar(root: Path) -> Source:
    """Return the record of PUG: SPAR, with rows in the order of its table.

    Raises:
        SourceError: The table is missing or incomplete.
    """
    factors = _factors(root, SPAR)
    first, second = (
        np.array([it != BLANK for it in factors[column]])
        for column in ("character_name", "character2_name")
    )
    used = {
        "character_name": first,
        "character_texture": first,
        "character2_name": second,
        "character2_texture": second,
        "character1_pos": first | second,
    }
    pairs = zip(factors["character_name"], factors["character2_name"], strict=True)
    factors["animals"] = ["+".join(sorted(pair)) for pair in pairs]
    return _source(
        SPAR, root, factors["filename"], factors, _pair(factors, "animals", "world_name"), used
    )


def _source(
    name: str,
    root: Path,
    ids: Sequence[str],
    factors: Factors,
    groups: npt.NDArray[np.str_],
    used: Mapping[str, Mask] | None = None,
) -> Source:
    """Return the record of one of the sets; ``used`` masks columns not asked of every image."""
    everything = np.ones(len(ids), np.bool_)
    masks = {column: (used or {}).get(column, everything) for column in COLUMNS[name]}
    labelled = {column: _label(factors[column], masks[column]) for column in masks}
    main = next(iter(COLUMNS[name]))
    splits = hashed_splits(ids, _label(factors[main], everything).labels, groups)
    parts = {
        task.name: codes(splits, masks[column])
        for column, task in COLUMNS[name].items()
        if not masks[column].all()
    }
    require_task_splits(root / TABLES[name], parts)
    return assemble(
        name,
        root,
        ids,
        splits,
        {
            replace(task, classes=labelled[column].classes): labelled[column].labels
            for column, task in COLUMNS[name].items()
        },
        groups=groups,
        framing="whole",
        task_splits=parts,
    )


class _Labels(NamedTuple):
    classes: tuple[str, ...]
    """Numbers by their size, words by the alphabet."""
    labels: Labels
    """(n,) 0 where nothing is asked."""


def _label(values: Sequence[str], used: Mask) -> _Labels:
    found = {value for value, asked in zip(values, used.tolist(), strict=True) if asked}
    classes = tuple(sorted(found, key=_size if all(map(_is_number, found)) else str))
    places = {value: place for place, value in enumerate(classes)}
    return _Labels(classes, np.array([places.get(value, 0) for value in values], np.int64))


def _size(value: str) -> tuple[float, str]:
    return float(value), value


def _is_number(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True


def _is_moved(table: Path, column: str, values: Sequence[str]) -> Mask:
    """Return the images in which a factor does not rest."""
    ((resting, count),) = Counter(values).most_common(1)
    if 2 * count <= len(values):
        raise SourceError(
            f"{str(table)!r} has no {column} that most images share: {resting!r} is the most "
            f"frequent, in {count:,} of {len(values):,}.",
            hint="In PUG: ImageNet one factor is moved at a time. Give its own table.",
        )
    return np.array([value != resting for value in values])


def _pair(factors: Factors, first: str, second: str) -> npt.NDArray[np.str_]:
    return np.array([f"{a}/{b}" for a, b in zip(factors[first], factors[second], strict=True)])


def _factors(root: Path, name: str, *others: str) -> Factors:
    """Return the columns of a set's table that are asked for, and ``others``."""
    hint = f"It is the folder of {_TITLES[name]}, with {TABLES[name]}, as its archive unpacks it."
    require_folder(root, TABLES[name], hint=hint)
    table = root / TABLES[name]
    wanted = ("filename", *COLUMNS[name], *others)
    factors: Factors = {column: [] for column in wanted}
    lines = csv_lines(table)
    _, header = next(lines, (1, []))
    missing = [it for it in wanted if it not in header]
    if missing:
        raise SourceError(f"{str(table)!r} has no column {missing[0]!r}.", hint=hint)
    for number, cells in lines:
        if len(cells) > len(header):
            raise SourceError(
                f"{str(table)!r}, line {number}, has more values than there are columns.",
                hint="Unpack the table from the archive again.",
            )
        _add(factors, dict(zip(header, cells, strict=False)), table, number)
    if not factors["filename"]:
        raise SourceError(f"{str(table)!r} lists no image.", hint=hint)
    return factors


def _add(factors: Factors, cells: Mapping[str, str], table: Path, line: int) -> None:
    for column, values in factors.items():
        value = cells.get(column)
        if not value:
            raise SourceError(
                f"{str(table)!r}, line {line}, has no {column}.",
                hint="Every image needs all factors; unpack the table from the archive again.",
            )
        values.append(value)
