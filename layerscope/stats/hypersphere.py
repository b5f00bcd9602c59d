"""Alignment and uniformity: whether views of an image meet, and whether images spread out.

Wang and Isola (2020), "Understanding Contrastive Representation Learning through Alignment and
Uniformity on the Hypersphere", eq. 3 and 4, with their exponents α = 2 and t = 2. Rows are scaled
to length 1; one of zeros has no direction and is at a right angle to all others.
"""

from __future__ import annotations

import torch
from torch import Tensor

from layerscope.errors import EstimatorError
from layerscope.stats.neighbours import unit_rows

SIDE = 2048
"""Rows of a block on either side: 32 MiB of similarities in float64."""


def alignment_by_image(rows: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean of ‖a − b‖² over the pairs of different views of each image.

    With s the sum of q unit rows the mean over pairs of ⟨a, b⟩ is (‖s‖² − q)/(q(q − 1)), so that no
    pair is ever formed.

    Args:
        rows: (n, d) features.
        images: (n,) int64 image of each row.

    Returns:
        (m,) means of images with at least two views, and (m,) int64 which images these are.

    Raises:
        EstimatorError: No image has two views.
    """
    names, place, counts = torch.unique(images, return_inverse=True, return_counts=True)
    sums = torch.zeros(len(names), rows.shape[1], dtype=torch.float64)
    own = torch.zeros(len(names), dtype=torch.float64)
    for block, of in zip(torch.split(rows, SIDE), torch.split(place, SIDE), strict=True):
        wide = unit_rows(block.double())
        sums.index_add_(0, of, wide)
        own.index_add_(0, of, wide.square().sum(1))
    several = counts > 1
    if not bool(several.any()):
        raise EstimatorError(
            f"Alignment needs an image with two views, and {len(rows)} rows show {len(names)}.",
            hint="Extract the features with --views 2 or more.",
        )
    q = counts[several].double()
    cosines = (sums[several].square().sum(1) - own[several]) / (q * (q - 1))
    return 2 - 2 * cosines, names[several]


def potential_by_row(rows: Tensor, images: Tensor, t: float = 2.0) -> Tensor:
    """Return the mean of exp(−t‖a − b‖²) over the rows of other images, for each row.

    Uniformity is the logarithm of the mean over rows. Products are made in float64, because where
    all rows point nearly one way the distances are what rounding would leave of them; each pair is
    taken once.

    Args:
        rows: (n, d) features.
        images: (n,) int64 image of each row: two views of one image are no independent pair.
        t: The exponent.

    Raises:
        EstimatorError: All rows show one image.
    """
    total = torch.zeros(len(rows), dtype=torch.float64)
    pairs = torch.zeros(len(rows), dtype=torch.float64)
    for start in range(0, len(rows), SIDE):
        here = slice(start, start + SIDE)
        unit = unit_rows(rows[here].double())
        for other in range(start, len(rows), SIDE):
            there = slice(other, other + SIDE)
            beside = unit if other == start else unit_rows(rows[there].double())
            apart = images[here, None] != images[there]
            values = (unit @ beside.T).sub_(1).mul_(2 * t).exp_().mul_(apart)
            for side, axis in ((here, 1), (there, 0))[: 1 + (other > start)]:
                total[side] += values.sum(axis)
                pairs[side] += apart.sum(axis)
    if not bool((pairs > 0).all()):
        raise EstimatorError(
            f"Uniformity needs at least 2 images, and all {len(rows)} rows show one.",
            hint="Give more images; check how the splits were made.",
        )
    return total / pairs
