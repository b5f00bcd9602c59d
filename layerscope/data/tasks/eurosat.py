"""EuroSAT: satellite images of ten kinds of land use, 27,000 patches of 64×64 pixels in colour.

The folder ``2750`` holds ``<Class>/<Class>_<number>.jpg``, numbered from 1 in each class, as
``EuroSAT.zip`` unpacks it; torchvision keeps it at ``eurosat/2750``.

No split is official. VTAB (Zhai et al. 2019) trains on 60 %, validates on 20 % and tests on 20 %,
and so does this one, in the proportion of the classes: 16,200, 5,400 and 5,400 images. Which they
are is published: ``eurosat.json``, beside this module, lists the numbers that validate and test,
and all others train. As in VTAB, images are resized whole.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from layerscope.data.annotations import read_json
from layerscope.data.assembly import assemble
from layerscope.data.class_task import class_task
from layerscope.data.listing import MISSING, image_files, require_folder
from layerscope.data.sources import sources, tasks
from layerscope.data.splits import Labels, hashed_splits
from layerscope.errors import SourceError
from layerscope.types import Source

SIZES = {
    "AnnualCrop": 3000,
    "Forest": 3000,
    "HerbaceousVegetation": 3000,
    "Highway": 2500,
    "Industrial": 2500,
    "Pasture": 2000,
    "PermanentCrop": 2500,
    "Residential": 3000,
    "River": 2500,
    "SeaLake": 3000,
}
"""By class: how many images the official archive has of it."""

TASK = class_task(
    "eurosat",
    "EuroSAT",
    "self-made, as no split is official: 60, 20 and 20 % of every class, published as eurosat.json",
    classes=tuple(SIZES),
    licence="MIT",
    citation="Helber et al. (2019), EuroSAT: A Novel Dataset and Deep Learning Benchmark",
)
tasks.add(TASK.name, TASK)

SPLIT = Path(__file__).with_name("eurosat.json")
SEED = 0
FOLDER = "2750"
_LAYOUT = "It holds 2750/<Class>/<Class>_<number>.jpg for ten classes, as EuroSAT.zip unpacks them."


@sources.register(TASK.source)
def open_eurosat(root: Path) -> Source:
    """Return the record of EuroSAT.

    Rows are the 27,000 official images, by class and number; ids are relative to ``2750``.

    Raises:
        SourceError: A class is missing, or an image is none of the official ones.
    """
    home = _home(root)
    found = {it.path: it.size for it in image_files(home)}
    names = official_names()
    _require_known(home, found, names)
    return assemble(
        TASK.source,
        home,
        names,
        _splits(names),
        {TASK: _labels()},
        sizes=[found.get(name, MISSING) for name in names],
        framing="whole",
    )


def official_names() -> list[str]:
    """Return the 27,000 paths of the official images, relative to ``2750``.

    Examples:
        >>> official_names()[3000]
        'Forest/Forest_1.jpg'
    """
    return [_name(it, number) for it, size in SIZES.items() for number in range(1, size + 1)]


def split_text() -> str:
    """Return the text of ``eurosat.json``: a line for the numbers of each class in each split."""
    names = official_names()
    splits = hashed_splits(names, _labels(), seed=SEED)
    chosen: dict[str, dict[str, list[int]]] = {"val": {}, "test": {}}
    for name, split in zip(names, splits.tolist(), strict=True):
        if split in chosen:
            folder, _, number = name.removesuffix(".jpg").rpartition("_")
            chosen[split].setdefault(folder.partition("/")[0], []).append(int(number))
    parts = [f'"seed": {SEED}']
    for split, numbers in chosen.items():
        lines = [
            f'"{it}": {json.dumps(of_it, separators=(",", ":"))}' for it, of_it in numbers.items()
        ]
        parts.append(f'"{split}": {{\n' + ",\n".join(lines) + "\n}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def _name(folder: str, number: int) -> str:
    return f"{folder}/{folder}_{number}.jpg"


def _labels() -> Labels:
    return np.repeat(np.arange(len(SIZES)), list(SIZES.values()))


def _home(root: Path) -> Path:
    require_folder(root, hint=_LAYOUT)
    for home in (root / FOLDER, root / "eurosat" / FOLDER, root):
        if home.is_dir() and any((home / folder).is_dir() for folder in SIZES):
            require_folder(home, *SIZES, hint=_LAYOUT)
            return home
    raise SourceError(f"{str(root)!r} holds no class of EuroSAT.", hint=_LAYOUT)


def _require_known(home: Path, found: Mapping[str, int], names: list[str]) -> None:
    unknown = sorted(set(found).difference(names))
    if unknown:
        raise SourceError(
            f"{unknown[0]!r} in {str(home)!r} is none of EuroSAT's {len(names):,} images.",
            hint="The published split does not say where it belongs; remove it, or open the "
            "folder as a set of your own.",
        )


def _splits(names: list[str]) -> npt.NDArray[np.str_]:
    listed = read_json(SPLIT)
    chosen = {
        _name(folder, number): split
        for split in ("val", "test")
        for folder, numbers in listed[split].items()
        for number in numbers
    }
    return np.array([chosen.get(name, "train") for name in names])
