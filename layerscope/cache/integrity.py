"""Integrity: is every byte of a cache the one that was written, and what can be saved if not?"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt

from layerscope.cache.cache_file import UNREADABLE, CacheFile, inspect_file
from layerscope.cache.checksum import checksums
from layerscope.cache.hdf5_offsets import Rows, extent_of, runs
from layerscope.cache.label import (
    STRUCTURE,
    has_label,
    mend_label,
    open_file,
    seal_in,
    seal_of,
    wrong_with,
)
from layerscope.cache.layout import (
    CHECKSUMS,
    LABEL,
    OLDER,
    PART,
    ROW_INDEX,
    ROW_STATE,
    ROW_VALID,
    SYNCED,
    checksums_of,
    features_of,
    is_shard,
    part_of,
    shards_of,
    whole_of,
)
from layerscope.cache.lock import Lock, require_unlocked
from layerscope.cache.part import CHECKED, PartFile, read_rows, storage_in, sync_folder
from layerscope.cache.shards import shard_name
from layerscope.cache.storage import decoded
from layerscope.errors import CacheError

Progress = Callable[..., None]

_OF_FEATURES = (STRUCTURE, ROW_INDEX)
"""Without these nobody knows what the features are of; of a shard, nothing else is used."""


@dataclass(frozen=True, slots=True)
class FileCheck:
    """What is wrong with one file of a cache."""

    path: Path
    rows: int = 0
    """Rows that were checked."""
    header: tuple[str, ...] = ()
    """Datasets and attributes that differ from their digests, ``seal`` if that does not fit."""
    damaged: Mapping[str, Rows] = field(default_factory=dict)
    """By cut and pooling, or dataset: rows of the source that are not what was written."""
    unreadable: str = ""
    """Why HDF5 cannot read it at all."""

    @property
    def lost(self) -> Rows:
        """(n,) rows of the source that have to be computed again."""
        return np.unique(np.concatenate([np.empty(0, np.int64), *self.damaged.values()]))

    @property
    def findings(self) -> tuple[str, ...]:
        """What is wrong, a sentence each."""
        if self.unreadable:
            return (self.unreadable,)
        wrong = [f"{name} is not what was written" for name in self.header]
        return (*wrong, *(f"{key}: {_describe_rows(rows)}" for key, rows in self.damaged.items()))

    @property
    def keeps_features(self) -> bool:
        """Whether what it says of its features can be trusted."""
        return not self.unreadable and not set(self.header) & set(_OF_FEATURES)


@dataclass(frozen=True, slots=True)
class CacheCheck:
    """What is wrong with a cache, in the file itself and in each of its shards."""

    path: Path
    files: tuple[FileCheck, ...]

    @property
    def sound(self) -> bool:
        """Whether every byte that matters is the one that was written."""
        return not any(file.findings for file in self.files)

    @property
    def rows(self) -> int:
        """Rows that were checked, whose features lie in the shards where there are any."""
        return sum(file.rows for file in self.files[1:] or self.files)


def check_cache(path: Path, progress: Progress = lambda rows, note="": None) -> CacheCheck:
    """Compare every row, target and attribute of a cache with its checksum or digest.

    Args:
        path: A cache, whole or in the making (``….h5.part``), or a shard.
        progress: Called with the number of rows that were checked.

    Raises:
        CacheError: There is no such file, or it is being written.
    """
    if not path.is_file():
        raise CacheError(f"There is no cache {str(path)!r}.", hint="Give the path of a .h5 file.")
    require_unlocked(whole_of(path))
    head = _check_file(path, progress, is_shard(path))
    shards = inspect_file(path).shards if head.keeps_features else ()
    checked = [_check_file(path.parent / shard, progress, shard=True) for shard in shards]
    return CacheCheck(path, (head, *checked))


def count_rows(path: Path) -> int:
    """Return how many rows a check of a cache goes through, as far as can be told."""
    with suppress(CacheError):
        return int(inspect_file(path).done.sum())
    return 0


def repair(check: CacheCheck) -> int:
    """Drop what is broken, so that extraction computes it again and nothing else.

    Rows that are damaged count as missing; damaged targets are written anew from the source; a
    file that does not say what its features are is set aside as ``….damaged``. The cache is a part
    afterwards, until the command that made it has been repeated.

    Args:
        check: From :func:`check_cache`.

    Returns:
        How many rows are to be computed again; of files that cannot be read, none are counted.

    Raises:
        CacheError: Another process writes the cache.
        OSError: The disk could not take it.
    """
    if is_shard(check.path):
        raise CacheError(
            f"{str(check.path)!r} is a shard of a cache.",
            hint="Give the cache itself, beside the folder of shards.",
        )
    path = check.path if not check.path.name.endswith(PART) else whole_of(check.path)
    head, *shards = check.files
    with Lock(path):
        lost = sum(_repair_file(path, file) for file in shards if file.findings)
        if shards:
            head.path.unlink(missing_ok=True)  # extraction writes it from the shards
        else:
            lost += _repair_file(path, head)
        sync_folder(path.parent)
    return lost


def _repair_file(path: Path, file: FileCheck) -> int:
    if not file.path.exists():
        return 0
    if not file.keeps_features:
        file.path.replace(file.path.with_name(file.path.name + ".damaged"))
        return 0
    target = _as_part(path, file)
    if LABEL in file.header:
        mend_label(file.path)
    part = PartFile(file.path)
    part.forget(np.searchsorted(part.index, file.lost))
    part.unseal()
    part.close()
    if target != file.path:
        target.parent.mkdir(exist_ok=True)
        file.path.replace(target)
    return len(file.lost)


def _as_part(path: Path, file: FileCheck) -> Path:
    """Return the name of a file that is to be gone on with."""
    if file.path.name.endswith(PART):
        return file.path
    wrong_annotations = set(file.header) - {"seal", LABEL}
    if file.path.parent == shards_of(path) or not wrong_annotations:
        return part_of(file.path)
    # Its features become a shard, and what is known about the images is written above them.
    return part_of(shard_name(path, inspect_file(file.path).index))


def _check_file(path: Path, progress: Progress, shard: bool) -> FileCheck:
    if not path.is_file():
        return FileCheck(path, unreadable="the file is gone")
    try:
        if has_label(path):
            return _checked(path, progress, shard)
        with h5py.File(path, "r") as file:
            schema = file.attrs.get("schema")
        older = f"it has the older schema {schema!r}" if schema in OLDER else ""
        return FileCheck(path, unreadable=older or "it is no cache of this format")
    except (*UNREADABLE, CacheError) as error:
        return FileCheck(path, unreadable=f"it cannot be read: {error}")


def _checked(path: Path, progress: Progress, shard: bool) -> FileCheck:
    wrong = list(wrong_with(path, _OF_FEATURES if shard else None))
    if STRUCTURE in wrong:
        return FileCheck(path, header=tuple(wrong))  # not to be given to HDF5
    whole = not path.name.endswith(PART)
    if whole and seal_in(path) != seal_of(path) and not shard:
        wrong.append("seal")
    found = inspect_file(path)
    with open_file(path) as file, path.open("rb") as opened:
        rows = _damaged_rows(file, opened.fileno(), found, whole, progress)
    if rows and "seal" in wrong:
        wrong.remove("seal")  # of course it does not fit
    return FileCheck(path, int(found.done.sum()), tuple(wrong), rows)


def _damaged_rows(
    file: h5py.File, handle: int, found: CacheFile, whole: bool, progress: Progress
) -> dict[str, Rows]:
    place = extent_of(file, ROW_VALID)
    # As bytes: HDF5 would take anything but 0 for True.
    valid = read_rows(handle, replace(place, dtype=np.dtype(np.uint8)), 0, place.count)
    rows: dict[str, list[Rows]] = {}
    if whole and not found.is_shard:
        rows[ROW_STATE] = [np.flatnonzero(file[ROW_STATE][()] != SYNCED)]
    if found.shards:
        rows |= _differ_from_shards(file, found)
    else:
        for _, first, count in runs(np.flatnonzero(found.done), CHECKED):
            for key, wrong in _wrong(file, handle, first, valid[first : first + count]).items():
                rows.setdefault(key, []).append(first + np.flatnonzero(wrong))
            progress(count)
    together = {key: np.concatenate(parts) for key, parts in rows.items()}
    return {key: found.index[places] for key, places in together.items() if len(places)}


def _wrong(
    file: h5py.File, handle: int, start: int, valid: npt.NDArray[np.uint8]
) -> dict[str, npt.NDArray[np.bool_]]:
    wrong = {}
    for key, stored in storage_in(file).items():
        raw = read_rows(handle, extent_of(file, features_of(key)), start, len(valid))
        known = read_rows(handle, extent_of(file, checksums_of(key)), start, len(valid))
        # An image that could not be read has no feature, and every other has all of them.
        finite = np.isfinite(decoded(raw, stored.type))
        fits = np.where(valid == 1, finite.all(1), (valid == 0) & ~finite.any(1))
        wrong[key] = (checksums(raw) != known) | ~fits
    return wrong


def _differ_from_shards(file: h5py.File, found: CacheFile) -> dict[str, list[Rows]]:
    """Return the rows whose checksums are others than in the shards, by cut and pooling."""
    rows: dict[str, list[Rows]] = {}
    for record in json.loads(file.attrs["shards"]):
        path = found.path.parent / record["file"]
        with suppress(*UNREADABLE, CacheError), open_file(path) as shard:
            for key in file[CHECKSUMS]:
                here, there = file[CHECKSUMS][key][()], shard[CHECKSUMS][key][()]
                for first, place, count in record["runs"]:
                    other = here[first : first + count] != there[place : place + count]
                    rows.setdefault(key, []).append(first + np.flatnonzero(other))
    return rows


def _describe_rows(rows: Rows) -> str:
    """Return the rows as a person reads them, the first few of many."""
    stretches = [f"{a}" if n == 1 else f"{a} to {a + n - 1}" for _, a, n in runs(rows)]
    more = f" and {len(stretches) - 5} more stretches" if len(stretches) > 5 else ""
    count = "1 row is" if len(rows) == 1 else f"{len(rows)} rows are"
    return f"{count} not what was written ({', '.join(stretches[:5])}{more})"
