"""The manifests: hashes of what features depend on, and of what scores depend on besides."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt


def image_manifest(ids: Sequence[str], sizes: Sequence[int] | npt.NDArray[np.int64]) -> str:
    """Return the sha256 over ids and file sizes, in row order.

    Sizes stand for contents: hashing every pixel would cost as much as extracting. The folder's
    own path does not enter, so a set that was moved keeps its manifest.

    Args:
        ids: (n,) names of the images.
        sizes: (n,) bytes of the image files, -1 for one that is missing.
    """
    digest = hashlib.sha256()
    for name, size in zip(ids, sizes, strict=True):
        digest.update(f"{name}\0{size}\n".encode())
    return digest.hexdigest()


def annotation_manifest(
    splits: npt.NDArray[np.str_],
    groups: npt.NDArray[np.str_],
    targets: Mapping[str, npt.NDArray[Any]],
    task_splits: Mapping[str, npt.NDArray[np.int8]],
) -> str:
    """Return the sha256 over splits, groups and targets, in row order.

    Args:
        splits: (n,)
        groups: (n,)
        targets: By task, (n, …).
        task_splits: By task, (n,).
    """
    digest = hashlib.sha256()
    for split, group in zip(splits.tolist(), groups.tolist(), strict=True):
        digest.update(f"{split}\0{group}\n".encode())
    for kind, arrays in (("target", targets), ("split", task_splits)):
        for task, values in sorted(arrays.items()):
            digest.update(f"{kind} {task}\0{values.dtype.name}\0{values.shape}\n".encode())
            # One byte order, so that every machine finds the same hash.
            digest.update(values.astype(values.dtype.newbyteorder("<"), order="C").tobytes())
    return digest.hexdigest()
