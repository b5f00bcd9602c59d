"""Running moments: count, mean and centred second moments, alone or crossed with targets.

Products are made in the dtype of the rows, block by block, and accumulated in float64; every block
is shifted by its own mean first, so that a large common offset costs no digits. Parts are merged by
the pairwise update of Chan, Golub and LeVeque (1983), "Algorithms for computing the sample
variance", eq. 2.1, so that splitting the rows changes nothing but the last digits.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

BLOCK = 4096
"""Rows per product: enough to keep the cores busy, few enough for float32 sums."""
PANEL = 256
"""Columns of a Gram matrix that are computed together, from the diagonal on."""

EXPONENTS = (-126, 127)
"""Of normal numbers in float32."""

State = dict[str, Tensor]
"""All that an accumulator knows, by name, in int64 and float64, to be stored and gone on from."""


@dataclass(frozen=True, slots=True)
class Moments:
    """First and second moments of the features."""

    count: int
    """Number of rows n."""
    mean: Tensor
    """(d,) float64."""
    scatter: Tensor
    """(d, d) float64, the sum over rows of (x − mean)(x − mean)ᵀ."""
    precision: float
    """Machine epsilon of the coarsest products that went into the scatter."""

    @property
    def covariance(self) -> Tensor:
        """(d, d) population covariance: divided by n."""
        return self.scatter / max(self.count, 1)

    @property
    def variance(self) -> Tensor:
        """(d,) population variance: divided by n."""
        return self.scatter.diagonal().clamp(min=0) / max(self.count, 1)

    @property
    def second_moment(self) -> Tensor:
        """(d, d) the sum over rows of x xᵀ, not centred and not divided by n."""
        return self.scatter + self.count * torch.outer(self.mean, self.mean)


@dataclass(frozen=True, slots=True)
class CrossMoments:
    """Moments of the features, of the targets, and between the two."""

    features: Moments
    targets: Moments
    cross: Tensor
    """(d, k) float64, the sum over rows of (x − mean)(y − mean)ᵀ."""

    def only(self, targets: slice) -> CrossMoments:
        """Return the moments with some of the targets."""
        return CrossMoments(self.features, _part(self.targets, targets), self.cross[:, targets])


class RunningMoments:
    """Moments of rows that arrive in batches.

    Args:
        width: Number of features d.

    Examples:
        >>> running = RunningMoments(2)
        >>> running.update(torch.tensor([[0.0, 1.0], [2.0, 1.0]]))
        >>> running.compute().variance.tolist()
        [1.0, 0.0]
    """

    def __init__(self, width: int) -> None:
        self._count = 0
        self._mean = torch.zeros(width, dtype=torch.float64)
        self._scatter = torch.zeros(width, width, dtype=torch.float64)
        self._precision = torch.finfo(torch.float64).eps

    def update(self, rows: Tensor) -> None:
        """Take in (n, d) rows; their dtype is that of the products."""
        for block in torch.split(rows, BLOCK):
            if len(block):
                self._absorb(_moments_of_block(block))

    def merge(self, other: RunningMoments) -> None:
        """Take in everything that another accumulator has seen."""
        self._absorb(other.compute())

    def compute(self) -> Moments:
        """Return the moments of all rows so far."""
        return Moments(self._count, self._mean.clone(), self._scatter.clone(), self._precision)

    def state(self) -> State:
        """Return copies of all that :meth:`from_state` needs to go on to the same bits."""
        return {
            "count": torch.tensor(self._count),
            "mean": self._mean.clone(),
            "scatter": self._scatter.clone(),
            "precision": torch.tensor(self._precision, dtype=torch.float64),
        }

    @classmethod
    def from_state(cls, state: State) -> RunningMoments:
        """Return the accumulator that a state was taken from."""
        running = cls(len(state["mean"]))
        running._count = int(state["count"])
        # Copies, because products of memory that is aligned otherwise may differ in the last bit.
        running._mean = state["mean"].clone()
        running._scatter = state["scatter"].clone()
        running._precision = float(state["precision"])
        return running

    def _absorb(self, part: Moments) -> None:
        total = self._count + part.count
        if not total:
            return
        gap = part.mean - self._mean
        self._scatter += part.scatter + torch.outer(gap, gap) * (self._count * part.count / total)
        self._mean += gap * (part.count / total)
        self._count = total
        self._precision = max(self._precision, part.precision)


class RunningCrossMoments:
    """Moments of features and targets together, for least squares.

    Features and targets are one wide row to :class:`RunningMoments`, which keeps the algebra of
    merging in a single place.

    Args:
        width: Number of features d.
        outputs: Number of target components k.
    """

    def __init__(self, width: int, outputs: int) -> None:
        self._width = width
        self._joint = RunningMoments(width + outputs)

    def update(self, rows: Tensor, targets: Tensor) -> None:
        """Take in (n, d) rows with their (n, k) targets, in the dtype of the rows."""
        for block, answers in zip(
            torch.split(rows, BLOCK), torch.split(targets, BLOCK), strict=True
        ):
            self._joint.update(torch.cat((block, answers.to(block.dtype)), dim=1))

    def merge(self, other: RunningCrossMoments) -> None:
        """Take in everything that another accumulator has seen."""
        self._joint.merge(other._joint)

    def compute(self) -> CrossMoments:
        """Return the moments of all rows so far."""
        joint, d = self._joint.compute(), self._width
        return CrossMoments(
            features=_part(joint, slice(None, d)),
            targets=_part(joint, slice(d, None)),
            cross=joint.scatter[:d, d:],
        )

    def state(self) -> State:
        """Return copies of all that :meth:`from_state` needs to go on to the same bits."""
        return {"width": torch.tensor(self._width)} | self._joint.state()

    @classmethod
    def from_state(cls, state: State) -> RunningCrossMoments:
        """Return the accumulator that a state was taken from."""
        width = int(state["width"])
        running = cls(width, len(state["mean"]) - width)
        running._joint = RunningMoments.from_state(state)
        return running


def _moments_of_block(block: Tensor) -> Moments:
    shift = block.mean(0)
    offsets = block - shift
    units = _powers_of_two(offsets)
    offsets.div_(units)
    remainder = offsets.double().sum(0) / len(block)
    scatter = gram(offsets).double() - len(block) * torch.outer(remainder, remainder)
    wide = units.double()
    return Moments(
        count=len(block),
        mean=shift.double() + remainder * wide,
        scatter=scatter * torch.outer(wide, wide),
        precision=torch.finfo(block.dtype).eps,
    )


def _powers_of_two(offsets: Tensor) -> Tensor:
    """Return (d,) powers of 2 near the largest entry of each column.

    Divided by them no square is 0 or infinite in float32, and no digit is another.
    """
    largest = offsets.abs().amax(0)
    exponents = torch.frexp(largest).exponent.clamp(*EXPONENTS)
    return torch.ldexp(torch.ones_like(largest), torch.where(largest > 0, exponents, 0))


def row_mean(rows: Tensor) -> Tensor:
    """Return the (d,) float64 mean of (n, d) rows, without a copy of them all."""
    total = torch.zeros(rows.shape[1], dtype=torch.float64)
    for block in torch.split(rows, BLOCK):
        total += block.sum(0, dtype=torch.float64)
    return total / max(len(rows), 1)


def gram(rows: Tensor) -> Tensor:
    """Return (d, d) XᵀX of (n, d) rows, whose lower half is the mirrored upper one."""
    product = rows.new_empty(rows.shape[1], rows.shape[1])
    for start in range(0, len(product), PANEL):
        stop = start + PANEL
        panel = rows[:, start:stop].T @ rows[:, start:]
        product[start:stop, start:] = panel
        product[start:, start:stop] = panel.T
    return product


def _part(joint: Moments, of: slice) -> Moments:
    return Moments(joint.count, joint.mean[of], joint.scatter[of, of], joint.precision)
