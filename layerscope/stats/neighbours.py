"""Exact nearest neighbours by cosine similarity, in blocks of bounded memory, and their votes.

The votes are those of Wu et al. (2018), "Unsupervised Feature Learning via Non-Parametric Instance
Discrimination", section 3.4, which DINO (Caron et al. 2021) follows: each of the k nearest rows
votes for its class with weight exp(similarity / T).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from layerscope.stats.moments import BLOCK

QUERIES, KEYS = 512, 8192
"""Rows of a block on either side: 16 MiB of similarities in float32."""


def unit_rows(rows: Tensor) -> Tensor:
    """Return (n, d) rows of length 1; a row of zeros stays one, alike to nothing.

    Each row is divided by its largest entry first, because squares of very small or very large
    features are 0 or infinite. By parts, because all of that is a copy.
    """
    unit = torch.empty_like(rows)
    for part, own in zip(torch.split(unit, BLOCK), torch.split(rows, BLOCK), strict=True):
        largest = own.abs().amax(1, keepdim=True)
        torch.div(own, torch.where(largest > 0, largest, 1.0), out=part)
        lengths = torch.linalg.vector_norm(part, dim=1, keepdim=True)
        part.div_(torch.where(lengths > 0, lengths, 1.0))
    return unit


def nearest(queries: Tensor, keys: Tensor, k: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield, block by block of queries, their k most similar keys.

    Args:
        queries: (m, d) rows of length 1.
        keys: (n, d) rows of length 1.
        k: At most n.

    Yields:
        (b, k) similarities in descending order, and (b, k) int64 places of the keys.

    Examples:
        >>> keys = unit_rows(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]))
        >>> [(_, places)] = nearest(keys[:1], keys, 2)
        >>> places.tolist()
        [[0, 2]]
    """
    for block in torch.split(queries, QUERIES):
        best = block.new_empty(len(block), 0)
        places = torch.empty(len(block), 0, dtype=torch.int64)
        for start in range(0, len(keys), KEYS):
            similar = block @ keys[start : start + KEYS].T
            own = torch.arange(start, start + similar.shape[1]).expand(len(block), -1)
            best, order = torch.cat((best, similar), 1).topk(min(k, start + similar.shape[1]), 1)
            places = torch.cat((places, own), 1).gather(1, order)
        yield best, places


def vote(
    similar: Tensor, labels: Tensor, classes: int, ks: Sequence[int], temperature: float
) -> Tensor:
    """Return the logarithms of the votes for each class, for several numbers of neighbours.

    Args:
        similar: (b, K) similarities, descending.
        labels: (b, K) classes of those neighbours.
        classes: Their number c.
        ks: Numbers of neighbours that vote, each at most K.
        temperature: T > 0.

    Returns:
        (b, len(ks), c) float64; minus infinity for a class without a vote.
    """
    # Relative to the nearest, so that no temperature is too low for the exponential.
    weights = ((similar - similar[:, :1]).double() / temperature).exp()
    votes = [
        weights.new_zeros(len(similar), classes).scatter_add_(1, labels[:, :k], weights[:, :k])
        for k in ks
    ]
    return torch.stack(votes, 1).log()
