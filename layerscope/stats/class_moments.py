"""Running moments by class: counts, means and within-class scatter of rows that come with labels.

Products are made and accumulated in float64, block by block; every block is shifted by its own mean
first, so that a large common offset costs no digits. Classes are merged one by one by the pairwise
update of Chan, Golub and LeVeque (1983), eq. 2.1. The pooled scatter is the sum of that update over
the classes, and so needs no scatter of any one of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from layerscope.errors import EstimatorError
from layerscope.stats.moments import BLOCK, Moments, State


@dataclass(frozen=True, slots=True)
class ClassMoments:
    """First and second moments of the features of C classes, some of which may be empty."""

    counts: Tensor
    """(C,) int64, the number of rows n_c of each class."""
    means: Tensor
    """(C, d) float64; 0 for an empty class."""
    within: Tensor
    """(d, d) float64, the sum over rows of (x − mean of its class)(x − mean of its class)ᵀ."""
    scatters: Tensor | None
    """(C, d, d) float64, the part of each class in ``within``; None where they were not kept."""

    @property
    def between(self) -> Tensor:
        """(d, d) the sum over classes of n_c (mean of the class − mean)(mean of the class − mean)ᵀ.

        Within and between add up to the scatter of all rows (Fukunaga 1990, "Introduction to
        Statistical Pattern Recognition", section 10.2).
        """
        offsets = self.means - self._mean
        return (offsets.T * self.counts) @ offsets

    @property
    def total(self) -> Moments:
        """The moments of all rows that have a class."""
        return Moments(
            count=int(self.counts.sum()),
            mean=self._mean,
            scatter=self.within + self.between,
            precision=torch.finfo(torch.float64).eps,
        )

    @property
    def second_moments(self) -> Tensor:
        """(C, d, d) the sum over each class's rows of x xᵀ, not centred and not divided by n_c.

        Raises:
            EstimatorError: The scatters of single classes were not kept.
        """
        if self.scatters is None:
            raise EstimatorError(
                "Second moments of single classes are asked for, and only their sum was kept.",
                hint="Collect the statistics again, with the scatter of every class.",
            )
        raised = self.means * self.counts[:, None]
        return torch.baddbmm(self.scatters, raised[:, :, None], self.means[:, None, :])

    @property
    def _mean(self) -> Tensor:
        # Shares of the rows rather than sums over them, whose size would cost digits.
        return (self.counts.double() / self.counts.sum().clamp(min=1)) @ self.means


class RunningClassMoments:
    """Moments by class of rows that arrive in batches with their labels.

    A batch costs one product of its rows. With ``scatters`` it costs as many products as it has
    classes, each of which reads and writes d² numbers, so batches of many rows to a class are
    cheaper than many small ones.

    Args:
        width: Number of features d.
        classes: Number of classes C.
        scatters: Whether to keep the scatter of every class, in C d² float64, or only their sum.

    Examples:
        >>> running = RunningClassMoments(1, 2, scatters=False)
        >>> running.update(torch.tensor([[1.0], [3.0], [7.0]]), torch.tensor([0, 0, -1]))
        >>> running.compute().means.tolist()
        [[2.0], [0.0]]
    """

    def __init__(self, width: int, classes: int, scatters: bool) -> None:
        self._counts = torch.zeros(classes, dtype=torch.int64)
        self._means = torch.zeros(classes, width, dtype=torch.float64)
        self._separate = scatters
        self._scatters = torch.zeros(classes if scatters else 1, width, width, dtype=torch.float64)

    def update(self, rows: Tensor, labels: Tensor) -> None:
        """Take in (n, d) rows with their (n,) integer labels.

        Rows whose label is none of 0, …, C − 1 are left out.
        """
        for block, answers in zip(
            torch.split(rows, BLOCK), torch.split(labels, BLOCK), strict=True
        ):
            known = (answers >= 0) & (answers < len(self._counts))
            own = block[known].double()
            if len(own):
                self._absorb(own, answers[known])

    def merge(self, other: RunningClassMoments) -> None:
        """Take in everything that another accumulator of the same classes has seen.

        Raises:
            EstimatorError: The two differ in their classes, features or in what they keep.
        """
        if self._shape() != other._shape():
            raise EstimatorError(
                f"Statistics of {other._shape()} cannot be added to those of {self._shape()}.",
                hint="Merge statistics that were collected with the same classes and settings.",
            )
        steps = self._move(slice(None), other._counts, other._means)
        self._scatters += other._scatters
        if self._separate:
            self._scatters.baddbmm_(steps[:, :, None], steps[:, None, :])
        else:
            self._scatters[0].addmm_(steps.T, steps)

    def compute(self) -> ClassMoments:
        """Return the moments of all rows so far."""
        return ClassMoments(
            counts=self._counts.clone(),
            means=self._means.clone(),
            within=self._scatters.sum(0),
            scatters=self._scatters.clone() if self._separate else None,
        )

    def state(self) -> State:
        """Return copies of all that :meth:`from_state` needs to go on to the same bits."""
        scatter = "scatters" if self._separate else "within"
        return {
            "counts": self._counts.clone(),
            "means": self._means.clone(),
            scatter: self._scatters.clone(),
        }

    @classmethod
    def from_state(cls, state: State) -> RunningClassMoments:
        """Return the accumulator that a state was taken from."""
        classes, width = state["means"].shape
        running = cls(width, classes, scatters="scatters" in state)
        # Copies, because products of memory that is aligned otherwise may differ in the last bit.
        running._counts = state["counts"].clone()
        running._means = state["means"].clone()
        running._scatters = state["scatters" if running._separate else "within"].clone()
        return running

    def _shape(self) -> str:
        classes, width = self._means.shape
        return f"{classes} classes × {width} features{' with scatters' if self._separate else ''}"

    def _absorb(self, rows: Tensor, labels: Tensor) -> None:
        labels, order = labels.sort(stable=True)
        present, sizes = torch.unique_consecutive(labels, return_counts=True)
        centres, offsets = _centred(rows[order], sizes)
        steps = self._move(present, sizes, centres)
        for slot, part in self._parts(present, sizes, offsets, steps):
            self._scatters[slot].addmm_(part.T, part)

    def _move(self, present: Tensor | slice, counts: Tensor, means: Tensor) -> Tensor:
        """Move some classes' counts and means to those of their old and new rows together.

        Returns:
            (p, d) vectors whose outer products with themselves are what the move adds to the
            scatter: √(n m / (n + m)) times the gap between the means.
        """
        old, gaps = self._counts[present], means - self._means[present]
        share = counts.double() / (old + counts).clamp(min=1)
        steps = gaps * (old * share).sqrt()[:, None]
        self._means[present] += gaps * share[:, None]
        self._counts[present] += counts
        return steps

    def _parts(
        self, present: Tensor, sizes: Tensor, offsets: Tensor, steps: Tensor
    ) -> Iterator[tuple[int, Tensor]]:
        """Yield each scatter that changes, with rows whose products with themselves it gains."""
        if not self._separate:
            yield 0, torch.cat((offsets, steps))
            return
        groups = torch.split(offsets, sizes.tolist())
        for slot, group, step in zip(present.tolist(), groups, steps, strict=True):
            yield slot, torch.cat((group, step[None]))


def _centred(rows: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
    """Return the (p, d) means of consecutive groups of rows, and the (n, d) rows less them."""
    shift = rows.mean(0)
    rows = rows - shift
    group = torch.arange(len(sizes)).repeat_interleave(sizes)
    sums = torch.zeros(len(sizes), rows.shape[1], dtype=torch.float64).index_add_(0, group, rows)
    centres = sums / sizes[:, None]
    return centres + shift, rows - centres[group]
