"""Splits that a data set does not bring along: validation rows carved from training rows.

Rows are ordered by a hash of the seed and their name. So a split depends on nothing but the names:
not on the version of a random generator, nor on what order the rows came in; and a row that is
added moves few others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from layerscope.types import SPLITS

Labels = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

TEST_SHARE, VAL_SHARE = 0.2, 0.2
"""Shares of all rows where a data set comes without splits: 60, 20, 20 % (as VTAB's EuroSAT)."""


def hash_order(names: Sequence[str], seed: int) -> npt.NDArray[np.int64]:
    """Return a permutation of names that looks random and is the same everywhere.

    Examples:
        >>> hash_order(["ant", "bee", "cat"], seed=0).tolist()
        [1, 0, 2]
    """
    prefix = hashlib.sha256(f"{seed}:".encode())
    keys = []
    for name in names:
        digest = prefix.copy()
        digest.update(name.encode())
        keys.append(digest.digest()[:8])
    return np.argsort(np.frombuffer(b"".join(keys), ">u8"), kind="stable")


def carve(
    names: Sequence[str],
    labels: Labels | None = None,
    *,
    share: float | None = None,
    per_class: int | None = None,
    groups: npt.NDArray[np.str_] | None = None,
    seed: int = 0,
) -> Mask:
    """Choose rows for validation (or for test), stratified by class and never splitting a group.

    Every class keeps at least one row (or group) that is not chosen, so that it can be learned.

    Args:
        names: (n,) of the rows.
        labels: (n,) classes to stratify by; None for targets that are no classes.
        share: Of the rows (or groups) that are chosen, in the same proportion of every class.
        per_class: How many are chosen of every class, in place of a share.
        groups: (n,) rows of one group stay together; a group belongs to the class of its first row.
        seed: Another seed makes another choice.

    Returns:
        (n,) True for the chosen rows.
    """
    if groups is not None:
        units, first, member = np.unique(groups, return_index=True, return_inverse=True)
        of_units = None if labels is None else labels[first]
        chosen = carve(units.tolist(), of_units, share=share, per_class=per_class, seed=seed)
        return chosen[member.ravel()]
    order = hash_order(names, seed)
    classes = np.zeros(len(names), np.int64) if labels is None else labels
    order = order[np.argsort(classes[order], kind="stable")]
    rank = _rank_within(classes[order])
    if per_class is not None:
        picked = order[(rank >= 1) & (rank <= per_class)]
    else:
        candidates = order[rank >= 1]
        count = min(round((share or 0.0) * len(names)), len(candidates))
        # Evenly spaced along the classes: each gives its share, and rare ones together theirs.
        places = np.floor((np.arange(count) + 0.5) * len(candidates) / max(count, 1))
        picked = candidates[places.astype(np.int64)]
    mask = np.zeros(len(names), np.bool_)
    mask[picked] = True
    return mask


def _rank_within(classes: Labels) -> Labels:
    """Return the position of each row within its run of equal classes."""
    starts = np.flatnonzero(np.r_[True, classes[1:] != classes[:-1]])
    lengths = np.diff(np.r_[starts, len(classes)])
    return np.arange(len(classes)) - np.repeat(starts, lengths)


def with_val(train: Mask, val: Mask) -> npt.NDArray[np.str_]:
    """Return the (n,) splits of rows that train, of which some validate, and test.

    Args:
        train: (n,) rows of the official training split.
        val: (n_train,) which of them validate.
    """
    splits = np.where(train, "train", "test").astype("<U5")
    splits[np.flatnonzero(train)[val]] = "val"
    return splits


def carve_val(
    train: Mask,
    names: Sequence[str],
    labels: Labels | None = None,
    *,
    share: float | None = None,
    per_class: int | None = None,
    groups: npt.NDArray[np.str_] | None = None,
    seed: int = 0,
) -> npt.NDArray[np.str_]:
    """Return the (n,) splits of official training rows, some of which validate, and test rows.

    ``train`` is (n,), True in the official training split. All else is as for :func:`carve`, (n,)
    of all rows, but ``share`` is that of the training rows.
    """
    rows = np.flatnonzero(train)
    val = carve(
        [names[row] for row in rows.tolist()],
        None if labels is None else labels[rows],
        share=share,
        per_class=per_class,
        groups=None if groups is None else groups[rows],
        seed=seed,
    )
    return with_val(train, val)


def hashed_splits(
    names: Sequence[str],
    labels: Labels | None,
    groups: npt.NDArray[np.str_] | None = None,
    seed: int = 0,
) -> npt.NDArray[np.str_]:
    """Return the (n,) splits of rows that come without any: 60, 20 and 20 %."""
    test = carve(names, labels, share=TEST_SHARE, groups=groups, seed=seed)
    share = VAL_SHARE / (1 - TEST_SHARE)
    return carve_val(~test, names, labels, share=share, groups=groups, seed=seed + 1)


def codes(splits: npt.NDArray[np.str_], used: Mask | None = None) -> npt.NDArray[np.int8]:
    """Return the (n,) places in ``SPLITS`` of split names, -1 where ``used`` is False.

    Examples:
        >>> codes(np.array(["test", "train"])).tolist()
        [2, 0]
    """
    places = np.full(len(splits), -1, np.int8)
    for place, split in enumerate(SPLITS):
        places[splits == split] = place
    return places if used is None else np.where(used, places, np.int8(-1))
