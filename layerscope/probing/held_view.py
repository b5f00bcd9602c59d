"""One cut in memory: what every estimator, fold, draw, control and seed of a sweep reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

from layerscope.estimators.streamed_layer import IndexedView, fits_memory
from layerscope.probing.arranged_view import DividedView, Rows, SameView, gathered
from layerscope.stats.moments import BLOCK
from layerscope.types import SPLITS, LayerView, Split


@dataclass(frozen=True, eq=False)
class HeldView(SameView):
    """A view that reads the features of each split once, and hands them out read-only."""

    by_split: dict[Split, npt.NDArray[np.float32]] = field(default_factory=dict)
    """(n, width) features that were asked for."""
    digests: dict[Split, bytes] = field(default_factory=dict)
    """Of the features of a split."""

    def features(self, split: Split) -> npt.NDArray[np.float32]:
        if split not in self.by_split:
            rows = np.asarray(self.view.features(split)).view()
            rows.flags.writeable = False
            self.by_split[split] = rows
        return self.by_split[split]

    def content(self, splits: Sequence[Split]) -> str:
        """Return a digest of the features of some splits, which is that of equal features alone."""
        whole = blake2b(digest_size=16)
        for split in splits:
            if split not in self.digests:
                self.digests[split] = _digest(self.features(split))
            whole.update(self.digests[split])
        return whole.hexdigest()


@dataclass(frozen=True)
class HeldRowsView(DividedView, IndexedView):
    """Other training and validation rows of a held view, which need not be copied all at once."""

    def blocks(self, split: Split, size: int) -> Iterator[npt.NDArray[np.float32]]:
        train, val, test = (self.view.features(part) for part in SPLITS)
        if split == "test":
            yield from (test[start : start + size] for start in range(0, len(test), size))
            return
        rows = self.train if split == "train" else self.val
        for start in range(0, len(rows), size):
            yield gathered(train, val, rows[start : start + size])


def divided(view: LayerView, train: Rows, val: Rows) -> DividedView:
    """Return a view of other training and validation rows, by their places in both together."""
    return (HeldRowsView if isinstance(view, HeldView) else DividedView)(view, train, val)


@contextmanager
def held(view: LayerView) -> Iterator[LayerView]:
    """Give a cut whose features are read once, and let go of them at the end.

    A cut of which half of the memory cannot hold all rows is given as it is.
    """
    if not fits_memory(view):
        yield view
        return
    held_view = HeldView(view)
    try:
        yield held_view
    finally:
        held_view.by_split.clear()  # what remembers the view must not keep its rows


def _digest(rows: npt.NDArray[np.float32]) -> bytes:
    found = blake2b(repr((rows.shape, rows.dtype.str)).encode(), digest_size=16)
    for start in range(0, len(rows), BLOCK):
        found.update(np.ascontiguousarray(rows[start : start + BLOCK]).data)
    return found.digest()
