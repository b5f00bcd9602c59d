"""The manifest: one hash over everything about a source that features and scores depend on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt


def manifest(
    root: Path,
    ids: Sequence[str],
    splits: npt.NDArray[np.str_],
    groups: npt.NDArray[np.str_],
    targets: Mapping[str, npt.NDArray[Any]],
) -> str:
    """Return the sha256 over ids, file sizes, splits, groups and targets, in row order.

    Sizes stand for contents: hashing every pixel would cost as much as extracting. The folder's
    own path does not enter, so a set that was moved keeps its manifest.

    Raises:
        OSError: A file is not there.
    """
    digest = hashlib.sha256()
    for name, split, group in zip(ids, splits, groups, strict=True):
        size = (root / name).stat().st_size
        digest.update(f"{name}\0{size}\0{split}\0{group}\n".encode())
    for task, target in sorted(targets.items()):
        digest.update(f"{task}\0{target.dtype.name}\0{target.shape}\n".encode())
        # One byte order, so that every machine finds the same hash.
        digest.update(target.astype(target.dtype.newbyteorder("<"), order="C").tobytes())
    return digest.hexdigest()
