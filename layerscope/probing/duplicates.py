"""Rows that two splits share: the same features in both, by their content.

An image that trains a probe and is asked of it again measures memory. No permutation of labels
shows that, since it takes the labels of both copies away; equal features do. Copies that were
resized or encoded anew have other features and are not found. Nor is, at a deep cut, a copy whose
batch was so much smaller that sums were taken in another order; at early cuts that made no
difference.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import blake2b
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from layerscope.estimators.streamed_layer import BlockView
from layerscope.results.shared_rows import LISTED, SharedRows
from layerscope.stats.moments import BLOCK
from layerscope.types import FeatureCache, LayerView, Split

PAIRS: tuple[tuple[Split, Split], ...] = (("test", "train"), ("test", "val"), ("val", "train"))
"""Which rows are looked for, and among which."""
_BYTES = 16


@runtime_checkable
class NamedView(Protocol):
    """A view whose rows have ids."""

    def ids(self, split: Split) -> npt.NDArray[np.str_]:
        """(n,) id of each row of one split."""
        ...


def find_shared_rows(cache: FeatureCache) -> list[SharedRows]:
    """Return which rows two splits share, under the splits that the cache's tasks have.

    Features are compared at one cut, the first of those at which most test rows differ: where a
    layer is dead, or many of its rows are zero, all images are alike.

    Args:
        cache: A complete cache.

    Returns:
        One record for two splits that share rows; empty where none do.
    """
    owners = [it.name if it.name in cache.own_splits else None for it in cache.tasks] or [None]
    return [found for owner in dict.fromkeys(owners) for found in _shared(cache, owner)]


def _shared(cache: FeatureCache, owner: str | None) -> Iterator[SharedRows]:
    view, test = _most_distinct(cache, owner)
    if len(set(test)) == 1 < len(test):
        return  # no layer tells any two images apart
    digests: dict[Split, list[bytes]] = {
        "train": _digests(view, "train"),
        "val": _digests(view, "val"),
        "test": test,
    }
    for split, within in PAIRS:
        rows = _matches(digests[split], digests[within])
        if rows:
            yield SharedRows(
                checkpoint=cache.checkpoint,
                source=cache.source,
                task=owner or "",
                cut=view.cut.key,
                split=split,
                within=within,
                count=len(rows),
                rows=len(digests[split]),
                ids=_ids(view, split, within, rows[:LISTED]),
            )


def _most_distinct(cache: FeatureCache, owner: str | None) -> tuple[LayerView, list[bytes]]:
    """Return the cut that tells most test rows apart, and their digests there."""
    best: tuple[LayerView, list[bytes]] | None = None
    for cut in cache.cuts:
        view = cache.view(cut.name, cut.pooling, owner)
        digests = _digests(view, "test")
        if best is None or len(set(digests)) > len(set(best[1])):
            best = view, digests
        if len(set(digests)) == len(digests):
            break
    assert best is not None  # a cache has cuts
    return best


def _digests(view: LayerView, split: Split) -> list[bytes]:
    """Return the content of each row of a split, as a hash that no two others have by chance."""
    found: list[bytes] = []
    for block in _blocks(view, split):
        # Zero has a sign, of which no probe learns anything.
        rows = np.ascontiguousarray(block, dtype=np.float32) + np.float32(0)
        found += [blake2b(row, digest_size=_BYTES).digest() for row in rows]
    return found


def _blocks(view: LayerView, split: Split) -> Iterator[npt.NDArray[np.float32]]:
    if isinstance(view, BlockView):
        yield from view.blocks(split, BLOCK)
    else:
        yield np.asarray(view.features(split))


def _matches(of: Sequence[bytes], within: Sequence[bytes]) -> list[tuple[int, int]]:
    """Return the rows that have a match, each with the first one that it matches."""
    first = {digest: row for row, digest in reversed(list(enumerate(within)))}
    return [(row, first[digest]) for row, digest in enumerate(of) if digest in first]


def _ids(
    view: LayerView, split: Split, within: Split, rows: Sequence[tuple[int, int]]
) -> tuple[tuple[str, str], ...]:
    mine, others = _names(view, split), _names(view, within)
    return tuple((str(mine[row]), str(others[other])) for row, other in rows)


def _names(view: LayerView, split: Split) -> Sequence[str] | npt.NDArray[np.str_]:
    if isinstance(view, NamedView):
        return view.ids(split)
    return [f"{split} row {row}" for row in range(len(view.instances(split)))]
