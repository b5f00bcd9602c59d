"""The splits that a data set brings along: how people spell them, and what becomes of the rest.

Folders, tar shards and saved data sets name their splits alike, and lack the same ones:

* train, val and test are used as they are;
* train and val, without test: val is the test split, as is usual where the labels of the test
  images were never published, and val is carved from train;
* train and test, without val: val is carved from train;
* nothing, or train alone: 60, 20 and 20 % train, validate and test.

What is called otherwise belongs to no split and is left out, and a note says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from layerscope.data.splits import Labels, carve_val, hashed_splits
from layerscope.errors import SourceError
from layerscope.types import SPLITS, Split

SPELLINGS: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
"""By word, in lower case: the split that it names."""

VAL_SHARE = 0.1
"""The share of every class of train that validates where there is no split for it."""

RULE = "as the set names them; without test, val tests; without val, 10 % of train validate"

_HINT = "Splits are called train, val (or validation, valid) and test."


class SplitAssignment(NamedTuple):
    """The splits of all rows, and how they came about."""

    splits: npt.NDArray[np.str_]
    """(n,) ``train``, ``val`` or ``test``."""
    rule: str
    """Where they come from, in one sentence."""
    carved: npt.NDArray[np.bool_]
    """(n,) the rows among which somebody had to choose."""
    notes: tuple[str, ...]
    """The rule again, where it is not the set's own."""


def split_named(word: str) -> Split | None:
    """Return the split that a word names, in any case; None where it names none.

    Examples:
        >>> split_named("Validation"), split_named("extra")
        ('val', None)
    """
    return SPELLINGS.get(word.lower())


def official_splits(words: Iterable[str], root: Path) -> dict[str, Split]:
    """Return the split of every word, such as the name of a folder, that names one.

    Raises:
        SourceError: Two words name the same split.
    """
    named: dict[str, Split] = {}
    for word in words:
        split = split_named(word)
        twin = next((other for other, its in named.items() if its == split), None)
        if split is not None and twin is not None:
            raise SourceError(
                f"{str(root)!r} has two {split} splits: {twin!r} and {word!r}.", hint=_HINT
            )
        if split is not None:
            named[word] = split
    return named


def left_out_note(words: Sequence[str], what: str) -> tuple[str, ...]:
    """Return the note, if any, on what belongs to no split; ``what`` is such as ``folders``."""
    if not words:
        return ()
    more = f" and {len(words) - 3} more" if len(words) > 3 else ""
    names = ", ".join(repr(word) for word in words[:3])
    return (f"these {what} name no split and are left out: {names}{more}",)


def assign_splits(
    parts: npt.NDArray[np.str_] | None,
    names: Sequence[str],
    labels: Labels | None,
    root: Path,
    groups: npt.NDArray[np.str_] | None = None,
) -> SplitAssignment:
    """Return the splits of rows, with those made up that the set does not bring along.

    Args:
        parts: (n,) the split of each row, as the set has it; None where it has none.
        names: (n,) of the rows.
        labels: (n,) classes to stratify by; None for targets that are no classes.
        root: The set, for the message.
        groups: (n,) rows of one group stay together.

    Raises:
        SourceError: The set has other splits, and none to train on.
    """
    brought = set(SPLITS if parts is None else np.unique(parts).tolist())
    if parts is None or brought == {"train"}:
        return _assign_all(parts, names, labels, groups)
    if "train" not in brought:
        raise SourceError(
            f"{str(root)!r} has no train split, only {', '.join(sorted(brought))}.", hint=_HINT
        )
    if brought == set(SPLITS):
        nobody = np.zeros(len(names), np.bool_)
        return SplitAssignment(parts, "train, val and test as the set has them", nobody, ())
    train = parts == "train"
    splits = carve_val(train, names, labels, share=VAL_SHARE, groups=groups)
    tests = "its val split tests" if "val" in brought else "its test split tests"
    rule = f"{tests}; 10 % of train validate, chosen by seed 0"
    return SplitAssignment(splits, rule, train, (rule,))


def _assign_all(
    parts: npt.NDArray[np.str_] | None,
    names: Sequence[str],
    labels: Labels | None,
    groups: npt.NDArray[np.str_] | None,
) -> SplitAssignment:
    why = "it brings no splits" if parts is None else "it brings a train split alone"
    rule = f"{why}: 60, 20 and 20 % train, validate and test, chosen by seed 0"
    splits = hashed_splits(names, labels, groups)
    return SplitAssignment(splits, rule, np.ones(len(names), np.bool_), (rule,))
