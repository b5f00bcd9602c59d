"""iNaturalist 2018: 8,142 species with a long tail, by the competition's own JSON files.

The folder holds ``train_val2018/<supercategory>/<category>/<image>.jpg`` beside ``train2018.json``
and ``val2018.json``. torchvision's ``INaturalist`` knows the images but not the official split,
which is why the files are read here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from layerscope.data.annotations import entry, read_json
from layerscope.data.assembly import assemble
from layerscope.data.class_task import class_task
from layerscope.data.listing import require_folder
from layerscope.data.sources import sources, tasks
from layerscope.data.splits import carve_val
from layerscope.errors import SourceError
from layerscope.types import Source

TASK = class_task(
    "inat",
    "iNaturalist 2018",
    "val2018.json tests; 10 % of every species of train2018.json validate",
    class_count=8142,
    licence="images under their photographers' licences, for non-commercial research",
    citation="Van Horn et al. (2018), The iNaturalist Species Classification and Detection Dataset",
)
tasks.add(TASK.name, TASK)

TRAIN, TEST = "train2018.json", "val2018.json"
VAL_SHARE = 0.1
_LAYOUT = "It holds train_val2018/, train2018.json and val2018.json, as the competition gave them."


@sources.register(TASK.source)
def open_inat(root: Path) -> Source:
    """Return the record of iNaturalist 2018.

    Rows come in the order of ``train2018.json``, then of ``val2018.json``.

    Raises:
        SourceError: A file is missing, or an annotation is incomplete or contradicts another.
    """
    require_folder(root, TRAIN, TEST, "train_val2018", hint=_LAYOUT)
    contents = read_json(root / TRAIN)
    names = _categories(contents, root / TRAIN)
    train = _labelled(contents, names, root / TRAIN)
    test = _labelled(read_json(root / TEST), names, root / TEST)
    ids = [*train, *test]
    places = {category: place for place, category in enumerate(names)}
    labels = np.array(
        [places[category] for category in (*train.values(), *test.values())], np.int64
    )
    of_train = np.arange(len(labels)) < len(train)
    return assemble(
        TASK.source,
        root,
        ids,
        carve_val(of_train, ids, labels, share=VAL_SHARE),
        {replace(TASK, classes=tuple(names.values())): labels},
    )


def _categories(contents: Any, path: Path) -> dict[int, str]:
    """Return the names of the species by their number, in the order of the numbers."""
    records = _records(contents, "categories", path)
    found = [
        (entry(it, "id", int, path, f"category {i}"), entry(it, "name", str, path, f"category {i}"))
        for i, it in enumerate(records)
    ]
    if len(dict(found)) < len(found):
        raise SourceError(f"{str(path)!r} lists a category twice.", hint=_LAYOUT)
    return dict(sorted(found))


def _labelled(contents: Any, names: Mapping[int, str], path: Path) -> dict[str, int]:
    """Return the category of every image by its file name, in the file's order."""
    categories: dict[int, int] = {}
    for i, it in enumerate(_records(contents, "annotations", path)):
        image = entry(it, "image_id", int, path, f"annotation {i}")
        category = entry(it, "category_id", int, path, f"annotation {i}")
        if category not in names:
            raise SourceError(
                f"{str(path)!r}, annotation {i}, has the category {category}, which is none of the "
                f"{len(names)}.",
                hint=_LAYOUT,
            )
        if categories.setdefault(image, category) != category:
            raise SourceError(
                f"{str(path)!r} gives the image {image} two categories.", hint=_LAYOUT
            )
    found: dict[str, int] = {}
    for i, it in enumerate(_records(contents, "images", path)):
        image = entry(it, "id", int, path, f"image {i}")
        if image not in categories:
            raise SourceError(
                f"{str(path)!r} has no annotation of the image {image}.", hint=_LAYOUT
            )
        name = entry(it, "file_name", str, path, f"image {i}")
        if name in found:
            raise SourceError(f"{str(path)!r} lists the image {name!r} twice.", hint=_LAYOUT)
        found[name] = categories[image]
    return found


def _records(contents: Any, key: str, path: Path) -> Sequence[Any]:
    return entry(contents, key, list, path, "at its top")
