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
from layerscope.stats.moments import row_mean

QUERIES, KEYS = 1024, 4096
"""Rows of a block on either side."""
SPARE = 4
"""Neighbours beyond the wanted ones whose distances are computed again exactly."""
TOGETHER = 1 << 22
"""Numbers of the differences that are computed together: 32 MiB."""


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Distances of different rows to their nearest ones."""

    distances: Tensor
    """(m, k) float64 positive, ascending."""
    places: Tensor
    """(m, k) int64 which of the m rows these are."""
    rows: Tensor
    """(m,) int64 place of each of them among the rows that were given."""
    copies: int
    """Rows that were left out because an earlier one is the same."""

    def among(self, kept: Tensor, k: int) -> Tensor | None:
        """Return the distances of some rows to the k nearest of them.

        Args:
            kept: (m,) bool, which rows.
            k: How many neighbours.

        Returns:
            (kept, k) float64 distances; None where these neighbours do not tell, because fewer than
            k of some row's are among them.
        """
        there = kept[self.places[kept]]
        place = there.cumsum(1)
        if not bool((place[:, -1] >= k).all()):
            return None
        return self.distances[kept][there & (place <= k)].view(-1, k)


def nearest_distances(rows: Tensor, k: int, more: int = 0) -> Neighbours:
    """Return the euclidean distances of every row to its k nearest others.

    Candidates come from products in float64; their distances are computed again from differences,
    because the products of near rows cancel.

    Args:
        rows: (n, d) features.
        k: Fewer than there are different rows.
        more: How many others beyond these, where there are so many different rows.

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
    k = min(k + more, len(distinct) - 1)
    mean = row_mean(distinct)
    squares = torch.cat([
        (block.double() - mean).square_().sum(1) for block in torch.split(distinct, KEYS)
    ])  # fmt: skip
    wanted = min(k + SPARE, len(distinct) - 1)
    distances, places = [], []
    for start in range(0, len(distinct), QUERIES):
        block = slice(start, start + QUERIES)
        candidates = _candidates(distinct, mean, squares, block, wanted)
        exact, order = _distances(distinct, block, candidates).sort(1)
        distances.append(exact[:, :k])
        places.append(candidates.gather(1, order[:, :k]))
    return Neighbours(torch.cat(distances), torch.cat(places), kept, len(rows) - len(kept))


def two_nn(distances: Tensor) -> float:
    """Return (m − 1)/Σ log μ, the unbiased likelihood estimate.

    Args:
        distances: (m, k) ascending, k > 1.
    """
    logs = (distances[:, 1] / distances[:, 0]).log()
    return (len(logs) - 1) / float(_positive(logs).sum())


def two_nn_by_line(distances: Tensor, discarded: float = 0.1) -> float:
    """Return the slope through the origin of −log(1 − F(μ)) against log μ: the paper's own fit.

    Args:
        distances: (m, k) ascending, k > 1.
        discarded: Share of the largest μ that is left out.
    """
    logs = _positive((distances[:, 1] / distances[:, 0]).log()).sort().values
    share = torch.arange(1, len(logs) + 1, dtype=torch.float64) / len(logs)
    kept = max(1, int(len(logs) * (1 - discarded)))
    x, y = logs[:kept], -torch.log1p(-share[:kept].clamp(max=1 - 1 / (2 * len(logs))))
    return float((x @ y) / (x @ x))


def levina_bickel(distances: Tensor) -> float:
    """Return one over the mean over rows of 1/(k − 1) Σ_{j<k} log T_k/T_j.

    Args:
        distances: (m, k) ascending, k > 1, all of which count.
    """
    logs = (distances[:, -1:] / distances[:, :-1]).log()
    return 1 / float(_positive(logs.mean(1)).mean())


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


def _candidates(rows: Tensor, mean: Tensor, squares: Tensor, block: slice, k: int) -> Tensor:
    """Return (b, k) places of the rows nearest to those of a block, itself excluded.

    Args:
        rows: (m, d) as they are.
        mean: (d,) float64 of them.
        squares: (m,) float64 squared lengths of the rows less their mean.
        block: Which rows.
        k: How many.
    """
    queries = rows[block].double() - mean
    own = torch.arange(block.start, block.start + len(queries))
    best = torch.empty(len(queries), 0, dtype=torch.float64)
    places = torch.empty(len(queries), 0, dtype=torch.int64)
    for start in range(0, len(rows), KEYS):
        keys = slice(start, start + KEYS)
        nearness = 2 * (queries @ (rows[keys].double() - mean).T) - squares[keys]
        there = torch.arange(start, start + nearness.shape[1])
        nearness.masked_fill_(own[:, None] == there, -torch.inf)
        joined = torch.cat((best, nearness), 1)
        best, order = joined.topk(min(k, joined.shape[1]), 1)
        places = torch.cat((places, there.expand(len(queries), -1)), 1).gather(1, order)
    return places


def _distances(rows: Tensor, block: slice, places: Tensor) -> Tensor:
    """Return (b, k) float64 distances of a block's rows to some others, from differences."""
    size = max(1, TOGETHER // max(places.shape[1] * rows.shape[1], 1))
    parts = zip(torch.split(rows[block], size), torch.split(places, size), strict=True)
    return torch.cat([
        (rows[there].double() - own[:, None].double()).square_().sum(2).sqrt()
        for own, there in parts
    ])  # fmt: skip
