"""Coding rates of rows that are divided into classes: one class at a time, on the smaller side.

R(Z) = ½ log det(I_d + c ZᵀZ) = ½ log det(I_n + c ZZᵀ) by Sylvester's identity, so a class of n_c
rows needs the smaller of its n_c × n_c and d × d matrices. Classes on their rows' side are taken
several at a time, padded with rows of zeros, which add nothing to a determinant. Nothing of the
size classes × rows × rows, as in the authors' code, or classes × d × d ever exists.

For the standard error every rate is wanted once more without each block of rows. Without a block
means a principal submatrix on the rows' side, and a difference of second moments on the features',
so that one product of the rows serves all of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from layerscope.errors import EstimatorError
from layerscope.stats.coding_rate import CodingRates, log_determinants, require_distortion

Normalisation = Literal["sphere", "frobenius", "none"]
"""Every row of length 1; every class scaled to a mean squared length of 1; or rows as they are.

The first two are the paper's constraints (section 2.2); the third is what UMM's code computes."""

BLOCK = 4096
"""Rows of one product."""
HELD = 1 << 22
"""Numbers of a stack of matrices on the rows' side, or of the rows behind it: 32 MiB in float64."""


@dataclass(frozen=True, slots=True)
class PartitionedRates:
    """The rates of all rows, and those without each block of them."""

    whole: CodingRates
    without: tuple[CodingRates, ...]
    """One for each block; empty where no blocks were given."""


def partitioned_rates(
    rows: Tensor,
    labels: Tensor | None,
    eps_sq: float,
    *,
    normalisation: Normalisation = "sphere",
    blocks: Tensor | None = None,
) -> PartitionedRates:
    """Return R, R_c and, without each block of rows, both again.

    Products are made in float64, whatever the rows' type and number are.

    Args:
        rows: (n, d) features as they are.
        labels: (n,) integers that name each row's class; None for one class of all rows.
        eps_sq: The squared distortion ε², in the unit of the normalised features squared.
        normalisation: What is done to rows first. ``frobenius`` is done anew without each block,
            which takes as long as there are blocks.
        blocks: (n,) int64 block of each row, from 0.

    Raises:
        EstimatorError: ε² is not positive and finite, or rates are lost in rounding.

    Examples:
        >>> rows = torch.eye(4).repeat(2, 1)
        >>> rates = partitioned_rates(rows, torch.arange(4).repeat(2), 0.5).whole
        >>> round(rates.rate, 4), round(rates.conditional, 4)
        (2.1972, 1.0986)
    """
    require_distortion(eps_sq)
    if normalisation == "frobenius" and blocks is not None:
        return _each_anew(rows, labels, eps_sq, blocks)
    everything = torch.arange(len(rows))
    members = torch.zeros_like(everything)
    if labels is not None:
        members = torch.unique(labels, return_inverse=True)[1]
    layer = _Rows.of(rows, members, eps_sq, normalisation, blocks)
    together = layer.rate(everything)
    apart = together
    if labels is not None:
        apart = _summed_over_classes(layer, members) / layer.counts(everything[None])[0].clamp(1)
    rates = [CodingRates(r, c) for r, c in zip(together.tolist(), apart.tolist(), strict=True)]
    return PartitionedRates(rates[0], tuple(rates[1:]))


def conditional_rate(
    rows: Tensor, labels: Tensor, eps_sq: float, *, normalisation: Normalisation = "sphere"
) -> float:
    """Return R_c alone, which with small classes needs no product of d × d.

    Args:
        rows: (n, d) features as they are.
        labels: (n,) integers that name each row's class.
        eps_sq: The squared distortion ε².
        normalisation: What is done to rows first.

    Raises:
        EstimatorError: As :func:`partitioned_rates`.
    """
    require_distortion(eps_sq)
    members = torch.unique(labels, return_inverse=True)[1]
    layer = _Rows.of(rows, members, eps_sq, normalisation, None)
    return float(_summed_over_classes(layer, members)) / max(len(rows), 1)


def _each_anew(
    rows: Tensor, labels: Tensor | None, eps_sq: float, blocks: Tensor
) -> PartitionedRates:
    """Return the rates of rows whose scale depends on all rows of their class."""

    def rates(kept: Tensor) -> CodingRates:
        answers = None if labels is None else labels[kept]
        return partitioned_rates(rows[kept], answers, eps_sq, normalisation="frobenius").whole

    without = [rates(blocks != block) for block in range(int(blocks.max()) + 1)]
    return PartitionedRates(rates(torch.ones_like(blocks, dtype=torch.bool)), tuple(without))


def row_scales(rows: Tensor, members: Tensor, normalisation: Normalisation) -> Tensor:
    """Return the (n,) float64 factors that normalise rows; a row of zeros stays one.

    Args:
        rows: (n, d) features.
        members: (n,) int64 class of each row, from 0, for ``frobenius``.
        normalisation: What for.
    """
    if normalisation == "none":
        return torch.ones(len(rows), dtype=torch.float64)
    squares = squared_lengths(rows)
    if normalisation == "frobenius":
        classes = int(members.max()) + 1 if len(members) else 0
        sums = torch.zeros(classes, dtype=torch.float64).index_add_(0, members, squares)
        squares = (sums / torch.bincount(members, minlength=classes))[members]
    return torch.where(squares > 0, squares, 1.0).rsqrt() * (squares > 0)


def squared_lengths(rows: Tensor) -> Tensor:
    """Return the (n,) float64 squared lengths of (n, d) rows."""
    parts = [block.double().square().sum(1) for block in torch.split(rows, BLOCK)]
    return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.float64)


@dataclass(frozen=True, slots=True)
class _Rows:
    """Rows with all that their rates depend on."""

    features: Tensor
    scale: Tensor
    blocks: Tensor
    count: int
    """Number of blocks."""
    eps_sq: float

    @classmethod
    def of(
        cls,
        rows: Tensor,
        members: Tensor,
        eps_sq: float,
        normalisation: Normalisation,
        blocks: Tensor | None,
    ) -> _Rows:
        """Return rows with their scale."""
        scale = row_scales(rows, members, normalisation)
        dealt = torch.zeros_like(members) if blocks is None else blocks
        count = int(dealt.max()) + 1 if blocks is not None and len(dealt) else 0
        return cls(rows, scale, dealt, count, eps_sq)

    @property
    def width(self) -> int:
        return self.features.shape[1]

    def normalised(self, places: Tensor) -> Tensor:
        """Return some rows in float64, normalised; places of −1 give rows of zeros."""
        factors = self.scale[places] * (places >= 0)
        return self.features[places].double().mul_(factors[..., None])

    def factor(self, counts: Tensor) -> Tensor:
        """Return d/(n ε²) for numbers of rows n; what is no row costs nothing."""
        return self.width / (counts.double().clamp(min=1) * self.eps_sq)

    def rate(self, places: Tensor) -> Tensor:
        """Return the (1 + blocks,) rates of some rows: of all, and without each block."""
        if len(places) <= self.width:
            return self.rates(places[None])[0]
        factors = self.factor(self.counts(places[None])[0])
        total = self._moment(places)
        found = [log_determinants(total * factors[0], self.eps_sq)]
        for b in range(self.count):
            # Multiplied again, because all blocks' moments at once would be the largest in memory.
            rest = total - self._moment(places[self.blocks[places] == b])
            found.append(log_determinants(rest * factors[b + 1], self.eps_sq))
        return torch.stack(found)

    def rates(self, places: Tensor) -> Tensor:
        """Return the (p, 1 + blocks) rates of p sets of rows, padded with −1, on the rows' side."""
        rows = self.normalised(places)
        gram = rows @ rows.mT
        factors = self.factor(self.counts(places))[:, :, None, None]
        found = [log_determinants(gram * factors[:, 0], self.eps_sq)]
        for b in range(self.count):
            kept = (self.blocks[places] != b).double()
            rest = gram * kept[:, :, None] * kept[:, None]
            found.append(log_determinants(rest * factors[:, b + 1], self.eps_sq))
        return torch.stack(found, 1)

    def counts(self, places: Tensor) -> Tensor:
        """Return the (p, 1 + blocks) numbers of rows of p sets: all, and without each block."""
        known, blocks = places >= 0, self.blocks[places]
        parts = [known, *(known & (blocks != b) for b in range(self.count))]
        return torch.stack([part.sum(1) for part in parts], 1)

    def _moment(self, places: Tensor) -> Tensor:
        """Return the (d, d) float64 second moment of some rows: not divided by their number."""
        total = torch.zeros(self.width, self.width, dtype=torch.float64)
        for some in torch.split(places, BLOCK):
            rows = self.normalised(some)
            total.addmm_(rows.T, rows)
        return total


def _summed_over_classes(layer: _Rows, members: Tensor) -> Tensor:
    """Return the (1 + blocks,) sums over classes of n_c times the class's rate."""
    total = torch.zeros(layer.count + 1, dtype=torch.float64)
    for places in _stacks(members, layer.width):
        alone = places.shape[1] > layer.width
        rates = layer.rate(places[0])[None] if alone else layer.rates(places)
        total += (layer.counts(places) * rates).sum(0)
    return total


def _stacks(members: Tensor, width: int) -> Iterator[Tensor]:
    """Yield (p, s) places of the rows of p classes, padded with −1; large classes alone.

    Classes are sorted by size, so that those that share a stack need little padding.
    """
    order = members.argsort(stable=True)
    sizes = torch.bincount(members)
    starts = sizes.cumsum(0) - sizes
    ascending = sizes.argsort(stable=True).tolist()
    while ascending:
        largest = int(sizes[ascending[-1]])
        fits = 1 if largest > width else max(1, HELD // (largest * max(largest, width)))
        taken, ascending = ascending[-fits:], ascending[:-fits]
        offsets = torch.arange(largest)
        places = starts[taken][:, None] + offsets
        inside = offsets < sizes[taken][:, None]
        yield torch.where(inside, order[places.clamp(max=len(order) - 1)], -1)


def pair_terms(first: Tensor, second: Tensor, eps_sq: float) -> Tensor:
    """Return the (N,) contributions of pairs to R_c where every pair of rows is a class.

    With c = d/(2 ε²) the 2 × 2 determinant of a pair a, b is (1 + c‖a‖²)(1 + c‖b‖²) − c²⟨a, b⟩²,
    and R_c is the mean of half its logarithm over the N pairs: a class of two of 2N rows counts
    2/(2N) times ½ log det. No matrix is needed.

    Args:
        first: (N, d) one row of each pair, normalised.
        second: (N, d) the other.
        eps_sq: The squared distortion ε².

    Raises:
        EstimatorError: ε² is not positive and finite, or a feature is not finite.

    Examples:
        >>> row = torch.tensor([[1.0, 0.0]])
        >>> round(float(pair_terms(row, row, 0.5).exp().square()), 9)  # 3 · 3 − 2²
        5.0
    """
    require_distortion(eps_sq)
    first, second = first.double(), second.double()
    c = first.shape[1] / (2 * eps_sq)
    own, other = first.square().sum(1), second.square().sum(1)
    # The product of the two less the squared cosine's part, without the cancelling 1's.
    spread = own * other - (first * second).sum(1).square()
    terms = torch.log1p(c * (own + other) + c**2 * spread.clamp(min=0)) / 2
    if not bool(terms.isfinite().all()):
        raise EstimatorError(
            f"The coding rate of pairs at a squared distortion of {eps_sq:g} is not finite.",
            hint="Look for features that are not finite, or raise the distortion.",
        )
    return terms
