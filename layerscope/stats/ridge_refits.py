"""Ridge regression again without some of its training rows, from the solution with all of them.

In the eigenvectors' coordinates the Gram matrix of all rows is n diag(s), so that of the rest it is
that less the block's own: no second decomposition is needed. The standardisation stays that of all
rows, so that λ means the same.
"""

from __future__ import annotations

import torch
from torch import Tensor

from layerscope.stats.ridge import RidgePath


def without_rows(
    path: RidgePath, rows: Tensor, targets: Tensor, penalties: Tensor, share: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Return the ridge solution on the training rows that are left, or with less of some.

    Args:
        path: Of all n training rows.
        rows: (m, d) of them, as they are, that are left out; m < n.
        targets: (m, k) theirs.
        penalties: (k,) λ > 0 of each target.
        share: Of their weight that is taken away; 1 leaves them out.

    Returns:
        (d, k) weights on features standardised as ``path`` has them, and (k,) intercepts.
    """
    basis, left = path.spectrum, path.spectrum.count - share * len(rows)
    turned, offsets = basis.rotate(rows), targets.double() - path.intercept
    mean, target_mean = (-share * it.sum(0) / left for it in (turned, offsets))
    gram = (basis.count * basis.values).diag() - share * turned.T @ turned
    cross = basis.count * path.projection - share * turned.T @ offsets
    gram = gram / left - torch.outer(mean, mean)
    cross = cross / left - torch.outer(mean, target_mean)
    weights = torch.empty_like(cross)
    for penalty in torch.unique(penalties):
        which = penalties == penalty
        shrunk = gram + penalty * torch.eye(len(gram), dtype=gram.dtype)
        weights[:, which] = torch.linalg.solve(shrunk, cross[:, which])
    intercept = path.intercept + target_mean - mean @ weights
    return basis.vectors @ weights, intercept
