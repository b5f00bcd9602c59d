"""Intrinsic dimension: of how many parameters the rows are a function, from neighbours' distances.

TwoNN: Facco, d'Errico, Rodriguez and Laio (2017), "Estimating the intrinsic dimension of datasets
by a minimal neighborhood information". Where the density hardly changes within the distance to the
second neighbour, the ratio μ of the distances to the second and the first is Pareto distributed
with exponent d. Maximum likelihood: Levina and Bickel (2004), "Maximum Likelihood Estimation of
Intrinsic Dimension", eq. 8, whose local estimates are averaged as MacKay and Ghahramani (2005)
correct them: by the mean of their inverses.

Both fall short of high dimensions, because the rows needed grow exponentially. Exact copies have no
distance and are counted once.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from layerscope.errors import EstimatorError

QUERIES, KEYS = 1024, 4096
"""Rows of a block on either side."""
SPARE = 4
"""Neighbours beyond the wanted ones whose distances are computed again exactly."""


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Distances of different rows to their nearest ones."""

    distances: Tensor
    """(m, k) float64 positive, ascending."""
    rows: Tensor
    """(m,) int64 place of each of them among the rows that were given."""
    copies: int
    """Rows that were left out because an earlier one is the same."""


def nearest_distances(rows: Tensor, k: int) -> Neighbours:
    """Return the euclidean distances of every row to its k nearest others.

    Candidates come from products in the rows' own type; their distances are computed again from
    differences in float64, because the products of near rows cancel.

    Args:
        rows: (n, d) features.
        k: Fewer than there are different rows.

    Raises:
        EstimatorError: There are too few different rows.
    """
    kept = _first_of_copies(rows)
    distinct = rows[kept]
    if len(distinct) <= k:
        raise EstimatorError(
            f"{k} neighbours need {k + 1} different rows, and there are {len(distinct)} of "
            f"{len(rows)}.",
            hint="Give more images; a layer whose rows are copies of each other is dead.",
        )
    centred = distinct - distinct.mean(0)
    squares = centred.square().sum(1)
    wanted = min(k + SPARE, len(distinct) - 1)
    found = []
    for start in range(0, len(distinct), QUERIES):
        block = slice(start, start + QUERIES)
        places = _candidates(centred, squares, block, wanted)
        gaps = distinct[places].double() - distinct[block, None].double()
        exact = gaps.square().sum(2).sqrt()
        found.append(exact.sort(1).values[:, :k])
    return Neighbours(torch.cat(found), kept, len(rows) - len(kept))


@dataclass(frozen=True, slots=True)
class Dimension:
    """An intrinsic dimension with what every row contributes to its inverse."""

    value: float
    inverse: Tensor
    """(m,) float64, whose mean is close to 1/value."""

    @property
    def influence(self) -> Tensor:
        """(m,) values whose standard error is that of the dimension."""
        return -(self.value**2) * self.inverse


def two_nn(neighbours: Neighbours) -> Dimension:
    """Return (m − 1)/Σ log μ, the unbiased likelihood estimate.

    Args:
        neighbours: Of at least 2 neighbours.
    """
    logs = (neighbours.distances[:, 1] / neighbours.distances[:, 0]).log()
    return Dimension((len(logs) - 1) / float(_positive(logs).sum()), logs)


def two_nn_by_line(neighbours: Neighbours, discarded: float = 0.1) -> float:
    """Return the slope through the origin of −log(1 − F(μ)) against log μ: the paper's own fit.

    Args:
        neighbours: Of at least 2 neighbours.
        discarded: Share of the largest μ that is left out.
    """
    logs = _positive((neighbours.distances[:, 1] / neighbours.distances[:, 0]).log()).sort().values
    share = torch.arange(1, len(logs) + 1, dtype=torch.float64) / len(logs)
    kept = max(1, int(len(logs) * (1 - discarded)))
    x, y = logs[:kept], -torch.log1p(-share[:kept].clamp(max=1 - 1 / (2 * len(logs))))
    return float((x @ y) / (x @ x))


def levina_bickel(neighbours: Neighbours) -> Dimension:
    """Return one over the mean over rows of 1/(k − 1) Σ_{j<k} log T_k/T_j.

    Args:
        neighbours: Of at least k = 2 neighbours, all of which count.
    """
    logs = (neighbours.distances[:, -1:] / neighbours.distances[:, :-1]).log()
    inverse = logs.mean(1)
    return Dimension(1 / float(_positive(inverse).mean()), inverse)


def _positive(logs: Tensor) -> Tensor:
    if not float(logs.sum()) > 0:
        raise EstimatorError(
            "All neighbours of a row are equally far, so that a dimension is not defined.",
            hint="The rows lie on a grid, or are one-hot; a dimension is of continuous features.",
        )
    return logs


def _first_of_copies(rows: Tensor) -> Tensor:
    """Return the places of rows that no earlier one equals, ascending."""
    _, place = torch.unique(rows, dim=0, return_inverse=True)
    first = torch.full((int(place.max()) + 1 if len(place) else 0,), len(rows))
    first.scatter_reduce_(0, place, torch.arange(len(rows)), "amin")
    return first.sort().values


def _candidates(rows: Tensor, squares: Tensor, block: slice, k: int) -> Tensor:
    """Return (b, k) places of the rows nearest to those of a block, itself excluded."""
    queries = rows[block]
    own = torch.arange(block.start, block.start + len(queries))
    best = torch.empty(len(queries), 0, dtype=rows.dtype)
    places = torch.empty(len(queries), 0, dtype=torch.int64)
    for start in range(0, len(rows), KEYS):
        keys = slice(start, start + KEYS)
        nearness = 2 * (queries @ rows[keys].T) - squares[keys]
        there = torch.arange(start, start + nearness.shape[1])
        nearness.masked_fill_(own[:, None] == there, -torch.inf)
        joined = torch.cat((best, nearness), 1)
        best, order = joined.topk(min(k, joined.shape[1]), 1)
        places = torch.cat((places, there.expand(len(queries), -1)), 1).gather(1, order)
    return places
